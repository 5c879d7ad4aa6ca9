use std::sync::Arc;

use crate::{Gather, Isa, KernelError, Kernels, Pool, Rows, RowsMut, naive, sample::numbers};

/// Of f32 for a row of unit variance and gamma, beta within ±1: half an ULP of four steps on numbers of up to about 4; more
/// than 4e-7 was measured.
const ERROR: f32 = 5e-7;

fn kernels(threads: usize) -> Vec<Kernels> {
    let pool = Arc::new(Pool::new(threads).unwrap());
    Isa::available().iter().map(|&isa| Kernels::with(isa, Arc::clone(&pool)).unwrap()).collect()
}

struct Case {
    rows: usize,
    columns: usize,
    x: Vec<f32>,
    residual: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

impl Case {
    fn new(rows: usize, columns: usize) -> Self {
        let of = |len, seed| numbers(len, seed);
        let (x, residual) = (of(rows * columns, 1), of(rows * columns, 2));
        Self { rows, columns, x, residual, gamma: of(columns, 3), beta: of(columns, 4) }
    }

    fn x(&self) -> Rows<'_> {
        Rows::new(&self.x, self.rows, self.columns).unwrap()
    }

    fn run(&self, kernels: &Kernels, residual: bool, beta: bool) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.x.len()];
        let residual = residual.then(|| Rows::new(&self.residual, self.rows, self.columns).unwrap());
        let beta = beta.then_some(self.beta.as_slice());
        let mut to = RowsMut::new(&mut out, self.rows, self.columns).unwrap();
        kernels.layer_norm(self.x(), residual, &self.gamma, beta, 1e-12, &mut to).unwrap();
        let mut place = self.x.clone();
        let mut to = RowsMut::new(&mut place, self.rows, self.columns).unwrap();
        kernels.layer_norm_in_place(&mut to, residual, &self.gamma, beta, 1e-12).unwrap();
        assert_eq!(out, place);
        out
    }
}

#[test]
fn layer_norm_of_every_width() {
    for columns in (2..70).chain([127, 128, 384, 768, 1000]) {
        let case = Case::new(7, columns);
        for (residual, beta) in [(false, false), (false, true), (true, true)] {
            let mut truth = vec![0.0; case.x.len()];
            let plus = residual.then(|| Rows::new(&case.residual, 7, columns).unwrap());
            let beta_of = beta.then_some(case.beta.as_slice());
            let mut to = RowsMut::new(&mut truth, 7, columns).unwrap();
            naive::layer_norm(case.x(), plus, &case.gamma, beta_of, 1e-12, &mut to);
            for kernels in kernels(2) {
                let found = case.run(&kernels, residual, beta);
                // Two numbers close to each other have a variance that their own rounding decides.
                let error = if columns < 8 { 1e-4 } else { ERROR };
                for (found, truth) in found.iter().zip(&truth) {
                    assert!((found - truth).abs() <= error, "{columns} columns: {found} is not {truth}");
                }
            }
        }
    }
}

/// E[x²] − mean² has no digit left here; the differences to the mean have all of theirs.
#[test]
fn a_large_mean_costs_nothing() {
    let columns = 384;
    let x: Vec<f32> = (0..columns).map(|i| 30_000.0 + (i % 7) as f32).collect();
    let (gamma, mut truth) = (vec![1.0; columns], vec![0.0; columns]);
    let rows = Rows::new(&x, 1, columns).unwrap();
    naive::layer_norm(rows, None, &gamma, None, 1e-12, &mut RowsMut::new(&mut truth, 1, columns).unwrap());
    for kernels in kernels(1) {
        let mut out = vec![0.0; columns];
        kernels
            .layer_norm(rows, None, &gamma, None, 1e-12, &mut RowsMut::new(&mut out, 1, columns).unwrap())
            .unwrap();
        // The mean itself is an f32, half an ULP of 30000 wrong at most: 1e-3 of a deviation of 2.
        assert!(out.iter().zip(&truth).all(|(out, truth)| (out - truth).abs() < 2e-3));
    }
}

