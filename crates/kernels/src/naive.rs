//! The kernels as loops that read like their formulas, in f64: what the fast ones are tested against.

use crate::{Attention, Epilogue, Gather, KeyMask, Meets, Rotary, Rows, RowsMut, Unary};

pub(crate) fn gemm(a: Rows<'_>, b: Rows<'_>, epilogue: &Epilogue<'_>, out: &mut RowsMut<'_>) {
    for row in 0..a.rows() {
        for column in 0..b.columns() {
            let products = a.row(row).iter().enumerate();
            let mut sum: f64 = products.map(|(k, &a)| f64::from(a) * f64::from(b.row(k)[column])).sum();
            if let Some(bias) = epilogue.bias {
                sum += f64::from(bias[column]);
            }
            if let Some(function) = epilogue.activation {
                sum = value(function, sum);
            }
            if let Some(residual) = epilogue.residual {
                sum += f64::from(residual.row(row)[column]);
            }
            out.row_mut(row)[column] = sum as f32;
        }
    }
}

pub(crate) fn value(function: Unary, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match function {
        Unary::Exp => x.exp(),
        Unary::Erf => libm::erf(x),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => sigmoid(x),
        Unary::Relu => {
            if x.is_nan() {
                x
            } else {
                x.max(0.0)
            }
        }
        Unary::Silu => x * sigmoid(x),
        // erfc keeps its digits where 1 + erf loses them
        Unary::GeluErf => x * 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Unary::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            x * sigmoid(2.0 * inner)
        }
        Unary::GeluQuick => x * sigmoid(1.702 * x),
    }
}

fn softmax_row(x: &mut [f64]) {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for x in &mut *x {
        *x = (*x - max).exp();
    }
    let sum: f64 = x.iter().sum();
    for x in x {
        *x /= sum;
    }
}

pub(crate) fn softmax(x: &mut RowsMut<'_>) {
    for row in 0..x.rows() {
        let mut wide: Vec<f64> = x.row_mut(row).iter().map(|&x| f64::from(x)).collect();
        softmax_row(&mut wide);
        for (to, from) in x.row_mut(row).iter_mut().zip(wide) {
            *to = from as f32;
        }
    }
}

pub(crate) fn layer_norm(
    x: Rows<'_>,
    residual: Option<Rows<'_>>,
    gamma: &[f32],
    beta: Option<&[f32]>,
    eps: f32,
    out: &mut RowsMut<'_>,
) {
    let width = x.columns() as f64;
    for row in 0..x.rows() {
        let plus = |column: usize| residual.map_or(0.0, |residual| f64::from(residual.row(row)[column]));
        let sums: Vec<f64> = (0..x.columns()).map(|c| f64::from(x.row(row)[c]) + plus(c)).collect();
        let mean = sums.iter().sum::<f64>() / width;
        let variance = sums.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / width;
        let deviation = (variance + f64::from(eps)).sqrt();
        for (column, to) in out.row_mut(row).iter_mut().enumerate() {
            let beta = beta.map_or(0.0, |beta| f64::from(beta[column]));
            *to = ((sums[column] - mean) / deviation * f64::from(gamma[column]) + beta) as f32;
        }
    }
}

pub(crate) fn gather(lookups: &[Gather<'_>], out: &mut RowsMut<'_>) {
    for row in 0..out.rows() {
        for (column, to) in out.row_mut(row).iter_mut().enumerate() {
            let mut sum = lookups[0].row(row)[column];
            for lookup in &lookups[1..] {
                sum += lookup.row(row)[column];
            }
            *to = sum;
        }
    }
}

/// A head's part of a query or key, turned by its place.
fn turned(x: &[f32], rotary: Option<Rotary<'_>>, place: usize) -> Vec<f64> {
    let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let Some(rotary) = rotary else { return x };
    let half = x.len() / 2;
    let other = |i: usize| if i < half { -x[i + half] } else { x[i - half] };
    let (cos, sin) = (rotary.cos.row(place), rotary.sin.row(place));
    (0..x.len()).map(|i| x[i] * f64::from(cos[i]) + other(i) * f64::from(sin[i])).collect()
}

pub(crate) fn attention(attention: &Attention<'_>, out: &mut RowsMut<'_>) {
    let size = attention.head_size();
    for (sequence, ends) in attention.offsets.windows(2).enumerate() {
        let keys = match attention.mask {
            KeyMask::Lengths(lengths) => ends[0]..ends[0] + lengths[sequence],
            _ => ends[0]..ends[1],
        };
        for query in ends[0]..ends[1] {
            for head in 0..attention.heads {
                let columns = head * size..(head + 1) * size;
                let place = query - ends[0];
                let q = turned(&attention.q.row(query)[columns.clone()], attention.rotary, place);
                let mut weights: Vec<f64> = keys
                    .clone()
                    .map(|key| {
                        let other = key - ends[0];
                        let k = turned(&attention.k.row(key)[columns.clone()], attention.rotary, other);
                        let dot: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                        let mask = match attention.mask {
                            KeyMask::Additive(mask) => f64::from(mask[key]),
                            _ => 0.0,
                        };
                        let plus = attention.bias.map_or(mask, |bias| {
                            let at = head * bias.head_stride + place * bias.stride + other;
                            let number = f64::from(bias.values[at]);
                            match (bias.meets, attention.mask) {
                                (Meets::Least, KeyMask::Additive(_)) => number.min(mask),
                                _ => number + mask,
                            }
                        });
                        dot * f64::from(attention.scale) + plus
                    })
                    .collect();
                softmax_row(&mut weights);
                for column in columns {
                    let values = keys.clone().map(|key| f64::from(attention.v.row(key)[column]));
                    let sum: f64 = values.zip(&weights).map(|(v, w)| v * w).sum();
                    out.row_mut(query)[column] = sum as f32;
                }
            }
        }
    }
}
