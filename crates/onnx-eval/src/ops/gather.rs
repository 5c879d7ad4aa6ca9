//! Operators that pick elements out. Every index is checked before it is used.

use ndarray::{ArrayD, Axis, Dimension, IxDyn};
use onnx_graph::shape::{self as rules, Cut};

use super::Op;
use crate::context::{Context, Outputs, axes, axis, index};
use crate::fault::Fault;
use crate::tensor::{Array, Tensor, array, each, reshaped};

/// Indices along an axis of this size, counted from the front.
fn indices(context: &Context, input: usize, size: usize) -> Result<Array<usize>, Fault> {
    let given = context.ints(input)?;
    let found = given.iter().map(|&at| index(at, size)).collect::<Result<Vec<_>, _>>()?;
    Ok(array(given.shape(), found)?.into_shared())
}

/// The index array takes the place of the axis.
fn gather(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let along = axis(context.int("axis", 0)?, x.rank())?;
    Ok(vec![pick(context, x, 1, along)?])
}

/// The slices of `x` along an axis that input `input` lists.
pub(super) fn pick(context: &Context, x: &Tensor, input: usize, along: usize) -> Result<Tensor, Fault> {
    let at = indices(context, input, x.shape()[along])?;
    let shape = rules::gather(x.shape(), along, at.shape());
    context.room(&shape)?;
    let flat: Vec<usize> = at.iter().copied().collect();
    Ok(each!(x, x => reshaped(&x.select(Axis(along), &flat).into_shared(), &shape)?))
}

/// result[i][j][k] = x[i][indices[i][j][k]][k], for axis 1
fn gather_elements(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let along = axis(context.int("axis", 0)?, x.rank())?;
    let at = indices(context, 1, x.shape()[along])?;
    let fits = at.ndim() == x.rank() && (0..x.rank()).all(|a| a == along || at.shape()[a] <= x.shape()[a]);
    if !fits {
        let wanted = format!("within {:?} but for axis {along}", x.shape());
        return Err(Fault::shape("indices", at.shape(), wanted));
    }
    let source = |place: IxDyn| {
        let mut source = place.clone();
        source[along] = at[&place];
        source
    };
    Ok(vec![each!(x, x => ArrayD::from_shape_fn(at.raw_dim(), |place| x[&source(place)]))])
}

/// The last axis of the indices holds the first indices into x, after `batch_dims` axes that both have.
fn gather_nd(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let given = context.ints(1)?;
    let batch = usize::try_from(context.int("batch_dims", 0)?).unwrap_or(usize::MAX);
    let wrong = || {
        let wanted = format!("tuples of indices into {:?} after {batch} common axes", x.shape());
        Fault::shape("indices", given.shape(), wanted)
    };
    let (&tuple, places) = given.shape().split_last().ok_or_else(wrong)?;
    let common = x.shape().get(..batch).filter(|common| places.get(..batch) == Some(common));
    if common.is_none() || batch.saturating_add(tuple) > x.rank() {
        return Err(wrong());
    }
    let sizes = &x.shape()[batch..batch + tuple];
    let rest = &x.shape()[batch + tuple..];
    let shape = [places, rest].concat();
    context.room(&shape)?;
    let flat = given.iter().copied().collect::<Vec<_>>();
    let found = flat
        .iter()
        .enumerate()
        .map(|(number, &at)| index(at, sizes[number % tuple.max(1)]))
        .collect::<Result<Vec<_>, _>>()?;
    let found = array(given.shape(), found)?;
    let source = |place: IxDyn| {
        let mut tuple_at = place.slice()[..places.len()].to_vec();
        tuple_at.push(0);
        let mut source = place.slice()[..batch].to_vec();
        for number in 0..tuple {
            tuple_at[places.len()] = number;
            source.push(found[&tuple_at[..]]);
        }
        source.extend(&place.slice()[places.len()..]);
        source
    };
    Ok(vec![each!(x, x => ArrayD::from_shape_fn(IxDyn(&shape), |place| x[&source(place)[..]]))])
}

