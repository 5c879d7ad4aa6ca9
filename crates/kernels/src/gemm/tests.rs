use std::sync::Arc;

use proptest::prelude::*;

use crate::{
    Epilogue, Isa, KernelError, Kernels, Pool, Rows, RowsMut, Source, Unary, naive, sample::numbers,
};

/// How many standard deviations a sum may be off. Each of its steps rounds by at most 2⁻²⁴ of what
/// it gives, evenly, so that the steps are a random walk; a run looks at some 10⁶ elements, and
/// beyond seven deviations is one in 10¹¹.
const DEVIATIONS: f64 = 7.0;

/// What an epilogue may be off, in units of 2⁻²⁴ of its result or of 1.
const PER_EPILOGUE: f64 = 4.0;

fn kernels(threads: usize) -> Vec<Kernels> {
    let pool = Arc::new(Pool::new(threads).unwrap());
    Isa::available().iter().map(|&isa| Kernels::with(isa, Arc::clone(&pool)).unwrap()).collect()
}

fn product(
    kernels: &Kernels,
    a: &[f32],
    b: &[f32],
    sizes: (usize, usize, usize),
    epilogue: &Epilogue<'_>,
) -> Vec<f32> {
    let (m, k, n) = sizes;
    let packed = kernels.pack(&[Source::new(b, k, n).unwrap()]).unwrap();
    let mut out = vec![f32::NAN; m * n];
    let a = Rows::new(a, m, k).unwrap();
    kernels.gemm(a, &packed, epilogue, &mut RowsMut::new(&mut out, m, n).unwrap()).unwrap();
    out
}

/// Against the sum in f64; the error is measured against what rounding does to products and partial
/// sums.
fn against_naive(sizes: (usize, usize, usize), epilogue: &Epilogue<'_>, seed: u64) {
    let (m, k, n) = sizes;
    let (a, b) = (numbers(m * k, seed), numbers(k * n, seed + 1));
    let mut truth = vec![0.0; m * n];
    let (rows, right) = (Rows::new(&a, m, k).unwrap(), Rows::new(&b, k, n).unwrap());
    naive::gemm(rows, right, epilogue, &mut RowsMut::new(&mut truth, m, n).unwrap());
    for kernels in kernels(2) {
        let out = product(&kernels, &a, &b, sizes, epilogue);
        for (index, (&found, &truth)) in out.iter().zip(&truth).enumerate() {
            let (row, column) = (index / n, index % n);
            let products = (0..k).map(|k| f64::from(rows.row(row)[k]) * f64::from(right.row(k)[column]));
            let (_, squares) = products.fold((0.0, 0.0), |(sum, squares): (f64, f64), product| {
                let sum = sum + product;
                (sum, squares + product * product + sum * sum)
            });
            let walk = DEVIATIONS * (squares / 3.0).sqrt();
            let allowed = (walk + PER_EPILOGUE * (f64::from(truth.abs()) + 1.0)) / 16_777_216.0;
            let error = (f64::from(found) - f64::from(truth)).abs();
            assert!(error <= allowed, "{sizes:?} at {index} on {:?}: {found} is not {truth}", kernels.isa());
        }
    }
}

#[test]
fn every_small_size() {
    for m in [0, 1, 2, 3, 5, 6, 7, 11, 13, 97] {
        for n in [0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 65] {
            for k in [0, 1, 2, 31, 191, 192, 193, 400, 1100] {
                against_naive((m, k, n), &Epilogue::default(), 7);
            }
        }
    }
}

