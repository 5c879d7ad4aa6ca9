//! Softmax and its kin, and normalisations.

use engine::DType;
use onnx_graph::shape::reduced;

use super::Op;
use super::elementwise::larger;
use crate::context::{Context, Outputs, along, axes, axis, boundary, fold};
use crate::fault::Fault;
use crate::tensor::{Array, Tensor, reshaped};

/// The axes that are normalised together: since opset 13 the one that is given, −1 by default; before it all from the one given, 1 by default.
pub(super) fn softmax_axes(context: &Context, opset: i64, rank: usize) -> Result<Vec<usize>, Fault> {
    if opset >= 13 {
        return Ok(vec![axis(context.int("axis", -1)?, rank)?]);
    }
    Ok((boundary(context.int("axis", 1)?, rank)?..rank).collect())
}

fn by_row(context: &Context, f: fn(&mut [f64])) -> Outputs {
    let x = context.floats(0)?;
    let axes = softmax_axes(context, context.opset, x.ndim())?;
    Ok(vec![Tensor::float(context.input(0)?.dtype, along(x, &axes, f))])
}

/// e^(x − max x) / Σ e^(x − max x)
pub(super) fn softmax(row: &mut [f64]) {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, larger);
    row.iter_mut().for_each(|x| *x = libm::exp(*x - largest));
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
}

/// x − max x − ln Σ e^(x − max x)
fn log_softmax(row: &mut [f64]) {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, larger);
    let sum: f64 = row.iter().map(|x| libm::exp(x - largest)).sum();
    row.iter_mut().for_each(|x| *x = *x - largest - libm::log(sum));
}

/// 1 at the first largest element, 0 elsewhere.
fn hardmax(row: &mut [f64]) {
    let mut best = 0;
    for at in 1..row.len() {
        if row[at] > row[best] {
            best = at;
        }
    }
    row.iter_mut().enumerate().for_each(|(at, x)| *x = if at == best { 1.0 } else { 0.0 });
}

/// Mean and variance of a row, in two passes.
pub(super) fn moments(row: &[f64]) -> (f64, f64) {
    let count = row.len() as f64;
    let mean = row.iter().sum::<f64>() / count;
    (mean, row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count)
}

/// (x − mean) / √(variance + ε) along the axes.
pub(super) fn standardised(x: &Array<f64>, axes: &[usize], epsilon: f64) -> Array<f64> {
    along(x, axes, |row| {
        let (mean, variance) = moments(row);
        row.iter_mut().for_each(|x| *x = (*x - mean) / (variance + epsilon).sqrt());
    })
    .into_shared()
}

/// y · scale + bias, both broadcast to y.
pub(super) fn scaled(
    context: &Context,
    y: Array<f64>,
    scale: Option<&Array<f64>>,
    bias: Option<&Array<f64>>,
) -> Result<Array<f64>, Fault> {
    let y = match scale {
        Some(scale) => context.onto(&y, scale, |y, scale| y * scale)?.into_shared(),
        None => y,
    };
    plus(context, y, bias)
}

/// y + bias, broadcast to y, where there is one.
pub(super) fn plus(context: &Context, y: Array<f64>, bias: Option<&Array<f64>>) -> Result<Array<f64>, Fault> {
    match bias {
        Some(bias) => Ok(context.onto(&y, bias, |y, bias| y + bias)?.into_shared()),
        None => Ok(y),
    }
}

/// All axes from the one given, which is the last by default.
fn normalised_axes(context: &Context, rank: usize) -> Result<Vec<usize>, Fault> {
    Ok((axis(context.int("axis", -1)?, rank)?..rank).collect())
}

/// The dtype of the statistics: `stash_type`, a float type of ONNX's numbering. Inside the node everything is f64.
fn stash(context: &Context) -> Result<DType, Fault> {
    super::cast::dtype(context.int("stash_type", 1)?)
}

fn layer_normalization(context: &Context) -> Outputs {
    let x = context.floats(0)?;
    let axes = normalised_axes(context, x.ndim())?;
    let epsilon = context.float("epsilon", 1e-5)?;
    let (scale, bias) = (context.floats(1)?, context.optional_floats(2)?);
    let y = scaled(context, standardised(x, &axes, epsilon), Some(scale), bias)?;
    let (mean, inverse) = statistics(x, &axes, epsilon)?;
    let stash = stash(context)?;
    Ok(vec![
        Tensor::float(context.input(0)?.dtype, y.into_owned()),
        Tensor::float(stash, mean.into_owned()),
        Tensor::float(stash, inverse.into_owned()),
    ])
}