#[test]
fn threads_and_neighbours_change_nothing() {
    let case = Case::new(200, 385);
    for (index, alone) in kernels(1).iter().enumerate() {
        let whole = case.run(alone, true, true);
        for threads in [2, 4] {
            assert_eq!(case.run(&kernels(threads)[index], true, true), whole);
        }
        let part = Case {
            rows: 3,
            x: case.x[385 * 50..385 * 53].to_vec(),
            residual: case.residual[385 * 50..385 * 53].to_vec(),
            gamma: case.gamma.clone(),
            beta: case.beta.clone(),
            columns: 385,
        };
        assert_eq!(part.run(alone, true, true), whole[385 * 50..385 * 53]);
    }
}

#[test]
fn lookups_are_added_in_order_and_then_normalised() {
    let columns = 37;
    let (words, positions) = (numbers(11 * columns, 1), numbers(5 * columns, 2));
    let (gamma, beta) = (numbers(columns, 3), numbers(columns, 4));
    let lookups = [
        Gather { table: Rows::new(&words, 11, columns).unwrap(), indices: &[0, 10, 3, -1, -11] },
        Gather { table: Rows::new(&positions, 5, columns).unwrap(), indices: &[0, 1, 2, 3, 4] },
    ];
    let mut sums = vec![0.0; 5 * columns];
    naive::gather(&lookups, &mut RowsMut::new(&mut sums, 5, columns).unwrap());
    assert_eq!(sums[3 * columns], words[10 * columns] + positions[3 * columns]);
    for kernels in kernels(2) {
        let mut out = vec![0.0; 5 * columns];
        kernels.gather(&lookups, &mut RowsMut::new(&mut out, 5, columns).unwrap()).unwrap();
        assert_eq!(out, sums);
        let mut to = RowsMut::new(&mut out, 5, columns).unwrap();
        kernels.layer_norm_in_place(&mut to, None, &gamma, Some(&beta), 1e-5).unwrap();
        let mut together = vec![0.0; 5 * columns];
        let mut to = RowsMut::new(&mut together, 5, columns).unwrap();
        kernels.embeddings_layer_norm(&lookups, &gamma, Some(&beta), 1e-5, &mut to).unwrap();
        assert_eq!(together, out);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let kernels = Kernels::new(1).unwrap();
    let table = [0.0; 6];
    let mut out = [7.0; 4];
    let mut gather = |indices: &[i64], columns: usize| {
        let table = Rows::new(&table, 6 / columns, columns).unwrap();
        kernels.gather(&[Gather { table, indices }], &mut RowsMut::new(&mut out, 2, 2).unwrap())
    };
    for index in [3, -4, i64::MAX, i64::MIN] {
        let refused = gather(&[0, index], 2);
        assert!(
            matches!(refused, Err(KernelError::IndexOutOfRange { index: i, position: 1, rows: 3 }) if i == index)
        );
    }
    assert!(matches!(gather(&[0], 2), Err(KernelError::Size { .. })));
    assert!(matches!(gather(&[0, 1], 3), Err(KernelError::Size { .. })));
    let mut rows = RowsMut::new(&mut out, 2, 2).unwrap();
    assert!(kernels.gather(&[], &mut rows).is_err());
    assert!(kernels.layer_norm_in_place(&mut rows, None, &[1.0], None, 0.0).is_err());
    assert!(kernels.layer_norm_in_place(&mut rows, None, &[1.0; 2], Some(&[1.0; 3]), 0.0).is_err());
    let short = Rows::new(&table, 1, 2).unwrap();
    assert!(kernels.layer_norm_in_place(&mut rows, Some(short), &[1.0; 2], None, 0.0).is_err());
    assert_eq!(out, [7.0; 4]);
}

/// The variance of such rows depends on how it is added up, where it is not infinite.
#[test]
fn a_variance_beyond_f32_is_an_error() {
    for isa in Isa::available() {
        let kernels = Kernels::with(*isa, Arc::new(Pool::new(2).unwrap())).unwrap();
        for (large, overflows) in [
            (1e15, false),
            (2e18, false),
            (1e20, true),
            (3e38, true),
            (f32::INFINITY, false),
            (f32::NAN, false),
        ] {
            let mut x = numbers(100 * 7, 3);
            x[500] = large;
            let mut out = RowsMut::new(&mut x, 100, 7).unwrap();
            let done = kernels.layer_norm_in_place(&mut out, None, &[1.0; 7], None, 1e-12);
            assert_eq!(matches!(done, Err(KernelError::VarianceOverflow)), overflows, "{large}");
            assert_eq!(done.is_ok(), !overflows);
        }
    }
}
