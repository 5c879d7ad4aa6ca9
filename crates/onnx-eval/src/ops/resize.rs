//! Resize. Every mode resizes one axis after the other, as the weights of a pixel are products of
//! those along the axes.

mod coordinates;
mod lengths;
mod weights;

use coordinates::{Coordinates, Rounding};
use engine::DType;
use lengths::Axis;
use weights::{Filter, Kernel, along};

use super::Op;
use crate::context::{Context, Outputs};
use crate::fault::Fault;
use crate::round::int_range;
use crate::tensor::{Array, Data, Tensor, array, each};

fn resize(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let coordinates = Coordinates::of(context)?;
    let method = Method::of(context)?;
    let mut axes = lengths::axes(context, x.shape(), coordinates)?;
    let mut shape = x.shape().to_vec();
    axes.iter().for_each(|axis| shape[axis.at] = axis.to);
    context.room(&shape)?;
    if shape.contains(&0) {
        return Ok(vec![each!(x, _array => array(&shape, Vec::new())?)]);
    }
    // Those that shrink come first: so nothing in between is larger than input and output are.
    axes.sort_by(|a, b| a.growth().total_cmp(&b.growth()));
    let y = match method {
        Method::Nearest(rounding) => nearest(x, &axes, coordinates, rounding),
        Method::Weighed(filter) => weighed(context, &axes, coordinates, filter)?,
    };
    let outside = context.float("extrapolation_value", 0.0)?;
    Ok(vec![extrapolated(y, &axes, coordinates, outside)])
}

/// How a pixel is made of those that were there.
#[derive(Clone, Copy)]
enum Method {
    /// It is one of them.
    Nearest(Rounding),
    /// It is a weighted mean of them.
    Weighed(Filter),
}

impl Method {
    fn of(context: &Context) -> Result<Self, Fault> {
        let antialias = context.flag("antialias", false)?;
        let kernel = match context.string("mode", "nearest")? {
            "nearest" if antialias => {
                let wanted = "linear or cubic where 'antialias' is 1";
                return Err(Fault::argument("attribute 'mode'", "'nearest'", wanted));
            }
            "nearest" => return Ok(Self::Nearest(Rounding::of(context)?)),
            "linear" => Kernel::Linear,
            "cubic" => Kernel::Cubic(context.float("cubic_coeff_a", -0.75)?),
            mode => {
                let found = format!("'{mode}'");
                return Err(Fault::argument("attribute 'mode'", found, "nearest, linear or cubic"));
            }
        };
        let exclude_outside = context.flag("exclude_outside", false)?;
        Ok(Self::Weighed(Filter { kernel, antialias, exclude_outside }))
    }
}

fn nearest(x: &Tensor, axes: &[Axis], coordinates: Coordinates, rounding: Rounding) -> Tensor {
    axes.iter().fold(x.clone(), |y, axis| {
        let places = (0..axis.to).map(|at| rounding.nearest(coordinates.origin(axis, at), axis.from));
        let places: Vec<usize> = places.collect();
        each!(&y, y => y.select(ndarray::Axis(axis.at), &places))
    })
}

/// Integers are rounded to the nearest and cut to their range, as ONNX's reference has them: the
/// specification does not say.
fn weighed(
    context: &Context,
    axes: &[Axis],
    coordinates: Coordinates,
    filter: Filter,
) -> Result<Tensor, Fault> {
    let x = context.input(0)?;
    if x.dtype == DType::Bool {
        return Err(Fault::DType {
            input: 0,
            found: x.dtype,
            wanted: "a number where 'mode' is not nearest",
        });
    }
    let mut y: Array<f64> = x.to_floats();
    for axis in axes {
        // Of a long axis, these are more than the pixels.
        context.room(&[axis.to, filter.most(axis)])?;
        let weights = |at: usize| filter.weights(axis, coordinates.origin(axis, at));
        let weights: Vec<Vec<(usize, f64)>> = (0..axis.to).map(weights).collect();
        let is_kept = axis.to == axis.from
            && weights.iter().enumerate().all(|(at, weights)| weights[..] == [(at, 1.0)]);
        if !is_kept {
            y = along(&y, axis.at, &weights)?.into_shared();
        }
    }
    Ok(match x.data {
        Data::Float(_) => Tensor::float(x.dtype, y.into_owned()),
        Data::Int(_) => Tensor::int(x.dtype, y.mapv(|y| integer(y, x.dtype))),
    })
}

fn integer(x: f64, dtype: DType) -> i128 {
    let (least, most) = int_range(dtype);
    (x.round_ties_even() as i128).clamp(least, most)
}

/// With the value in the place of all that comes from outside.
fn extrapolated(mut y: Tensor, axes: &[Axis], coordinates: Coordinates, value: f64) -> Tensor {
    for axis in axes {
        for at in (0..axis.to).filter(|&at| coordinates.is_outside(axis, at)) {
            match &mut y.data {
                Data::Float(y) => y.index_axis_mut(ndarray::Axis(axis.at), at).fill(value),
                Data::Int(array) => {
                    array.index_axis_mut(ndarray::Axis(axis.at), at).fill(integer(value, y.dtype));
                }
            }
        }
    }
    y
}

const ATTRIBUTES: &str = "coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value \
                          mode nearest_mode";
const SINCE_18: &str = "antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside \
                        extrapolation_value keep_aspect_ratio_policy mode nearest_mode";

pub(super) const OPS: &[Op] = &[
    Op::onnx("Resize", (3, 4), ATTRIBUTES, resize).until(12),
    Op::onnx("Resize", (1, 4), ATTRIBUTES, resize).since(13).until(17),
    Op::onnx("Resize", (1, 4), SINCE_18, resize).since(18),
];
