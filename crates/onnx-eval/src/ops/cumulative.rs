//! Running sums and products.

use super::Op;
use crate::context::{Context, Outputs, along, axis};
use crate::fault::Fault;
use crate::tensor::{Data, Tensor};

/// Each element becomes what `f` makes of those before it, and of itself unless `exclusive`; from the back where `reverse`.
fn running<T: Copy>(row: &mut [T], exclusive: bool, reverse: bool, none: T, f: impl Fn(T, T) -> T) {
    let mut total = none;
    for step in 0..row.len() {
        let at = if reverse { row.len() - 1 - step } else { step };
        let next = f(total, row[at]);
        row[at] = if exclusive { total } else { next };
        total = next;
    }
}

fn cumulative(
    context: &Context,
    float: (f64, fn(f64, f64) -> f64),
    int: (i128, fn(i128, i128) -> i128),
) -> Outputs {
    let x = context.input(0)?;
    let at = *context.scalar("the axis", context.ints(1)?)?;
    let at = axis(i64::try_from(at).map_err(|_| Fault::Axis { axis: i64::MAX, rank: x.rank() })?, x.rank())?;
    let (exclusive, reverse) = (context.flag("exclusive", false)?, context.flag("reverse", false)?);
    Ok(vec![match &x.data {
        Data::Float(array) => {
            // Every step is a rounding.
            let step = |a, b| context.round(float.1(a, b), x.dtype);
            let row = |row: &mut [f64]| running(row, exclusive, reverse, float.0, step);
            Tensor::float(x.dtype, along(array, &[at], row))
        }
        Data::Int(_) => {
            let row = |row: &mut [i128]| running(row, exclusive, reverse, int.0, int.1);
            Tensor::int(x.dtype, along(context.ints(0)?, &[at], row))
        }
    }])
}

pub(super) const OPS: &[Op] = &[
    Op::onnx("CumProd", (2, 2), "exclusive reverse", |c| {
        cumulative(c, (1.0, |a, b| a * b), (1, i128::wrapping_mul))
    })
    .since(26),
    Op::onnx("CumSum", (2, 2), "exclusive reverse", |c| {
        cumulative(c, (0.0, |a, b| a + b), (0, i128::wrapping_add))
    }),
];
