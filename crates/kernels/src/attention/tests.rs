use std::sync::Arc;

use proptest::prelude::*;

use crate::{
    Attention, Bias, Isa, KernelError, Kernels, KeyMask, Meets, Pool, Rotary, Rows, RowsMut, naive,
    sample::numbers,
};

/// Of f32 against f64, for values within ±1: a context is a mean of values. Scores of up to √size in size make an exponential's argument
/// wrong by an ULP of that, 5e-7 for 64 columns.
const ERROR: f32 = 1e-6;

fn kernels(threads: usize) -> Vec<Kernels> {
    let pool = Arc::new(Pool::new(threads).unwrap());
    Isa::available().iter().map(|&isa| Kernels::with(isa, Arc::clone(&pool)).unwrap()).collect()
}

/// Rows of queries, keys and values side by side.
struct Qkv {
    data: Vec<f32>,
    rows: usize,
    heads: usize,
    size: usize,
}

impl Qkv {
    fn new(rows: usize, heads: usize, size: usize, seed: u64) -> Self {
        Self { data: numbers(rows * 3 * heads * size, seed), rows, heads, size }
    }

    fn rows_of(&self, order: &[usize]) -> Self {
        let width = 3 * self.heads * self.size;
        let data = order.iter().flat_map(|&row| &self.data[row * width..][..width]).copied().collect();
        Self { data, rows: order.len(), ..*self }
    }

    fn attention<'a>(&'a self, offsets: &'a [usize], mask: KeyMask<'a>) -> Attention<'a> {
        let hidden = self.heads * self.size;
        let part = |i: usize| {
            let data = self.data.get(i * hidden..).unwrap_or(&[]);
            Rows::strided(data, self.rows, hidden, 3 * hidden).unwrap()
        };
        let scale = 1.0 / (self.size as f32).sqrt();
        Attention {
            q: part(0),
            k: part(1),
            v: part(2),
            heads: self.heads,
            scale,
            offsets,
            mask,
            bias: None,
            rotary: None,
        }
    }

    fn run(&self, kernels: &Kernels, offsets: &[usize], mask: KeyMask<'_>) -> Vec<f32> {
        self.compute(kernels, &self.attention(offsets, mask))
    }

    fn compute(&self, kernels: &Kernels, attention: &Attention<'_>) -> Vec<f32> {
        let hidden = self.heads * self.size;
        let mut out = vec![f32::NAN; self.rows * hidden];
        let mut scratch = vec![f32::NAN; kernels.attention_scratch(self.size, self.rows)];
        kernels
            .attention(attention, &mut scratch, &mut RowsMut::new(&mut out, self.rows, hidden).unwrap())
            .unwrap();
        out
    }

    fn against_naive(&self, offsets: &[usize], mask: KeyMask<'_>) {
        self.check(&self.attention(offsets, mask));
    }

    fn check(&self, attention: &Attention<'_>) {
        let (hidden, offsets) = (self.heads * self.size, attention.offsets);
        let mut truth = vec![0.0; self.rows * hidden];
        naive::attention(attention, &mut RowsMut::new(&mut truth, self.rows, hidden).unwrap());
        for kernels in kernels(2) {
            let found = self.compute(&kernels, attention);
            for (index, (found, truth)) in found.iter().zip(&truth).enumerate() {
                let near = (found - truth).abs() <= ERROR;
                let what = (self.rows, self.heads, self.size);
                assert!(
                    near,
                    "{what:?} {offsets:?} at {index} on {:?}: {found} is not {truth}",
                    kernels.isa()
                );
            }
        }
    }
}

