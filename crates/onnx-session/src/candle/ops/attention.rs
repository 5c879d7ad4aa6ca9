//! The Attention operator of opset 23.

use engine::DType;
use onnx_graph::Node;

use super::linear::product_type;
use super::normalize::refuse_half;
use crate::candle::lower::{Lowering, Refusal, ints};
use crate::candle::types::{ValueType, broadcast};

/// softmax(scale · Q·Kᵀ + mask)·V on [batch, heads, sequence, head size], scale 1/√(head size) unless given. Cached keys, causal
/// masks, soft caps, grouped heads and the three-axis form are refused.
pub(crate) fn attention(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (q, k, v) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.input(node, 2)?);
    let output = cx.output(node, 0)?;
    let dtype = cx.float(q)?;
    for attribute in ["is_causal", "q_num_heads", "kv_num_heads"] {
        if node.int(attribute)?.unwrap_or(0) != 0 {
            return Err(format!("{attribute} is set").into());
        }
    }
    refuse_half(node, "softmax_precision")?;
    if node.float("softcap")?.unwrap_or(0.0) != 0.0 {
        return Err("softcap is set".into());
    }
    if node.inputs.iter().skip(4).chain(node.outputs.iter().skip(1)).any(|name| !name.is_empty()) {
        return Err("cached keys and values, and the scores as an output, are not lowered".into());
    }
    let shapes = [q, k, v].map(|name| cx.ty(name).ok().and_then(|ty| ty.shape.clone()));
    let [Some(q_shape), Some(k_shape), Some(v_shape)] = shapes else {
        return Err("the ranks of its inputs are not known before it runs".into());
    };
    if [&q_shape, &k_shape, &v_shape].iter().any(|shape| shape.len() != 4) {
        return Err("its inputs must have the axes batch, heads, sequence and head size".into());
    }
    if q_shape[1].is_none() || q_shape[1] != k_shape[1] || q_shape[1] != v_shape[1] {
        return Err("queries, keys and values must have the same known number of heads".into());
    }
    let scale = match (node.float("scale")?, q_shape[3]) {
        (Some(scale), _) => scale.into(),
        (None, Some(size)) => 1.0 / (size as f64).sqrt(),
        (None, None) => return Err("the head size is not known before it runs".into()),
    };

    let k_transposed =
        ValueType::new(cx.float(k)?, Some(vec![k_shape[0], k_shape[1], k_shape[3], k_shape[2]]));
    let k_transposed = cx.emit("Transpose", &[k], vec![ints("perm", [0, 1, 3, 2])], k_transposed)?;
    let ty = product_type(cx, q, &k_transposed)?;
    let product = cx.emit("MatMul", &[q, &k_transposed], vec![], ty.clone())?;
    let scale = cx.new_float(dtype, scale)?;
    let mut scores = cx.emit("Mul", &[&product, &scale], vec![], ty.clone())?;
    if let Some(mask) = cx.optional(node, 3) {
        scores = masked(cx, &scores, mask, dtype)?;
    }
    let mut weights = cx.emit("Softmax", &[&scores], vec![], ty)?;
    if let Some(mask) = cx.optional(node, 3) {
        // A key that is masked by −∞ has no weight. So a row that may look nowhere has none,
        // instead of NaN.
        let (zero, mask_type) = (cx.new_float(dtype, 0.0)?, cx.ty(mask)?.clone());
        let ty = cx.ty(&weights)?.clone();
        weights = if mask_type.dtype == DType::Bool {
            cx.emit("Where", &[mask, &weights, &zero], vec![], ty)?
        } else {
            let least = cx.new_float(dtype, f64::NEG_INFINITY)?;
            let masked = cx.emit("Equal", &[mask, &least], vec![], mask_type.with_dtype(DType::Bool))?;
            cx.emit("Where", &[&masked, &zero, &weights], vec![], ty)?
        };
    }
    let ty = product_type(cx, &weights, v)?;
    cx.emit_as("MatMul", &[&weights, v], vec![], ty, output)
}

/// A float mask is added. A bool mask keeps where it is true, and elsewhere adds −∞.
fn masked(cx: &mut Lowering, scores: &str, mask: &str, dtype: DType) -> Result<String, Refusal> {
    let mask_type = cx.ty(mask)?.clone();
    let ty = ValueType::new(dtype, broadcast(&cx.ty(scores)?.shape, &mask_type.shape));
    if mask_type.dtype == dtype {
        return cx.emit("Add", &[scores, mask], vec![], ty);
    }
    if mask_type.dtype != DType::Bool {
        return Err(format!("its mask is {}", mask_type.dtype).into());
    }
    let least = cx.new_float(dtype, f64::NEG_INFINITY)?;
    cx.emit("Where", &[mask, scores, &least], vec![], ty)
}