/// Mean and 1 / √(variance + ε) of each row, with axes of size 1.
pub(super) fn statistics(
    x: &Array<f64>,
    axes: &[usize],
    epsilon: f64,
) -> Result<(Array<f64>, Array<f64>), Fault> {
    let shape = reduced(x.shape(), axes, true);
    let of = |f: fn(f64, f64, f64) -> f64| -> Result<Array<f64>, Fault> {
        let rows = fold(x, axes, |row| {
            let (mean, variance) = moments(row);
            f(mean, variance, epsilon)
        })?;
        Ok(reshaped(&rows.into_shared(), &shape)?.into_shared())
    };
    Ok((of(|mean, _, _| mean)?, of(|_, variance, epsilon| 1.0 / (variance + epsilon).sqrt())?))
}

/// x / √(mean x² + ε) · scale
fn rms_normalization(context: &Context) -> Outputs {
    let x = context.floats(0)?;
    stash(context)?;
    let axes = normalised_axes(context, x.ndim())?;
    let epsilon = context.float("epsilon", 1e-5)?;
    let y = along(x, &axes, |row| {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        row.iter_mut().for_each(|x| *x /= (mean + epsilon).sqrt());
    });
    let y = scaled(context, y.into_shared(), Some(context.floats(1)?), None)?;
    Ok(vec![Tensor::float(context.input(0)?.dtype, y.into_owned())])
}

/// Each channel to mean 0 and variance 1; ε = 1e-9, as the operator's own definition as a function has it.
fn mean_variance_normalization(context: &Context) -> Outputs {
    let x = context.floats(0)?;
    let given = context.node.ints("axes")?.unwrap_or(&[0, 2, 3]);
    let mut axes = axes(given, x.ndim())?;
    axes.sort_unstable();
    let y = along(x, &axes, |row| {
        let (mean, variance) = moments(row);
        row.iter_mut().for_each(|x| *x = (*x - mean) / (variance.sqrt() + 1e-9));
    });
    Ok(vec![Tensor::float(context.input(0)?.dtype, y)])
}

/// (x − mean) / √(variance + ε) · scale + bias, for each channel, which is axis 1. Mean and variance are given; in training they are those
/// of x, and the given ones, moved towards them by 1 − momentum, are outputs.
fn batch_normalization(context: &Context) -> Outputs {
    let x = context.floats(0)?;
    let mut shape = vec![1; x.ndim()];
    if let (Some(channels), Some(size)) = (shape.get_mut(1), x.shape().get(1)) {
        *channels = *size;
    }
    let channels: usize = shape.iter().product();
    let given = |input: usize| {
        let values = context.floats(input)?;
        if values.shape() != [channels] {
            return Err(Fault::shape("an input", values.shape(), format!("[{channels}]")));
        }
        Ok(values)
    };
    let (scale, bias, mean, variance) = (given(1)?, given(2)?, given(3)?, given(4)?);
    let along_channels =
        |values: &Array<f64>| -> Result<Array<f64>, Fault> { Ok(reshaped(values, &shape)?.into_shared()) };
    let epsilon = context.float("epsilon", 1e-5)?;
    let normalised = |mean: &Array<f64>, variance: &Array<f64>| -> Result<Tensor, Fault> {
        let y = context.pairs(x, &along_channels(mean)?, |x, mean| x - mean)?.into_shared();
        let inverse = variance.mapv(|variance| 1.0 / (variance + epsilon).sqrt()).into_shared();
        let y = scaled(context, y, Some(&along_channels(&inverse)?), None)?;
        let y = scaled(context, y, Some(&along_channels(scale)?), Some(&along_channels(bias)?))?;
        Ok(Tensor::float(context.input(0)?.dtype, y.into_owned()))
    };
    if !context.flag("training_mode", false)? {
        return Ok(vec![normalised(mean, variance)?]);
    }
    let axes: Vec<usize> = (0..x.ndim()).filter(|&axis| axis != 1).collect();
    let of = |f: fn((f64, f64)) -> f64| -> Result<Array<f64>, Fault> {
        let rows = fold(x, &axes, |row| f(moments(row)))?.into_shared();
        Ok(reshaped(&rows, &[channels])?.into_shared())
    };
    let (own_mean, own_variance) = (of(|(mean, _)| mean)?, of(|(_, variance)| variance)?);
    let momentum = context.float("momentum", 0.9)?;
    let moved = |from: usize, given: &Array<f64>, own: &Array<f64>| -> Result<Tensor, Fault> {
        let moved = context.pairs(given, own, |given, own| given * momentum + own * (1.0 - momentum))?;
        Ok(Tensor::float(context.input(from)?.dtype, moved))
    };
    let y = normalised(&own_mean, &own_variance)?;
    Ok(vec![y, moved(3, mean, &own_mean)?, moved(4, variance, &own_variance)?])
}