#[test]
fn every_small_size() {
    for size in [1, 3, 8, 16, 17, 31, 32, 64, 65, 200] {
        for length in [1, 2, 5, 6, 7, 15, 16, 17, 24, 25, 33, 65] {
            Qkv::new(2 * length, 2, size, 9).against_naive(&[0, length, 2 * length], KeyMask::None);
        }
    }
    Qkv::new(512, 1, 32, 1).against_naive(&[0, 512], KeyMask::None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_sequences(
        lengths in prop::collection::vec((0_usize..90, 0.0..1.0_f64), 0..5),
        heads in 1_usize..4,
        size in 1_usize..40,
        seed in 0_u64..1000,
    ) {
        let mut offsets = vec![0];
        for (length, _) in &lengths {
            offsets.push(offsets[offsets.len() - 1] + length);
        }
        let rows = offsets[offsets.len() - 1];
        let qkv = Qkv::new(rows, heads, size, seed);
        let keys: Vec<usize> = lengths.iter().map(|&(length, share)| (length as f64 * share) as usize).collect();
        let mut mask: Vec<f32> =
            numbers(rows, seed + 1).iter().map(|x| if *x > 0.5 { -10_000.0 } else { *x }).collect();
        // Where all keys are masked, scores near −10,000 are left, which f32 has to a thousandth:
        // coarser than ERROR. So the first key of each sequence is not.
        for start in offsets.windows(2).filter(|pair| pair[0] < pair[1]).map(|pair| pair[0]) {
            mask[start] = mask[start].max(-1.0);
        }
        qkv.against_naive(&offsets, KeyMask::None);
        qkv.against_naive(&offsets, KeyMask::Lengths(&keys));
        qkv.against_naive(&offsets, KeyMask::Additive(&mask));
    }
}

/// The sequences of a batch, alone, in another order, and padded in each way that there is: the same bits.
#[test]
fn neighbours_padding_place_and_threads_change_nothing() {
    let lengths = [7, 40, 1, 64, 33, 200];
    let padded = 210;
    let (heads, size) = (3, 24);
    let hidden = heads * size;
    let batch = Qkv::new(lengths.len() * padded, heads, size, 4);
    let offsets: Vec<usize> = (0..=lengths.len()).map(|i| i * padded).collect();
    let references: Vec<Vec<f32>> =
        kernels(1).iter().map(|kernels| batch.run(kernels, &offsets, KeyMask::Lengths(&lengths))).collect();
    let row = |sequence: usize, position: usize| sequence * padded + position;
    for threads in [1, 2, 4] {
        for (kernels, reference) in kernels(threads).iter().zip(&references) {
            assert_eq!(&batch.run(kernels, &offsets, KeyMask::Lengths(&lengths)), reference);
            for lowest in [f32::MIN, f32::NEG_INFINITY, -10_000.0] {
                let mask: Vec<f32> = lengths
                    .iter()
                    .flat_map(|&length| {
                        (0..padded).map(move |position| if position < length { 0.0 } else { lowest })
                    })
                    .collect();
                assert_eq!(
                    &batch.run(kernels, &offsets, KeyMask::Additive(&mask)),
                    reference,
                    "mask of {lowest}"
                );
            }
            // Packed, the sequences backwards.
            let order: Vec<usize> =
                (0..lengths.len()).rev().flat_map(|s| (0..lengths[s]).map(move |p| row(s, p))).collect();
            let packed = batch.rows_of(&order);
            let mut packed_offsets = vec![0];
            packed_offsets.extend(lengths.iter().rev().scan(0, |end, length| {
                *end += length;
                Some(*end)
            }));
            let found = packed.run(kernels, &packed_offsets, KeyMask::None);
            for (index, &row) in order.iter().enumerate() {
                assert_eq!(found[index * hidden..][..hidden], reference[row * hidden..][..hidden]);
            }
            // Each alone, where the queries are shared out.
            for (sequence, &length) in lengths.iter().enumerate() {
                let order: Vec<usize> = (0..length).map(|position| row(sequence, position)).collect();
                let found = batch.rows_of(&order).run(kernels, &[0, length], KeyMask::None);
                assert_eq!(found, reference[row(sequence, 0) * hidden..][..length * hidden]);
            }
        }
    }
}

#[test]
fn no_key_gives_zeros_and_a_nan_stays_visible() {
    let mut qkv = Qkv::new(20, 2, 8, 3);
    for kernels in kernels(1) {
        let out = qkv.run(&kernels, &[0, 12, 20], KeyMask::Lengths(&[0, 8]));
        assert!(out[..12 * 16].iter().all(|&x| x == 0.0));
        assert!(out[12 * 16..].iter().all(|&x| x != 0.0));
    }
    // A key of the second sequence.
    qkv.data[15 * 48 + 16] = f32::NAN;
    for kernels in kernels(1) {
        let out = qkv.run(&kernels, &[0, 12, 20], KeyMask::None);
        assert!(out[..12 * 16].iter().all(|x| x.is_finite()));
        for row in out[12 * 16..].chunks(16) {
            assert!(row[..8].iter().all(|x| x.is_nan()) && row[8..].iter().all(|x| x.is_finite()));
        }
    }
}

/// As ONNX's nodes compute it: the product, the sum and the difference to the largest are each
/// rounded to f32.
fn rounded(qkv: &Qkv, mask: &[f32]) -> Vec<f32> {
    let attention = qkv.attention(&[], KeyMask::None);
    let mut out = vec![0.0; qkv.rows * qkv.heads * qkv.size];
    for query in 0..qkv.rows {
        for head in 0..qkv.heads {
            let columns = head * qkv.size..(head + 1) * qkv.size;
            let scores: Vec<f32> = (0..qkv.rows)
                .map(|key| {
                    let pairs = columns.clone().map(|i| (attention.q.row(query)[i], attention.k.row(key)[i]));
                    let dot: f64 = pairs.map(|(q, k)| f64::from(q) * f64::from(k)).sum();
                    dot as f32 * attention.scale + mask[key]
                })
                .collect();
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f64> = scores.iter().map(|score| f64::from(score - largest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for column in columns {
                let values = (0..qkv.rows).map(|key| f64::from(attention.v.row(key)[column]));
                let total: f64 = values.zip(&weights).map(|(v, w)| v * w).sum();
                out[query * qkv.heads * qkv.size + column] = (total / sum) as f32;
            }
        }
    }
    out
}

/// With scores of 10¹² a rounding error is as large as 32,768, and no exponent may be that; and a
/// row that is masked throughout is what is left when the mask has swallowed the scores.
#[test]
fn large_scores_and_rows_without_a_key() {
    for (rows, size) in [(1, 8), (5, 8), (19, 32), (40, 3)] {
        for (enlarged, masked) in [
            (1e6, 0.0),
            (1e9, 0.0),
            (1e6, f32::MIN),
            (1.0, f32::MIN),
            (1.0, -1e30),
            (1e3, -1e30),
            (1e15, f32::MIN),
        ] {
            let mut qkv = Qkv::new(rows, 2, size, 11);
            // Queries and keys, not values.
            for row in qkv.data.chunks_mut(6 * size) {
                row[..4 * size].iter_mut().for_each(|x| *x *= enlarged);
            }
            // All keys, and all but every third.
            for seen in [usize::MAX, 3] {
                let mask: Vec<f32> =
                    (0..rows).map(|key| if (key + 1) % seen == 0 { 0.0 } else { masked }).collect();
                let truth = rounded(&qkv, &mask);
                for kernels in kernels(2) {
                    let found = qkv.run(&kernels, &[0, rows], KeyMask::Additive(&mask));
                    for (found, truth) in found.iter().zip(&truth) {
                        let near = (found - truth).abs() <= ERROR;
                        assert!(near, "{rows} × {size}, {enlarged}, {masked}, {seen}: {found}, not {truth}");
                    }
                }
            }
        }
    }
}

/// What depends on places, for up to 40 of them.
struct Places {
    bias: Vec<f32>,
    angles: [Vec<f32>; 2],
    size: usize,
}

const LONGEST: usize = 40;

impl Places {
    fn new(heads: usize, size: usize, seed: u64) -> Self {
        let angles = [1, 2].map(|part| numbers(LONGEST * size, seed + part));
        Self { bias: numbers(heads * LONGEST * LONGEST, seed), angles, size }
    }

    fn bias(&self, head_stride: usize, meets: Meets) -> Bias<'_> {
        Bias { values: &self.bias, head_stride, stride: LONGEST, meets }
    }

    fn rotary(&self) -> Rotary<'_> {
        let [cos, sin] = [0, 1].map(|part| Rows::new(&self.angles[part], LONGEST, self.size).unwrap());
        Rotary { cos, sin }
    }
}

#[test]
fn a_bias_and_a_rotation_are_by_places() {
    for (lengths, heads, size) in [([7, 1, 40], 3, 8), ([16, 33, 2], 2, 34), ([5, 5, 5], 1, 2)] {
        let offsets = [0, lengths[0], lengths[0] + lengths[1], lengths.iter().sum()];
        let qkv = Qkv::new(offsets[3], heads, size, 5);
        let places = Places::new(heads, size, 17);
        let mut mask: Vec<f32> =
            numbers(offsets[3], 6).iter().map(|&x| if x > 0.5 { -10_000.0 } else { x }).collect();
        offsets[..3].iter().for_each(|&first| mask[first] = 0.0);
        for mask in [KeyMask::None, KeyMask::Additive(&mask), KeyMask::Lengths(&[3, 1, 2])] {
            for (each, meets) in [(LONGEST * LONGEST, Meets::Sum), (0, Meets::Sum), (0, Meets::Least)] {
                let plain = qkv.attention(&offsets, mask);
                let (bias, rotary) = (Some(places.bias(each, meets)), Some(places.rotary()));
                qkv.check(&Attention { bias, ..plain });
                qkv.check(&Attention { rotary, ..plain });
                qkv.check(&Attention { bias, rotary, ..plain });
            }
        }
    }
}

/// A window and a mask that hide the same keys hide them once: a query that sees none sees all.
#[test]
fn a_query_that_sees_nothing_sees_everything() {
    let qkv = Qkv::new(6, 1, 4, 8);
    let window: Vec<f32> =
        (0..36usize).map(|at| if (at / 6).abs_diff(at % 6) > 1 { f32::MIN } else { 0.0 }).collect();
    let mask = [0.0, 0.0, f32::MIN, f32::MIN, f32::MIN, f32::MIN];
    let bias = Bias { values: &window, head_stride: 0, stride: 6, meets: Meets::Least };
    let attention = Attention { bias: Some(bias), ..qkv.attention(&[0, 6], KeyMask::Additive(&mask)) };
    for kernels in kernels(1) {
        let found = qkv.compute(&kernels, &attention);
        for column in 0..4 {
            let mean = (0..6).map(|row| attention.v.row(row)[column]).sum::<f32>() / 6.0;
            assert!((found[5 * 4 + column] - mean).abs() <= ERROR, "{found:?}");
        }
    }
}

/// Padding, its absence and the number of threads change no bit here either.
#[test]
fn places_are_those_of_the_sequence() {
    let lengths = [7, 40, 1, 33];
    let (heads, size) = (3, 8);
    let hidden = heads * size;
    let padded = Qkv::new(4 * LONGEST, heads, size, 4);
    let places = Places::new(heads, size, 9);
    let with = |attention| Attention {
        bias: Some(places.bias(LONGEST * LONGEST, Meets::Sum)),
        rotary: Some(places.rotary()),
        ..attention
    };
    let offsets: Vec<usize> = (0..=4).map(|sequence| sequence * LONGEST).collect();
    let order: Vec<usize> = (0..4).flat_map(|s| (0..lengths[s]).map(move |at| s * LONGEST + at)).collect();
    let packed = padded.rows_of(&order);
    for threads in [1, 2, 4] {
        for kernels in kernels(threads) {
            let whole = padded.attention(&offsets, KeyMask::Lengths(&lengths));
            let whole = padded.compute(&kernels, &with(whole));
            let found = packed.attention(&[0, 7, 47, 48, 81], KeyMask::None);
            let found = packed.compute(&kernels, &with(found));
            for (row, &from) in order.iter().enumerate() {
                assert_eq!(found[row * hidden..][..hidden], whole[from * hidden..][..hidden]);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let kernels = Kernels::new(1).unwrap();
    let qkv = Qkv::new(6, 2, 4, 1);
    let mut out = vec![0.0; 48];
    let mut scratch = vec![0.0; kernels.attention_scratch(4, 6)];
    let mut run = |attention: &Attention<'_>, scratch: &mut [f32]| {
        kernels.attention(attention, scratch, &mut RowsMut::new(&mut out, 6, 8).unwrap())
    };
    assert!(run(&qkv.attention(&[0, 2, 6], KeyMask::None), &mut scratch).is_ok());
    for offsets in [&[0, 7][..], &[0, 5], &[1, 6], &[0, 4, 2, 6], &[]] {
        let refused = run(&qkv.attention(offsets, KeyMask::None), &mut scratch);
        assert!(matches!(refused, Err(KernelError::Offsets { .. })), "{offsets:?}");
    }
    let refused = run(&qkv.attention(&[0, 2, 6], KeyMask::Lengths(&[3, 4])), &mut scratch);
    assert!(matches!(refused, Err(KernelError::KeyLength { sequence: 0, length: 3, rows: 2 })));
    for mask in [KeyMask::Lengths(&[2]), KeyMask::Additive(&[0.0; 5])] {
        assert!(matches!(run(&qkv.attention(&[0, 2, 6], mask), &mut scratch), Err(KernelError::Size { .. })));
    }
    let heads = Attention { heads: 3, ..qkv.attention(&[0, 6], KeyMask::None) };
    assert!(matches!(run(&heads, &mut scratch), Err(KernelError::Heads { heads: 3, columns: 8 })));
    assert!(run(&Attention { heads: 0, ..heads }, &mut scratch).is_err());
    assert!(run(&qkv.attention(&[0, 6], KeyMask::None), &mut []).is_err());
    let plain = qkv.attention(&[0, 2, 6], KeyMask::None);
    let (numbers, few) = ([0.0; 32], [0.0; 31]);
    let bias = Bias { values: &numbers, head_stride: 16, stride: 4, meets: Meets::Sum };
    assert!(run(&Attention { bias: Some(bias), ..plain }, &mut scratch).is_ok());
    for wrong in
        [Bias { values: &few, ..bias }, Bias { stride: 3, ..bias }, Bias { head_stride: usize::MAX, ..bias }]
    {
        assert!(run(&Attention { bias: Some(wrong), ..plain }, &mut scratch).is_err(), "{wrong:?}");
    }
    let angles = |rows: usize, columns: usize| Rows::new(&numbers, rows, columns).unwrap();
    let turned = |cos, sin| Attention { rotary: Some(Rotary { cos, sin }), ..plain };
    assert!(run(&turned(angles(4, 4), angles(4, 4)), &mut scratch).is_ok());
    for (cos, sin) in [(angles(3, 4), angles(4, 4)), (angles(4, 4), angles(4, 2))] {
        assert!(run(&turned(cos, sin), &mut scratch).is_err());
    }
}