#[test]
fn sizes_of_bert_with_every_epilogue() {
    let (m, k, n) = (33, 384, 193);
    let (bias, residual) = (numbers(n, 3), numbers(m * n, 4));
    for bias in [None, Some(bias.as_slice())] {
        for activation in
            [None, Some(Unary::GeluErf), Some(Unary::GeluTanh), Some(Unary::Tanh), Some(Unary::Relu)]
        {
            for residual in [None, Some(Rows::new(&residual, m, n).unwrap())] {
                against_naive((m, k, n), &Epilogue { bias, activation, residual }, 5);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_size(m in 0_usize..140, k in 0_usize..450, n in 0_usize..140, seed in 0_u64..1000) {
        against_naive((m, k, n), &Epilogue::default(), seed);
    }
}

/// The promise of [`Epilogue`].
#[test]
fn an_epilogue_gives_the_bits_of_one_step_after_the_other() {
    let sizes = (23, 210, 75);
    let (m, k, n) = sizes;
    let (a, b, bias, residual) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3), numbers(m * n, 4));
    for kernels in kernels(2) {
        for activation in [Unary::GeluErf, Unary::GeluTanh, Unary::Tanh, Unary::Silu, Unary::Exp] {
            let plain = product(&kernels, &a, &b, sizes, &Epilogue::default());
            let mut steps: Vec<f32> = plain.iter().zip(bias.iter().cycle()).map(|(x, b)| x + b).collect();
            kernels.unary(activation, &mut steps);
            let steps: Vec<f32> = steps.iter().zip(&residual).map(|(x, r)| x + r).collect();
            let epilogue = Epilogue {
                bias: Some(&bias),
                activation: Some(activation),
                residual: Some(Rows::new(&residual, m, n).unwrap()),
            };
            assert_eq!(product(&kernels, &a, &b, sizes, &epilogue), steps);
        }
    }
}

#[test]
fn a_row_has_the_same_bits_wherever_it_stands() {
    // Of a few rows the panels are read one by one, of 77 a block of all at a time.
    let (m, k, n) = (230, 700, 410);
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let whole: Vec<Vec<f32>> =
        kernels(1).iter().map(|kernels| product(kernels, &a, &b, (m, k, n), &Epilogue::default())).collect();
    for threads in [1, 2, 4] {
        for (kernels, whole) in kernels(threads).iter().zip(&whole) {
            assert_eq!(&product(kernels, &a, &b, (m, k, n), &Epilogue::default()), whole);
            for (begin, end) in [(0, 1), (5, 6), (7, 19), (100, 200), (229, 230), (3, 227)] {
                let part =
                    product(kernels, &a[begin * k..end * k], &b, (end - begin, k, n), &Epilogue::default());
                assert_eq!(part, whole[begin * n..end * n], "rows {begin}..{end} on {threads} threads");
            }
        }
    }
}

#[test]
fn matrices_side_by_side_and_transposed_are_the_same_product() {
    let (m, k) = (9, 50);
    let (a, wide) = (numbers(m * k, 1), numbers(k * 61, 2));
    let transposed: Vec<f32> =
        (0..61).flat_map(|n| (0..k).map(move |row| (row, n))).map(|(row, n)| wide[row * 61 + n]).collect();
    for kernels in kernels(2) {
        let truth = product(&kernels, &a, &wide, (m, k, 61), &Epilogue::default());
        let parts = [
            Source::strided(&wide, k, 20, 61, 1).unwrap(),
            Source::transposed(&transposed[20 * k..], k, 1).unwrap(),
            Source::transposed(&transposed[21 * k..], k, 40).unwrap(),
        ];
        let packed = kernels.pack(&parts).unwrap();
        assert_eq!((packed.k(), packed.n()), (k, 61));
        // Strided on both sides: what lies between the rows is neither read nor written.
        let mut apart = vec![f32::NAN; m * 70];
        for row in 0..m {
            apart[row * 70..][..k].copy_from_slice(&a[row * k..][..k]);
        }
        let mut out = vec![-1.0; m * 65];
        let rows = Rows::strided(&apart, m, k, 70).unwrap();
        kernels
            .gemm(rows, &packed, &Epilogue::default(), &mut RowsMut::strided(&mut out, m, 61, 65).unwrap())
            .unwrap();
        for row in 0..m {
            assert_eq!(out[row * 65..][..61], truth[row * 61..][..61]);
            assert_eq!(out[row * 65 + 61..][..4], [-1.0; 4]);
        }
    }
}

#[test]
fn what_is_not_finite_stays_visible() {
    for kernels in kernels(1) {
        let out = product(
            &kernels,
            &[f32::NAN, 1.0, f32::INFINITY, 1.0],
            &[0.0, 1.0],
            (2, 2, 1),
            &Epilogue::default(),
        );
        assert!(out.iter().all(|x| x.is_nan()), "{out:?}");
    }
}

#[test]
fn sizes_that_differ_are_refused() {
    let kernels = Kernels::new(1).unwrap();
    let packed = kernels.pack(&[Source::new(&[0.0; 6], 2, 3).unwrap()]).unwrap();
    let mut out = [0.0; 6];
    let mut gemm = |a: (usize, usize), bias: usize, out_of: (usize, usize)| {
        let bias = vec![0.0; bias];
        let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
        let a = Rows::new(&[0.0; 6], a.0, a.1).unwrap();
        kernels.gemm(a, &packed, &epilogue, &mut RowsMut::new(&mut out, out_of.0, out_of.1).unwrap())
    };
    assert!(gemm((2, 2), 3, (2, 3)).is_ok());
    for (a, bias, out) in [((2, 3), 3, (2, 3)), ((1, 2), 3, (2, 3)), ((2, 2), 2, (2, 3)), ((2, 2), 3, (2, 2))]
    {
        assert!(matches!(gemm(a, bias, out), Err(KernelError::Size { .. })));
    }
    assert!(kernels.pack(&[]).is_err());
    assert!(
        kernels
            .pack(&[Source::new(&[0.0; 2], 1, 2).unwrap(), Source::new(&[0.0; 2], 2, 1).unwrap()])
            .is_err()
    );
    assert!(Source::new(&[0.0; 5], 2, 3).is_err());
    assert!(Source::strided(&[0.0; 5], usize::MAX, 2, usize::MAX, 1).is_err());
    if let &[first, second, ..] = Isa::available() {
        let other = Kernels::with(if kernels.isa() == first { second } else { first }, Pool::serial().into())
            .unwrap();
        let a = Rows::new(&[0.0; 4], 2, 2).unwrap();
        let refused =
            other.gemm(a, &packed, &Epilogue::default(), &mut RowsMut::new(&mut [0.0; 6], 2, 3).unwrap());
        assert!(matches!(refused, Err(KernelError::PackedFor { .. })));
    }
}
