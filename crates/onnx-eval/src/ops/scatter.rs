//! Operators that put elements in.

use ndarray::{Dimension, IxDyn};

use super::Op;
use super::elementwise::{larger, smaller};
use crate::context::{Context, Outputs, axis, index};
use crate::fault::Fault;
use crate::tensor::{Data, Tensor};

/// How an update is joined with what is there.
type Join = (fn(f64, f64) -> f64, fn(i128, i128) -> i128);

/// `reduction`: add and mul since opset 16, max and min since 18.
fn join(context: &Context) -> Result<Join, Fault> {
    let (name, opset) = (context.string("reduction", "none")?, context.opset);
    Ok(match name {
        "none" => (|_, new| new, |_, new| new),
        "add" => (|old, new| old + new, i128::wrapping_add),
        "mul" => (|old, new| old * new, i128::wrapping_mul),
        "max" if opset >= 18 => (larger, i128::max),
        "min" if opset >= 18 => (smaller, i128::min),
        other => {
            let found = format!("'{other}' at opset {opset}");
            return Err(Fault::argument(
                "attribute 'reduction'",
                found,
                "none, add or mul, or since opset 18 max or min",
            ));
        }
    })
}

/// Joins update after update with what is at its place.
fn scatter(context: &Context, places: &[IxDyn]) -> Outputs {
    let dtype = context.same_dtype(0, 2)?;
    let join = join(context)?;
    match (&context.input(0)?.data, &context.input(2)?.data) {
        (Data::Float(x), Data::Float(updates)) => {
            let mut result = x.to_owned();
            for (place, &update) in places.iter().zip(updates) {
                // Each joining is a rounding.
                result[place] = context.round(join.0(result[place], update), dtype);
            }
            Ok(vec![Tensor::float(dtype, result)])
        }
        (Data::Int(x), Data::Int(updates)) => {
            let mut result = x.to_owned();
            for (place, &update) in places.iter().zip(updates) {
                result[place] = join.1(result[place], update);
            }
            Ok(vec![Tensor::int(dtype, result)])
        }
        _ => Err(Fault::Mixed { first: dtype, second: dtype }),
    }
}

/// result[i][indices[i][j][k]][k] = updates[i][j][k], for axis 1
fn scatter_elements(context: &Context) -> Outputs {
    let (x, updates) = (context.input(0)?, context.input(2)?);
    let along = axis(context.int("axis", 0)?, x.rank())?;
    let indices = context.ints(1)?;
    let fits = indices.shape() == updates.shape()
        && indices.ndim() == x.rank()
        && (0..x.rank()).all(|a| a == along || indices.shape()[a] <= x.shape()[a]);
    if !fits {
        let wanted = format!("that of the updates, {:?}, and within {:?}", updates.shape(), x.shape());
        return Err(Fault::shape("indices", indices.shape(), wanted));
    }
    let places = indices
        .indexed_iter()
        .map(|(mut place, &at)| {
            place[along] = index(at, x.shape()[along])?;
            Ok(place)
        })
        .collect::<Result<Vec<_>, Fault>>()?;
    scatter(context, &places)
}

/// The last axis of the indices holds the first indices of a slice, and the updates have that slice.
fn scatter_nd(context: &Context) -> Outputs {
    let (x, updates) = (context.input(0)?, context.input(2)?);
    let indices = context.ints(1)?;
    let wrong = || {
        let wanted = format!("as indices {:?} into {:?} say", indices.shape(), x.shape());
        Fault::shape("updates", updates.shape(), wanted)
    };
    let (&tuple, places) = indices.shape().split_last().ok_or_else(wrong)?;
    let rest = x.shape().get(tuple..).ok_or_else(wrong)?;
    if updates.shape() != [places, rest].concat() {
        return Err(wrong());
    }
    let all = ndarray::indices(IxDyn(updates.shape()))
        .into_iter()
        .map(|place| {
            let (tuple_at, rest_at) = place.slice().split_at(places.len());
            let mut target = Vec::new();
            for number in 0..tuple {
                let at = indices[&[tuple_at, &[number]].concat()[..]];
                target.push(index(at, x.shape()[number])?);
            }
            target.extend(rest_at);
            Ok(IxDyn(&target))
        })
        .collect::<Result<Vec<_>, Fault>>()?;
    scatter(context, &all)
}

pub(super) const OPS: &[Op] = &[
    Op::onnx("ScatterElements", (3, 3), "axis", scatter_elements).until(15),
    Op::onnx("ScatterElements", (3, 3), "axis reduction", scatter_elements).since(16),
    Op::onnx("ScatterND", (3, 3), "", scatter_nd).until(15),
    Op::onnx("ScatterND", (3, 3), "reduction", scatter_nd).since(16),
];
