//! Matrix products and transposes.

use onnx_graph::{Node, shape};

use crate::candle::lower::{Lowering, Refusal, ints};
use crate::candle::types::ValueType;

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
        (Some(a), Some(b)) if a.len() < 2 || b.len() < 2 => {
            return Err("an operand has rank 1 or less, which candle does not multiply".into());
        }
        (Some(a), Some(b)) => shape::matmul(a, b),
        _ => None,
    };
    Ok(ValueType::new(dtype, shape))
}

/// Without `perm` ONNX reverses all axes, candle-onnx swaps the last two.
pub(crate) fn transpose(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    transposed(cx, x, node.ints("perm")?, output)
}

fn transposed(cx: &mut Lowering, x: &str, perm: Option<&[i64]>, output: &str) -> Result<(), Refusal> {
    let ty = cx.ty(x)?;
    // A permutation tells the rank where nothing else does.
    let rank = ty.rank().or(perm.map(<[i64]>::len));
    let order = shape::permutation(perm, rank.map_or_else(|| cx.rank(x), Ok)?).ok_or_else(|| {
        Refusal(format!("perm {:?} is not a permutation of the axes of '{x}'", perm.unwrap_or_default()))
    })?;
    let dims = ty.shape.as_ref().map(|dims| order.iter().map(|&axis| dims[axis]).collect());
    let ty = ValueType::new(ty.dtype, dims);
    cx.emit_as("Transpose", &[x], vec![ints("perm", order.iter().map(|&axis| axis as i64))], ty, output)
}

/// Gemm is alpha·A·B + beta·C on matrices. candle-onnx cannot do without C, builds alpha and beta in A's untransposed shape, in
/// f32 whatever the dtype.
pub(crate) fn gemm(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (a, b, output) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    let dtype = cx.float(a)?;
    if (cx.rank(a)?, cx.rank(b)?) != (2, 2) {
        return Err("its operands must be matrices".into());
    }
    let [mut a, mut b] = [a, b].map(str::to_owned);
    for (flag, matrix) in [("transA", &mut a), ("transB", &mut b)] {
        if node.int(flag)?.unwrap_or(0) != 0 {
            let original = std::mem::replace(matrix, cx.fresh());
            transposed(cx, &original, None, matrix)?;
        }
    }
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
