//! Sizes that no caller means: every public function that takes one answers with a value or an
//! error, soon, in release as in debug. Sizes that fit a slice by the last bit, that overflow when
//! they are multiplied, and that only a matrix without elements can have.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use kernels::{
    Attention, Buffer, Epilogue, Gather, KernelError, Kernels, KeyMask, Pool, Rows, RowsMut, Source, Unary,
};

const SIZES: [usize; 17] = [
    0,
    1,
    2,
    3,
    8,
    16,
    (1 << 31) - 1,
    1 << 32,
    (1 << 32) + 1,
    1 << 58,
    1 << 60,
    1 << 61,
    (1 << 61) + 1,
    1 << 62,
    1 << 63,
    usize::MAX - 1,
    usize::MAX,
];

/// As many numbers as the matrices below may have.
const NUMBERS: [f32; 16] = [1.0; 16];

/// All that can be made over [`NUMBERS`].
fn matrices() -> Vec<Rows<'static>> {
    let mut made = Vec::new();
    for rows in SIZES {
        for columns in SIZES {
            made.extend(Rows::new(&NUMBERS, rows, columns));
            for stride in SIZES {
                made.extend(Rows::strided(&NUMBERS, rows, columns, stride));
            }
        }
    }
    // Without columns any number of rows, without rows any number of columns.
    assert!(made.iter().any(|rows| rows.rows() == usize::MAX && rows.columns() == 0));
    assert!(made.iter().any(|rows| rows.rows() == 0 && rows.columns() == usize::MAX));
    made
}

fn kernels() -> [Kernels; 2] {
    [1, 3].map(|threads| Kernels::new(threads).unwrap())
}

#[test]
fn a_row_is_within_its_slice() {
    for rows in matrices() {
        for index in SIZES {
            let expected = if index < rows.rows() { rows.columns() } else { 0 };
            assert_eq!(rows.row(index).len(), expected);
        }
    }
}

