//! Matrix products and transposes.

use onnx_graph::Node;

use crate::candle::lower::{Lowering, Refusal, ints};
use crate::candle::types::{ValueType, broadcast};

/// candle-onnx multiplies operands of rank 2 and above.
pub(crate) fn mat_mul(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (a, b, output) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    let ty = product_type(cx, a, b)?;
    cx.emit_as("MatMul", &[a, b], vec![], ty, output)
}

pub(super) fn product_type(cx: &Lowering, a: &str, b: &str) -> Result<ValueType, Refusal> {
    let dtype = cx.float(a)?;
    if cx.float(b)? != dtype {
        return Err(format!("'{a}' is {dtype} and '{b}' is not").into());
    }
    let shape = match (&cx.ty(a)?.shape, &cx.ty(b)?.shape) {
        (Some(a), Some(b)) => {
            let ([a_batch @ .., m, _], [b_batch @ .., _, n]) = (a.as_slice(), b.as_slice()) else {
                return Err("an operand has rank 1 or less, which candle does not multiply".into());
            };
            let (a_batch, b_batch) = (Some(a_batch.to_vec()), Some(b_batch.to_vec()));
            broadcast(&a_batch, &b_batch).map(|batch| [batch.as_slice(), &[*m, *n]].concat())
        }
        _ => None,
    };
    Ok(ValueType::new(dtype, shape))
}

/// Without `perm` ONNX reverses all axes, candle-onnx swaps the last two.
pub(crate) fn transpose(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let perm = match node.ints("perm")? {
        Some(perm) => perm.to_vec(),
        None => (0..cx.rank(x)? as i64).rev().collect(),
    };
    let ty = permuted(cx, x, &perm)?;
    cx.emit_as("Transpose", &[x], vec![ints("perm", perm)], ty, output)
}

fn permuted(cx: &Lowering, x: &str, perm: &[i64]) -> Result<ValueType, Refusal> {
    let rank = cx.ty(x)?.rank();
    let mut sorted = perm.to_vec();
    sorted.sort_unstable();
    let complete = sorted.iter().copied().eq(0..perm.len() as i64);
    if !complete || rank.is_some_and(|rank| rank != perm.len()) {
        return Err(format!("perm {perm:?} is not a permutation of the axes of '{x}'").into());
    }
    let shape = cx.ty(x)?.shape.as_ref().map(|dims| {
        perm.iter()
            .filter_map(|&axis| usize::try_from(axis).ok().and_then(|axis| dims.get(axis).copied()))
            .collect()
    });
    Ok(ValueType::new(cx.dtype(x)?, shape))
}

/// The value with its two axes exchanged.
fn transposed(cx: &mut Lowering, x: &str) -> Result<String, Refusal> {
    let ty = permuted(cx, x, &[1, 0])?;
    cx.emit("Transpose", &[x], vec![ints("perm", [1, 0])], ty)
}

/// Gemm is alpha·A·B + beta·C on matrices. candle-onnx cannot do without C, builds alpha and beta in A's untransposed shape, in
/// f32 whatever the dtype.
pub(crate) fn gemm(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (a, b, output) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    let dtype = cx.float(a)?;
    if (cx.rank(a)?, cx.rank(b)?) != (2, 2) {
        return Err("its operands must be matrices".into());
    }
    let a = if node.int("transA")?.unwrap_or(0) == 0 { a.to_string() } else { transposed(cx, a)? };
    let b = if node.int("transB")?.unwrap_or(0) == 0 { b.to_string() } else { transposed(cx, b)? };
    let ty = product_type(cx, &a, &b)?;
    let mut product = (&*a, &*b);
    let scaled;
    let alpha = node.float("alpha")?.unwrap_or(1.0);
    if alpha != 1.0 {
        let alpha = cx.new_float(dtype, alpha.into())?;
        let ty = cx.ty(&a)?.clone();
        scaled = cx.emit("Mul", &[&a, &alpha], vec![], ty)?;
        product = (&scaled, &b);
    }
    let Some(c) = cx.optional(node, 2) else {
        return cx.emit_as("MatMul", &[product.0, product.1], vec![], ty, output);
    };
    if cx.float(c)? != dtype {
        return Err(format!("'{c}' is not {dtype}").into());
    }
    let mut c = c.to_string();
    let beta = node.float("beta")?.unwrap_or(1.0);
    if beta != 1.0 {
        let beta = cx.new_float(dtype, beta.into())?;
        let ty = cx.ty(&c)?.clone();
        c = cx.emit("Mul", &[&c, &beta], vec![], ty)?;
    }
    let product = cx.emit("MatMul", &[product.0, product.1], vec![], ty.clone())?;
    cx.emit_as("Add", &[&product, &c], vec![], ty, output)
}
