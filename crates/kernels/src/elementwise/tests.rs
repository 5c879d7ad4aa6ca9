use std::sync::Arc;

use crate::{Isa, Kernels, Pool, RowsMut, Unary, naive, sample::numbers};

/// Of a softmax in f32: its exponential, its sum and its division, of numbers of at most 1.
const ERROR: f32 = 3e-7;

fn kernels(threads: usize) -> Vec<Kernels> {
    let pool = Arc::new(Pool::new(threads).unwrap());
    Isa::available().iter().map(|&isa| Kernels::with(isa, Arc::clone(&pool)).unwrap()).collect()
}

fn softmax(kernels: &Kernels, x: &[f32], columns: usize) -> Vec<f32> {
    let mut y = x.to_vec();
    kernels.softmax(&mut RowsMut::new(&mut y, x.len() / columns, columns).unwrap());
    y
}

#[test]
fn softmax_of_every_width() {
    for columns in (1..70).chain([127, 512, 1000]) {
        let x: Vec<f32> = numbers(columns * 9, 2).iter().map(|x| x * 10.0).collect();
        let mut truth = x.clone();
        naive::softmax(&mut RowsMut::new(&mut truth, 9, columns).unwrap());
        for kernels in kernels(2) {
            let y = softmax(&kernels, &x, columns);
            assert!(y.iter().zip(&truth).all(|(y, truth)| (y - truth).abs() <= ERROR), "{columns} columns");
        }
    }
}

#[test]
fn softmax_of_what_is_not_finite() {
    for kernels in kernels(1) {
        assert_eq!(softmax(&kernels, &[f32::NEG_INFINITY, 1.0, f32::MIN], 3), [0.0, 1.0, 0.0]);
        for odd in [f32::NAN, f32::INFINITY] {
            for place in 0..20 {
                let mut x = numbers(20, 1);
                x[place] = odd;
                assert!(softmax(&kernels, &x, 20)[place].is_nan());
            }
        }
        assert!(softmax(&kernels, &[f32::NEG_INFINITY; 20], 20).iter().all(|x| x.is_nan()));
        assert_eq!(softmax(&kernels, &[], 1), []);
    }
}

#[test]
fn threads_and_neighbours_change_nothing() {
    let x: Vec<f32> = numbers(50_000, 2).iter().map(|x| x * 5.0).collect();
    for (index, alone) in kernels(1).iter().enumerate() {
        let mut gelu = x.clone();
        alone.unary(Unary::GeluErf, &mut gelu);
        let whole = softmax(alone, &x, 50);
        for threads in [2, 4] {
            let kernels = &kernels(threads)[index];
            let mut again = x.clone();
            kernels.unary(Unary::GeluErf, &mut again);
            assert_eq!(again, gelu);
            assert_eq!(softmax(kernels, &x, 50), whole);
            assert_eq!(softmax(kernels, &x[150..200], 50), whole[150..200]);
        }
    }
}