#[test]
fn what_is_packed_is_no_larger_than_its_slices() {
    let (mut packed, mut refused) = (0, 0);
    for kernels in kernels() {
        for k in SIZES {
            for n in SIZES {
                let mut sources = vec![Source::new(&NUMBERS, k, n), Source::transposed(&NUMBERS, k, n)];
                for row_stride in SIZES {
                    for column_stride in SIZES {
                        sources.push(Source::strided(&NUMBERS, k, n, row_stride, column_stride));
                    }
                }
                for source in sources {
                    let Ok(source) = source else {
                        refused += 1;
                        continue;
                    };
                    assert!(k.checked_mul(n).unwrap() <= NUMBERS.len());
                    // Several at once may have more columns together than there are.
                    for count in [1, 2, 9] {
                        match kernels.pack(&vec![source; count]) {
                            Ok(matrix) => {
                                assert_eq!((matrix.k(), matrix.n()), (k, n * count));
                                packed += 1;
                            }
                            Err(KernelError::TooLarge { .. }) => assert!(k == 0 && n > 1 << 50),
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            }
        }
    }
    assert!(packed > 1000 && refused > 1000, "{packed}, {refused}");
}

/// Without overflow the address of element (7, 2⁶¹ − 1) is that of the first: it was taken for a
/// matrix of 8·2⁶¹ numbers, in memory of none.
#[test]
fn strides_of_0_make_no_matrix() {
    let refused = Source::strided(&NUMBERS, 8, 1 << 61, 0, 0);
    assert!(matches!(refused, Err(KernelError::ElementsOverlap { .. })));
    for (strides, fits) in [((4, 1), true), ((1, 4), true), ((3, 1), false), ((1, 3), false), ((2, 2), false)]
    {
        assert_eq!(Source::strided(&NUMBERS, 4, 4, strides.0, strides.1).is_ok(), fits, "{strides:?}");
    }
    // A stride over one row or column is never taken.
    assert!(Source::strided(&NUMBERS, 1, 16, 0, 1).is_ok() && Source::strided(&NUMBERS, 16, 1, 1, 0).is_ok());
}

#[test]
fn a_product_of_any_sizes_ends() {
    for kernels in kernels() {
        for (k, n) in SIZES.iter().flat_map(|&k| SIZES.map(|n| (k, n))) {
            let Ok(source) = Source::new(&NUMBERS, k, n) else { continue };
            let Ok(packed) = kernels.pack(&[source]) else { continue };
            for a in matrices() {
                let mut data = [0.0; 16];
                let residual = Rows::new(&NUMBERS, a.rows(), n);
                let Ok(mut out) = RowsMut::new(&mut data, a.rows(), n) else { continue };
                let bias = NUMBERS.get(..n);
                let epilogue = Epilogue { bias, activation: Some(Unary::Relu), residual: residual.ok() };
                let done = kernels.gemm(a, &packed, &epilogue, &mut out);
                let fits = a.columns() == k && (bias.is_some() || n > NUMBERS.len());
                assert_eq!(done.is_ok(), fits, "{}×{}×{n}", a.rows(), a.columns());
            }
        }
    }
}

#[test]
fn rows_of_any_sizes_are_normalised() {
    for kernels in kernels() {
        for x in matrices() {
            let columns = NUMBERS.get(..x.columns()).unwrap_or_default();
            let mut data = [0.0; 16];
            let Ok(mut out) = RowsMut::new(&mut data, x.rows(), x.columns()) else { continue };
            let fits = columns.len() == x.columns();
            let done = kernels.layer_norm(x, Some(x), columns, Some(columns), 1e-5, &mut out);
            assert_eq!(done.is_ok(), fits);
            assert_eq!(kernels.layer_norm_in_place(&mut out, None, columns, None, 1e-5).is_ok(), fits);
            kernels.softmax(&mut out);
        }
        kernels.unary(Unary::Exp, &mut []);
    }
}

#[test]
fn lookups_of_any_sizes_end() {
    let indices = [0, -1, 1, i64::MIN, i64::MAX];
    for kernels in kernels() {
        for table in matrices() {
            for count in 0..=indices.len() {
                let lookups = [Gather { table, indices: &indices[..count] }];
                let mut data = [0.0; 16];
                let Ok(mut out) = RowsMut::new(&mut data, count, table.columns()) else { continue };
                let done = kernels.gather(&lookups, &mut out).is_ok();
                let inside = |&&index: &&i64| {
                    i128::from(index).unsigned_abs() < table.rows() as u128 + u128::from(index < 0)
                };
                assert_eq!(done, indices[..count].iter().filter(inside).count() == count);
                let gamma = NUMBERS.get(..table.columns()).unwrap_or_default();
                let normed = kernels.embeddings_layer_norm(&lookups, gamma, None, 1e-5, &mut out).is_ok();
                assert_eq!(normed, done && gamma.len() == table.columns());
            }
        }
    }
}

#[test]
fn attention_of_any_sizes_ends() {
    for kernels in kernels() {
        for (size, longest) in SIZES.iter().flat_map(|&size| SIZES.map(|longest| (size, longest))) {
            // Keys and values, at least.
            let least = size.saturating_mul(longest).saturating_mul(2);
            assert!(kernels.attention_scratch(size, longest) >= least);
        }
        let mut scratch = vec![0.0; kernels.attention_scratch(16, 16)];
        for q in matrices() {
            for heads in SIZES {
                let whole = [0, q.rows()];
                for offsets in [&whole[..], &[], &[0], &[0, 0], &[0, usize::MAX], &[0, 1 << 63, 1]] {
                    for mask in [KeyMask::None, KeyMask::Lengths(&[1]), KeyMask::Additive(&NUMBERS[..1])] {
                        let given = Attention {
                            q,
                            k: q,
                            v: q,
                            heads,
                            scale: 1.0,
                            offsets,
                            mask,
                            bias: None,
                            rotary: None,
                        };
                        let mut data = [0.0; 16];
                        let Ok(mut out) = RowsMut::new(&mut data, q.rows(), q.columns()) else { continue };
                        let done = kernels.attention(&given, &mut scratch, &mut out).is_ok();
                        let divides = heads > 0 && q.columns().is_multiple_of(heads);
                        if !divides {
                            assert!(!done);
                        } else if offsets == whole && matches!(mask, KeyMask::None) {
                            assert!(done, "{} × {} in {heads}", q.rows(), q.columns());
                        }
                        if done && offsets == whole && !out.as_rows().row(0).is_empty() {
                            // The mean of equal values.
                            assert_eq!(out.as_rows().row(0)[0], 1.0);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    for len in SIZES.into_iter().filter(|&len| len > 1 << 57) {
        assert!(matches!(Buffer::zeros(len), Err(KernelError::TooLarge { .. })), "{len}");
        let mut buffer = Buffer::zeros(3).unwrap();
        buffer[2] = 1.0;
        assert!(matches!(buffer.grow(len), Err(KernelError::TooLarge { .. })), "{len}");
        assert_eq!(*buffer, [0.0, 0.0, 1.0]);
    }
}

#[test]
fn threads_beyond_reason_are_refused() {
    for threads in SIZES.into_iter().filter(|&threads| threads > 4096) {
        assert!(matches!(Pool::new(threads), Err(KernelError::TooManyThreads { .. })));
        assert!(Kernels::new(threads).is_err());
    }
    for pool in [Pool::serial(), Pool::new(2).unwrap()] {
        let begun = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(usize::MAX, &|_| std::process::abort());
        }));
        assert!(begun.is_err());
    }
}
