//! Matrix products.

use ndarray::{ArrayD, ArrayView2, Ix2, IxDyn};

use super::Op;
use crate::context::{Context, Outputs, broadcast};
use crate::fault::Fault;
use crate::tensor::{Array, Data, Tensor, array, reshaped};

/// An element that can be multiplied and summed up. Floats go through ndarray's product; integers wrap and never overflow.
pub(super) trait Product: Clone + 'static {
    fn dot(a: ArrayView2<Self>, b: ArrayView2<Self>) -> Vec<Self>;
}

impl Product for f64 {
    fn dot(a: ArrayView2<f64>, b: ArrayView2<f64>) -> Vec<f64> {
        a.dot(&b).iter().copied().collect()
    }
}

impl Product for i128 {
    fn dot(a: ArrayView2<i128>, b: ArrayView2<i128>) -> Vec<i128> {
        let mut result = Vec::with_capacity(a.nrows() * b.ncols());
        for row in a.rows() {
            for column in b.columns() {
                let products = row.iter().zip(column).map(|(x, y)| x.wrapping_mul(*y));
                result.push(products.fold(0, i128::wrapping_add));
            }
        }
        result
    }
}

/// numpy's matmul: the last two axes are matrices, the others are broadcast. A vector is a row on the left and a column on the right, and the
/// axis it was given is taken off again.
pub(super) fn matmul<T: Product>(context: &Context, a: &Array<T>, b: &Array<T>) -> Result<ArrayD<T>, Fault> {
    let wrong = || Fault::shape("input 1", b.shape(), format!("what {:?} can be multiplied with", a.shape()));
    let (a_is_vector, b_is_vector) = (a.ndim() == 1, b.ndim() == 1);
    let left = if a_is_vector { [&[1], a.shape()].concat() } else { a.shape().to_vec() };
    let right = if b_is_vector { [b.shape(), &[1]].concat() } else { b.shape().to_vec() };
    let (Some((a_batch, &[m, k])), Some((b_batch, &[k_too, n]))) =
        (left.split_last_chunk::<2>(), right.split_last_chunk::<2>())
    else {
        return Err(wrong());
    };
    if k != k_too {
        return Err(wrong());
    }
    let batch = broadcast(a_batch, b_batch)?;
    let shape = [&batch[..], &[m, n]].concat();
    let length = context.room(&shape)?;
    let (a, b) = (reshaped(a, &left)?.into_shared(), reshaped(b, &right)?.into_shared());
    let a = context.expand(&a, &[&batch[..], &[m, k]].concat())?;
    let b = context.expand(&b, &[&batch[..], &[k, n]].concat())?;
    let mut result = Vec::with_capacity(length);
    for place in ndarray::indices(IxDyn(&batch)) {
        let (mut a, mut b) = (a.view(), b.view());
        for &at in ndarray::Dimension::slice(&place) {
            a = a.index_axis_move(ndarray::Axis(0), at);
            b = b.index_axis_move(ndarray::Axis(0), at);
        }
        let (a, b) = (a.into_dimensionality::<Ix2>(), b.into_dimensionality::<Ix2>());
        let (Ok(a), Ok(b)) = (a, b) else { return Err(wrong()) };
        result.extend(T::dot(a, b));
    }
    let result = array(&shape, result)?;
    let mut kept = batch;
    if !a_is_vector {
        kept.push(m);
    }
    if !b_is_vector {
        kept.push(n);
    }
    reshaped(&result.into_shared(), &kept)
}

fn mat_mul(context: &Context) -> Outputs {
    let dtype = context.same_dtype(0, 1)?;
    Ok(vec![match dtype.is_float() {
        true => Tensor::float(dtype, matmul(context, context.floats(0)?, context.floats(1)?)?),
        false => Tensor::int(dtype, matmul(context, context.ints(0)?, context.ints(1)?)?),
    }])
}

/// The matrix, transposed if asked for.
pub(super) fn matrix<T: Clone>(
    what: &'static str,
    x: &Array<T>,
    transposed: bool,
) -> Result<Array<T>, Fault> {
    if x.ndim() != 2 {
        return Err(Fault::shape(what, x.shape(), "of rank 2"));
    }
    Ok(if transposed { x.t().to_owned().into_shared() } else { x.clone() })
}

/// α A' B' + β C, where C is broadcast to the product.
pub(super) fn gemm(context: &Context) -> Outputs {
    let dtype = context.same_dtype(0, 1)?;
    let (a_t, b_t) = (context.flag("transA", false)?, context.flag("transB", false)?);
    let (alpha, beta) = (context.float("alpha", 1.0)?, context.float("beta", 1.0)?);
    let product = match (&context.input(0)?.data, &context.input(1)?.data) {
        (Data::Float(a), Data::Float(b)) => {
            let (a, b) = (matrix("input 0", a, a_t)?, matrix("input 1", b, b_t)?);
            matmul(context, &a, &b)?.mapv(|x| alpha * x)
        }
        // Sums of products beyond 2^53 are not exact, and neither are their multiples by a float.
        (Data::Int(a), Data::Int(b)) => {
            let (a, b) = (matrix("input 0", a, a_t)?, matrix("input 1", b, b_t)?);
            return int_gemm(context, matmul(context, &a, &b)?.into_shared(), (alpha, beta));
        }
        _ => return Err(Fault::Mixed { first: dtype, second: dtype }),
    };
    if context.optional(2).is_none() {
        return Ok(vec![Tensor::float(dtype, product)]);
    }
    context.same_dtype(0, 2)?;
    let c = context.floats(2)?;
    Ok(vec![Tensor::float(dtype, context.onto(&product.into_shared(), c, |x, c| x + beta * c)?)])
}

/// Integers, multiplied only by integers.
fn int_gemm(context: &Context, product: Array<i128>, (alpha, beta): (f64, f64)) -> Outputs {
    let dtype = context.input(0)?.dtype;
    if alpha.fract() != 0.0 || beta.fract() != 0.0 {
        return Err(Fault::Unsupported("an integer product times a fraction"));
    }
    let (alpha, beta) = (alpha as i128, beta as i128);
    let product = product.mapv(|x| alpha.wrapping_mul(x)).into_shared();
    if context.optional(2).is_none() {
        return Ok(vec![Tensor { dtype, data: Data::Int(product) }]);
    }
    context.same_dtype(0, 2)?;
    let c = context.ints(2)?;
    let sum = context.onto(&product, c, |x, c| x.wrapping_add(beta.wrapping_mul(c)))?;
    Ok(vec![Tensor::int(dtype, sum)])
}

pub(super) const OPS: &[Op] = &[
    Op::onnx("Gemm", (2, 3), "alpha beta transA transB", gemm).since(9),
    Op::onnx("MatMul", (2, 2), "", mat_mul),
];
