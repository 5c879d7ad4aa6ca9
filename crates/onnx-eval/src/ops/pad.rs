//! Padding.

use ndarray::{ArrayD, IxDyn};

use super::Op;
use crate::context::{Context, Outputs, axes};
use crate::fault::Fault;
use crate::tensor::{Data, Tensor};

/// Where an element of a padded axis comes from; `None` for the constant.
fn source(mode: &str, at: i128, size: i128) -> Option<i128> {
    if (0..size).contains(&at) {
        return Some(at);
    }
    match mode {
        "edge" => Some(at.clamp(0, size - 1)),
        "wrap" => Some(at.rem_euclid(size)),
        // There and back again, the ends not repeated.
        "reflect" if size == 1 => Some(0),
        "reflect" => {
            let at = at.rem_euclid(2 * (size - 1));
            Some(if at < size { at } else { 2 * (size - 1) - at })
        }
        _ => None,
    }
}

/// `pads` holds the widths at the start of each axis, then those at the end; negative ones cut. `axes` since opset 18, `wrap` since 19.
fn pad(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let mode = context.string("mode", "constant")?;
    let known = ["constant", "edge", "reflect"].contains(&mode) || (mode == "wrap" && context.opset >= 19);
    if !known {
        let found = format!("'{mode}' at opset {}", context.opset);
        return Err(Fault::argument(
            "attribute 'mode'",
            found,
            "constant, edge or reflect, or since opset 19 wrap",
        ));
    }
    let pads = context.list(1)?.ok_or(Fault::MissingInput(1))?;
    let axes = match context.list(3)? {
        Some(given) => axes(&given, x.rank())?,
        None => (0..x.rank()).collect(),
    };
    let wrong = || {
        let found = format!("{pads:?} for {:?}", x.shape());
        Fault::argument("pads", found, "two for each axis, that leave a size")
    };
    if pads.len() != 2 * axes.len() {
        return Err(wrong());
    }
    let mut begins = vec![0i128; x.rank()];
    let mut shape = x.shape().to_vec();
    for (number, &axis) in axes.iter().enumerate() {
        let (begin, end) = (pads[number], pads[axes.len() + number]);
        let size = shape[axis] as i128 + i128::from(begin) + i128::from(end);
        let size = usize::try_from(size).map_err(|_| wrong())?;
        if size > 0 && shape[axis] == 0 && mode != "constant" {
            return Err(wrong());
        }
        begins[axis] = begin.into();
        shape[axis] = size;
    }
    context.room(&shape)?;
    let from = |at: &IxDyn| -> Option<Vec<usize>> {
        (0..begins.len())
            .map(|axis| {
                let from = source(mode, at[axis] as i128 - begins[axis], x.shape()[axis] as i128)?;
                usize::try_from(from).ok()
            })
            .collect()
    };
    if context.optional(2).is_some() {
        context.same_dtype(0, 2)?;
    }
    let value = context.optional(2).map(|value| &value.data);
    Ok(vec![match (&x.data, value) {
        (Data::Float(array), value) => {
            let value = match value {
                Some(Data::Float(value)) => *context.scalar("the constant", value)?,
                _ => 0.0,
            };
            let pick = |at: IxDyn| from(&at).map_or(value, |from| array[&from[..]]);
            Tensor::float(x.dtype, ArrayD::from_shape_fn(IxDyn(&shape), pick))
        }
        (Data::Int(array), value) => {
            let value = match value {
                Some(Data::Int(value)) => *context.scalar("the constant", value)?,
                _ => 0,
            };
            let pick = |at: IxDyn| from(&at).map_or(value, |from| array[&from[..]]);
            Tensor::int(x.dtype, ArrayD::from_shape_fn(IxDyn(&shape), pick))
        }
    }])
}

pub(super) const OPS: &[Op] =
    &[Op::onnx("Pad", (2, 3), "mode", pad).until(17), Op::onnx("Pad", (2, 4), "mode", pad).since(18)];