/// `starts`, `ends`, and perhaps `axes` and `steps`.
fn slice(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let starts = context.list(1)?.ok_or(Fault::MissingInput(1))?;
    let ends = context.list(2)?.ok_or(Fault::MissingInput(2))?;
    let along = match context.list(3)? {
        Some(given) => axes(&given, x.rank())?,
        None => (0..starts.len()).collect(),
    };
    let steps = context.list(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    let lengths = [starts.len(), ends.len(), along.len(), steps.len()];
    if lengths.iter().any(|&length| length != starts.len()) || starts.len() > x.rank() {
        let found = format!("{lengths:?}");
        return Err(Fault::argument(
            "the number of starts, ends, axes and steps",
            found,
            "the same, and at most the rank",
        ));
    }
    let mut result = x.clone();
    for (number, &along) in along.iter().enumerate() {
        let step = steps[number];
        let cut = rules::slice(starts[number], ends[number], step, x.shape()[along]);
        let Some(Cut { first, count }) = cut else {
            return Err(Fault::argument("a step", "0", "another number"));
        };
        let kept: Vec<usize> =
            (0..count).map(|place| (first as i128 + place as i128 * i128::from(step)) as usize).collect();
        result = each!(&result, x => x.select(Axis(along), &kept));
    }
    Ok(vec![result])
}

/// The slices whose condition is true; without an axis, of the flattened tensor. Slices beyond the conditions are left out.
fn compress(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let conditions = context.bools(1)?;
    let (x, along) = match context.node.int("axis")? {
        Some(along) => (x.clone(), axis(along, x.rank())?),
        None => (each!(x, array => reshaped(array, &[x.len()])?), 0),
    };
    let kept: Vec<usize> =
        conditions.iter().enumerate().filter(|(_, condition)| **condition != 0).map(|(at, _)| at).collect();
    let size = x.shape()[along];
    if conditions.ndim() != 1 || kept.last().is_some_and(|&last| last >= size) {
        let wanted = format!("of rank 1, with at most {size} elements");
        return Err(Fault::shape("the condition", conditions.shape(), wanted));
    }
    Ok(vec![each!(&x, x => x.select(Axis(along), &kept))])
}

/// Reverses the first `sequence_lens[b]` elements of each batch row along the time axis.
fn reverse_sequence(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let (time, batch) = (context.int("time_axis", 0)?, context.int("batch_axis", 1)?);
    let (time, batch) = (axis(time, x.rank())?, axis(batch, x.rank())?);
    let lengths = context.list(1)?.ok_or(Fault::MissingInput(1))?;
    let steps = x.shape()[time];
    let fits = |&length: &i64| usize::try_from(length).is_ok_and(|length| length <= steps);
    if time == batch || lengths.len() != x.shape()[batch] || !lengths.iter().all(fits) {
        let found = format!("{lengths:?} for {:?}", x.shape());
        return Err(Fault::argument(
            "sequence_lens",
            found,
            "a length within the time axis for each batch row",
        ));
    }
    let source = |mut place: IxDyn| {
        let length = lengths[place[batch]] as usize;
        if place[time] < length {
            place[time] = length - 1 - place[time];
        }
        place
    };
    Ok(vec![each!(x, x => ArrayD::from_shape_fn(x.raw_dim(), |place| x[&source(place)]))])
}

pub(super) const OPS: &[Op] = &[
    Op::onnx("Compress", (2, 2), "axis", compress),
    Op::onnx("Gather", (2, 2), "axis", gather),
    Op::onnx("GatherElements", (2, 2), "axis", gather_elements),
    Op::onnx("GatherND", (2, 2), "", gather_nd).until(11),
    Op::onnx("GatherND", (2, 2), "batch_dims", gather_nd).since(12),
    Op::onnx("ReverseSequence", (2, 2), "batch_axis time_axis", reverse_sequence),
    Op::onnx("Slice", (3, 5), "", slice),
];
