//! Reductions. Their axes moved from an attribute to an input: ReduceSum's at opset 13, the others' at 18.

use engine::DType;
use onnx_graph::shape;

use super::Op;
use super::elementwise::{larger, smaller};
use crate::context::{Context, Outputs, fold};
use crate::fault::Fault;
use crate::round::int_range;
use crate::tensor::{Array, Data, Tensor, reshaped};

/// The axes to reduce.
fn reduced_axes(context: &Context) -> Result<Vec<usize>, Fault> {
    let rank = context.input(0)?.rank();
    // The table lets only one of the two be there.
    let given = match context.node.ints("axes")? {
        Some(axes) => axes.to_vec(),
        None => context.list(1)?.unwrap_or_default(),
    };
    let noop = context.flag("noop_with_empty_axes", false)?;
    shape::reduced_axes(&given, noop, rank).map_err(|axis| Fault::Axis { axis, rank })
}

fn reduce<T: Clone>(
    context: &Context,
    x: &Array<T>,
    f: impl Fn(&[T]) -> T,
) -> Result<ndarray::ArrayD<T>, Fault> {
    let axes = reduced_axes(context)?;
    let result = fold(x, &axes, f)?;
    if !context.flag("keepdims", true)? {
        return Ok(result);
    }
    reshaped(&result.into_shared(), &shape::reduced(x.shape(), &axes, true))
}

fn floats(context: &Context, f: impl Fn(&[f64]) -> f64) -> Outputs {
    Ok(vec![Tensor::float(context.input(0)?.dtype, reduce(context, context.floats(0)?, f)?)])
}

/// Floats by `f`, integers by `g`.
fn numbers(context: &Context, f: impl Fn(&[f64]) -> f64, g: impl Fn(&[i128]) -> i128) -> Outputs {
    match context.input(0)?.data {
        Data::Float(_) => floats(context, f),
        Data::Int(_) => Ok(vec![Tensor::int(context.input(0)?.dtype, reduce(context, context.ints(0)?, g)?)]),
    }
}

/// What is found among elements: the largest or the smallest.
struct Extreme {
    floats: fn(f64, f64) -> f64,
    ints: fn(i128, i128) -> i128,
    /// What it is of no elements: the dtype's own extreme.
    of_no_floats: f64,
    of_no_ints: fn((i128, i128)) -> i128,
}

/// Bools since opset 20.
fn extreme(context: &Context, extreme: Extreme) -> Outputs {
    let x = context.input(0)?;
    if x.dtype == DType::Bool && context.opset < 20 {
        context.ints(0)?;
    }
    let of_no_ints = (extreme.of_no_ints)(int_range(x.dtype));
    Ok(vec![match &x.data {
        Data::Float(array) => {
            let row = |row: &[f64]| row.iter().copied().fold(extreme.of_no_floats, extreme.floats);
            Tensor::float(x.dtype, reduce(context, array, row)?)
        }
        Data::Int(array) => {
            let row = |row: &[i128]| row.iter().copied().fold(of_no_ints, extreme.ints);
            Tensor::int(x.dtype, reduce(context, array, row)?)
        }
    }])
}

fn sum(row: &[f64]) -> f64 {
    row.iter().sum()
}

fn int_sum(row: &[i128]) -> i128 {
    row.iter().copied().fold(0, i128::wrapping_add)
}

/// Integers are divided towards zero. There is no integer that is the mean of none.
fn reduce_mean(context: &Context) -> Outputs {
    if context.input(0)?.len() == 0 {
        context.floats(0)?;
    }
    numbers(context, |row| sum(row) / row.len() as f64, |row| int_sum(row) / row.len() as i128)
}

/// ln Σ e^x, with the largest exponent taken out.
fn log_sum_exp(row: &[f64]) -> f64 {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, larger);
    if largest.is_infinite() {
        return largest;
    }
    largest + libm::log(row.iter().map(|x| libm::exp(x - largest)).sum())
}

fn squares(row: &[f64]) -> f64 {
    row.iter().map(|x| x * x).sum()
}

/// An operator whose axes are an attribute up to an opset, and an input from the next one on.
const fn reduction(name: &'static str, last: i64, run: fn(&Context) -> Outputs) -> [Op; 2] {
    [
        Op::onnx(name, (1, 1), "axes keepdims", run).until(last),
        Op::onnx(name, (1, 2), "keepdims noop_with_empty_axes", run).since(last + 1),
    ]
}

const MAX: Extreme = Extreme {
    floats: larger,
    ints: i128::max,
    of_no_floats: f64::NEG_INFINITY,
    of_no_ints: |(least, _)| least,
};

const MIN: Extreme =
    Extreme { floats: smaller, ints: i128::min, of_no_floats: f64::INFINITY, of_no_ints: |(_, most)| most };

fn reduce_l1(context: &Context) -> Outputs {
    numbers(context, |row| row.iter().map(|x| x.abs()).sum(), |row| row.iter().map(|x| x.abs()).sum())
}

fn reduce_prod(context: &Context) -> Outputs {
    numbers(context, |row| row.iter().product(), |row| row.iter().copied().fold(1, i128::wrapping_mul))
}

fn reduce_sum_square(context: &Context) -> Outputs {
    let square = |total: i128, x: &i128| total.wrapping_add(x.wrapping_mul(*x));
    numbers(context, squares, |row| row.iter().fold(0, square))
}

pub(super) const OPS: &[Op] = [
    reduction("ReduceL1", 17, reduce_l1),
    reduction("ReduceL2", 17, |c| floats(c, |row| squares(row).sqrt())),
    reduction("ReduceLogSum", 17, |c| floats(c, |row| libm::log(sum(row)))),
    reduction("ReduceLogSumExp", 17, |c| floats(c, log_sum_exp)),
    reduction("ReduceMax", 17, |c| extreme(c, MAX)),
    reduction("ReduceMean", 17, reduce_mean),
    reduction("ReduceMin", 17, |c| extreme(c, MIN)),
    reduction("ReduceProd", 17, reduce_prod),
    reduction("ReduceSum", 12, |c| numbers(c, sum, int_sum)),
    reduction("ReduceSumSquare", 17, reduce_sum_square),
]
.as_flattened();
