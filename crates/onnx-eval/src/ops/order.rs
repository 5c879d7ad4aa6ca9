//! Operators that compare elements of a row, or positions.

use std::cmp::Ordering;

use engine::DType;
use ndarray::{ArrayD, Dimension, IxDyn};

use super::Op;
use crate::context::{Context, Outputs, axis, fold, index};
use crate::fault::Fault;
use crate::tensor::{Array, Data, Tensor, array, each, reshaped};

/// NaN is larger than any number, as numpy sorts it.
fn order_floats(a: &f64, b: &f64) -> Ordering {
    a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The place of the first element that no other goes before, or of the last such.
fn place<T>(row: &[T], goes_before: impl Fn(&T, &T) -> bool, last: bool) -> i128 {
    let mut best = 0;
    for (at, element) in row.iter().enumerate().skip(1) {
        if goes_before(element, &row[best]) || (last && !goes_before(&row[best], element)) {
            best = at;
        }
    }
    best as i128
}

fn arg(context: &Context, wanted: Ordering) -> Outputs {
    let x = context.input(0)?;
    let along = axis(context.int("axis", 0)?, x.rank())?;
    let last = context.flag("select_last_index", false)?;
    let mut shape = x.shape().to_vec();
    if shape[along] == 0 {
        return Err(Fault::shape("input 0", &shape, "of one element or more"));
    }
    let places = match &x.data {
        Data::Float(x) => fold(x, &[along], |row| place(row, |a, b| order_floats(a, b) == wanted, last))?,
        Data::Int(x) => fold(x, &[along], |row| place(row, |a, b| a.cmp(b) == wanted, last))?,
    };
    if context.flag("keepdims", true)? {
        shape[along] = 1;
        return Ok(vec![Tensor::int(DType::I64, reshaped(&places.into_shared(), &shape)?)]);
    }
    Ok(vec![Tensor::int(DType::I64, places)])
}

/// The k first of each row in the order asked for; of equal ones, the one that stands first. `sorted = 0` leaves the order open, so that it is
/// the same.
fn top_k(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let along = axis(context.int("axis", -1)?, x.rank())?;
    let k = index(*context.scalar("k", context.ints(1)?)?, x.shape()[along].saturating_add(1))?;
    if *context.scalar("k", context.ints(1)?)? < 0 {
        return Err(Fault::Index { index: -1, size: x.shape()[along] });
    }
    let largest = context.flag("largest", true)?;
    let first = |a: Ordering| if largest { a.reverse() } else { a };
    let places = match &x.data {
        Data::Float(x) => sorted(x, along, |a, b| first(order_floats(a, b))),
        Data::Int(x) => sorted(x, along, |a, b| first(a.cmp(b))),
    };
    let places = places.slice_axis(ndarray::Axis(along), ndarray::Slice::from(..k)).to_owned();
    let source = |mut at: IxDyn| {
        at[along] = places[&at];
        at
    };
    let values = each!(x, x => ArrayD::from_shape_fn(places.raw_dim(), |at| x[&source(at)]));
    Ok(vec![values, Tensor::int(DType::I64, places.mapv(|at| at as i128))])
}

/// For each row the places of its elements in order.
fn sorted<T: Clone>(x: &Array<T>, along: usize, order: impl Fn(&T, &T) -> Ordering) -> ArrayD<usize> {
    let numbered = ArrayD::from_shape_fn(x.raw_dim(), |at| (at[along], x[&at].clone()));
    // The sort is stable.
    let sort = |row: &mut [(usize, T)]| row.sort_by(|a, b| order(&a.1, &b.1));
    crate::context::along(&numbered.into_shared(), &[along], sort).map(|(place, _)| *place)
}

/// The upper or lower triangle of each matrix, from the k-th diagonal.
fn trilu(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let upper = context.flag("upper", true)?;
    let k = context.optional_int(1, "k", 0)?;
    let rank = x.rank();
    if rank < 2 {
        return Err(Fault::shape("input 0", x.shape(), "matrices"));
    }
    let kept = |at: &IxDyn| {
        let above = at[rank - 1] as i128 - at[rank - 2] as i128;
        if upper { above >= k } else { above <= k }
    };
    let zeroed = each!(x, a => {
        ArrayD::from_shape_fn(a.raw_dim(), |at| if kept(&at) { a[&at] } else { Default::default() })
    });
    Ok(vec![zeroed])
}

/// The second value at the index, the first elsewhere, along a new axis. An index out of range has no such place.
fn one_hot(context: &Context) -> Outputs {
    let indices = match &context.input(0)?.data {
        Data::Float(x) => x.mapv(|x| x as i128).into_shared(),
        Data::Int(_) => context.ints(0)?.clone(),
    };
    let depth = context.input(1)?.cast(DType::I64);
    let Data::Int(depth) = &depth.data else { return Err(Fault::MissingInput(1)) };
    let depth = usize::try_from(*context.scalar("the depth", depth)?)
        .map_err(|_| Fault::argument("the depth", "negative", "a size"))?;
    let along = axis(context.int("axis", -1)?, indices.ndim() + 1)?;
    let mut shape = indices.shape().to_vec();
    shape.insert(along, depth);
    context.room(&shape)?;
    let values = context.input(2)?;
    if values.shape() != [2] {
        return Err(Fault::shape("values", values.shape(), "[2]"));
    }
    let hot = |at: IxDyn| {
        let mut source = at.slice().to_vec();
        let place = source.remove(along) as i128;
        let index = indices[&source[..]];
        usize::from(place == if index < 0 { index + depth as i128 } else { index })
    };
    Ok(vec![each!(values, v => ArrayD::from_shape_fn(IxDyn(&shape), |at| v[[hot(at)].as_slice()]))])
}

/// The indices of all elements that are not zero: a row for each axis.
fn non_zero(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let places: Vec<IxDyn> = match &x.data {
        Data::Float(x) => x.indexed_iter().filter(|(_, x)| **x != 0.0).map(|(at, _)| at).collect(),
        Data::Int(x) => x.indexed_iter().filter(|(_, x)| **x != 0).map(|(at, _)| at).collect(),
    };
    let rows = (0..x.rank()).flat_map(|axis| places.iter().map(move |at| at[axis] as i128)).collect();
    Ok(vec![Tensor::int(DType::I64, array(&[x.rank(), places.len()], rows)?)])
}

pub(super) const OPS: &[Op] = &[
    Op::onnx("ArgMax", (1, 1), "axis keepdims", |c| arg(c, Ordering::Greater)).until(11),
    Op::onnx("ArgMax", (1, 1), "axis keepdims select_last_index", |c| arg(c, Ordering::Greater)).since(12),
    Op::onnx("ArgMin", (1, 1), "axis keepdims", |c| arg(c, Ordering::Less)).until(11),
    Op::onnx("ArgMin", (1, 1), "axis keepdims select_last_index", |c| arg(c, Ordering::Less)).since(12),
    Op::onnx("NonZero", (1, 1), "", non_zero),
    Op::onnx("OneHot", (3, 3), "axis", one_hot),
    Op::onnx("TopK", (2, 2), "axis largest sorted", top_k).outputs(2),
    Op::onnx("Trilu", (1, 2), "upper", trilu).since(14),
];