/// (x − mean) / √(variance + ε) · scale + bias, of each channel of each image by itself.
fn instance_normalization(context: &Context) -> Outputs {
    let x = context.floats(0)?;
    let &[_, channels, _, ..] = x.shape() else {
        let wanted = "[images, channels, size, …], with a size or more";
        return Err(Fault::shape("input 0", x.shape(), wanted));
    };
    let mut shape = vec![1; x.ndim() - 1];
    shape[0] = channels;
    let given = |input: usize, what: &'static str| {
        context.same_dtype(0, input)?;
        let values = context.floats(input)?;
        if values.shape() != [channels] {
            return Err(Fault::shape(what, values.shape(), format!("[{channels}]")));
        }
        Ok(reshaped(values, &shape)?.into_shared())
    };
    let (scale, bias) = (given(1, "input 1, the scale,")?, given(2, "input 2, the bias,")?);
    let axes: Vec<usize> = (2..x.ndim()).collect();
    let y = standardised(x, &axes, context.float("epsilon", 1e-5)?);
    let y = scaled(context, y, Some(&scale), Some(&bias))?;
    Ok(vec![Tensor::float(context.input(0)?.dtype, y.into_owned())])
}

/// x / (Σ |x|^p)^(1/p) along one axis; a row of zeros stays.
fn lp_normalization(context: &Context) -> Outputs {
    let x = context.floats(0)?;
    let at = axis(context.int("axis", -1)?, x.ndim())?;
    let norm: fn(&[f64]) -> f64 = match context.int("p", 2)? {
        1 => |row| row.iter().map(|x| x.abs()).sum(),
        2 => |row| row.iter().map(|x| x * x).sum::<f64>().sqrt(),
        p => {
            return Err(Fault::argument("attribute 'p'", p, "1 or 2"));
        }
    };
    let y = along(x, &[at], |row| {
        let norm = norm(row);
        row.iter_mut().for_each(|x| *x = if norm == 0.0 { 0.0 } else { *x / norm });
    });
    Ok(vec![Tensor::float(context.input(0)?.dtype, y)])
}

pub(super) const OPS: &[Op] = &[
    // Before opset 14 more than one output meant training; that is refused.
    Op::onnx("BatchNormalization", (5, 5), "epsilon momentum", batch_normalization).until(13),
    Op::onnx("BatchNormalization", (5, 5), "epsilon momentum training_mode", batch_normalization)
        .outputs(3)
        .since(14),
    Op::onnx("Hardmax", (1, 1), "axis", |c| by_row(c, hardmax)),
    Op::onnx("InstanceNormalization", (3, 3), "epsilon", instance_normalization),
    // ONNX has it since opset 17; ONNX Runtime's optimizer writes it into graphs of older opsets, too, and means the same.
    Op::onnx("LayerNormalization", (2, 3), "axis epsilon stash_type", layer_normalization).outputs(3),
    Op::onnx("LogSoftmax", (1, 1), "axis", |c| by_row(c, log_softmax)),
    Op::onnx("LpNormalization", (1, 1), "axis p", lp_normalization),
    Op::onnx("MeanVarianceNormalization", (1, 1), "axes", mean_variance_normalization),
    Op::onnx("RMSNormalization", (2, 2), "axis epsilon stash_type", rms_normalization).since(23),
    Op::onnx("Softmax", (1, 1), "axis", |c| by_row(c, softmax)),
];
