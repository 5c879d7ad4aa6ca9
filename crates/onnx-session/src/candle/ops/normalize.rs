//! Softmax, layer normalization, GELU, dropout.

use std::f64::consts::{PI, SQRT_2};

use onnx_graph::Node;

use super::cast::same;
use super::reduce::mean;
use crate::candle::lower::{Lowering, Refusal, int};

/// Softmax and LogSoftmax. From opset 13 on they work along one axis, the last by default. Before, they worked on the input
/// flattened to a matrix at `axis`, 1 by default: the same thing only where that is the last axis.
pub(crate) fn softmax(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    cx.float(x)?;
    let default = if cx.opset >= 13 { -1 } else { 1 };
    let axis = node.int("axis")?.unwrap_or(default);
    let is_last = axis == -1 || cx.axis(axis, x)? + 1 == cx.rank(x)?;
    let ty = cx.ty(x)?.clone();
    if is_last {
        // Without an axis candle-onnx takes its fast path along the last one, which every opset means here.
        return cx.emit_as(&node.op, &[x], vec![], ty, output);
    }
    if cx.opset < 13 {
        return Err(format!("before opset 13, axis {axis} means all axes from there on").into());
    }
    cx.emit_as(&node.op, &[x], vec![int("axis", axis)], ty, output)
}

/// candle-onnx has no LayerNormalization. With d the axes from `axis` on:
/// y = (x − mean) / √(mean((x − mean)²) + ε) · scale + bias, in two passes.
pub(crate) fn layer_normalization(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, scale, output) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    let dtype = cx.float(x)?;
    refuse_half(node, "stash_type")?;
    let axis = node.int("axis")?.unwrap_or(-1);
    // The last axis can be named where the rank is open.
    let axes: Vec<i64> =
        if axis == -1 { vec![-1] } else { (cx.axis(axis, x)? as i64..cx.rank(x)? as i64).collect() };
    let epsilon = cx.new_float(dtype, node.float("epsilon")?.unwrap_or(1e-5).into())?;

    let ty = cx.ty(x)?.clone();
    let average = mean(cx, x, &axes)?;
    let reduced = cx.ty(&average)?.clone();
    let centred = cx.emit("Sub", &[x, &average], vec![], ty.clone())?;
    let squared = cx.emit("Mul", &[&centred, &centred], vec![], ty.clone())?;
    let variance = mean(cx, &squared, &axes)?;
    let shifted = cx.emit("Add", &[&variance, &epsilon], vec![], reduced.clone())?;
    let deviation = cx.emit("Sqrt", &[&shifted], vec![], reduced.clone())?;
    let normalized = cx.emit("Div", &[&centred, &deviation], vec![], ty.clone())?;
    match cx.optional(node, 2) {
        Some(bias) => {
            let scaled = cx.emit("Mul", &[&normalized, scale], vec![], ty.clone())?;
            cx.emit_as("Add", &[&scaled, bias], vec![], ty, output)?;
        }
        None => cx.emit_as("Mul", &[&normalized, scale], vec![], ty, output)?,
    }
    if let Some(name) = optional_output(node, 1) {
        same(cx, &average, name)?;
    }
    if let Some(name) = optional_output(node, 2) {
        let one = cx.new_float(dtype, 1.0)?;
        cx.emit_as("Div", &[&one, &deviation], vec![], reduced, name)?;
    }
    Ok(())
}

/// Statistics in half precision are asked for by an ONNX data type: 10 is f16, 16 is bf16. f32 (1) and f64 (11) are what is
/// computed anyway, or less exact than it.
pub(super) fn refuse_half(node: &Node, attribute: &str) -> Result<(), Refusal> {
    match node.int(attribute)? {
        None | Some(1 | 11) => Ok(()),
        Some(other) => Err(format!("{attribute} is {other}").into()),
    }
}

fn optional_output(node: &Node, index: usize) -> Option<&str> {
    node.outputs.get(index).map(String::as_str).filter(|name| !name.is_empty())
}

/// candle-onnx ignores `approximate`, and always computes the exact form x/2 · (1 + erf(x/√2)). The tanh form is
/// x/2 · (1 + tanh(√(2/π) · (x + 0.044715·x³))).
pub(crate) fn gelu(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let dtype = cx.float(x)?;
    let ty = cx.ty(x)?.clone();
    match node.string("approximate")?.unwrap_or("none") {
        "none" => return gelu_erf(cx, x, output),
        "tanh" => {}
        other => return Err(format!("approximate = '{other}' is unknown").into()),
    }
    let cubic = cx.new_float(dtype, 0.044715)?;
    let square = cx.emit("Mul", &[x, x], vec![], ty.clone())?;
    let cube = cx.emit("Mul", &[&square, x], vec![], ty.clone())?;
    let cube = cx.emit("Mul", &[&cube, &cubic], vec![], ty.clone())?;
    let inner = cx.emit("Add", &[x, &cube], vec![], ty.clone())?;
    let factor = cx.new_float(dtype, (2.0 / PI).sqrt())?;
    let inner = cx.emit("Mul", &[&inner, &factor], vec![], ty.clone())?;
    let tanh = cx.emit("Tanh", &[&inner], vec![], ty)?;
    half_times_one_plus(cx, x, &tanh, output)
}

fn gelu_erf(cx: &mut Lowering, x: &str, output: &str) -> Result<(), Refusal> {
    let (dtype, ty) = (cx.float(x)?, cx.ty(x)?.clone());
    let root = cx.new_float(dtype, SQRT_2)?;
    let inner = cx.emit("Div", &[x, &root], vec![], ty.clone())?;
    let erf = cx.emit("Erf", &[&inner], vec![], ty)?;
    half_times_one_plus(cx, x, &erf, output)
}

/// x/2 · (1 + y)
fn half_times_one_plus(cx: &mut Lowering, x: &str, y: &str, output: &str) -> Result<(), Refusal> {
    let (dtype, ty) = (cx.float(x)?, cx.ty(x)?.clone());
    let one = cx.new_float(dtype, 1.0)?;
    let sum = cx.emit("Add", &[y, &one], vec![], ty.clone())?;
    let half = cx.new_float(dtype, 0.5)?;
    let halved = cx.emit("Mul", &[x, &half], vec![], ty.clone())?;
    cx.emit_as("Mul", &[&halved, &sum], vec![], ty, output)
}

/// Dropout does nothing unless it is in training mode, where its result is random. candle-onnx never looks.
pub(crate) fn dropout(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    if let Some(training) = cx.optional(node, 2) {
        let off = cx.constant(training).map(|flag| flag.flatten_all()?.to_vec1::<u8>()).transpose()?;
        if off != Some(vec![0]) {
            return Err(
                "it is in training mode, so the graph is not deterministic; export the model after eval()"
                    .into(),
            );
        }
    }
    if optional_output(node, 1).is_some() {
        return Err("its mask is asked for".into());
    }
    same(cx, x, output)
}
