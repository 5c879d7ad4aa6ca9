//! Rotary position embeddings: each pair of channels is turned by an angle that grows with the token's position (Su et al., RoFormer, 2021).

use ndarray::{ArrayD, Axis, IxDyn};

use super::Op;
use super::attention::{heads, join_heads, split_heads};
use crate::context::{Context, Outputs, index};
use crate::fault::Fault;
use crate::tensor::{Array, Data, Tensor, array};

/// (a, b) becomes (a cos − b sin, a sin + b cos). A pair is two neighbours if `interleaved`, else channel i of either half. What lies behind the
/// first `rotary_embedding_dim` channels stays.
fn rotary_embedding(context: &Context) -> Outputs {
    let dtype = context.same_dtype(0, 1)?;
    context.same_dtype(0, 2)?;
    let given = context.floats(0)?;
    let joined = given.ndim() == 3;
    let x = if joined { split_heads(given, heads(context, "num_heads")?)? } else { given.clone() };
    let &[batch, _, sequence, size] = x.shape() else {
        return Err(Fault::shape("input 0", x.shape(), "of rank 3 or 4"));
    };
    let asked = context.int("rotary_embedding_dim", 0)?;
    let turned = if asked == 0 { Some(size) } else { usize::try_from(asked).ok() };
    let turned = turned.filter(|&dim| dim <= size && dim % 2 == 0).ok_or_else(|| {
        let found = format!("{asked} of {size}");
        Fault::argument("the number of channels that are turned", found, "even, and not more than there are")
    })?;
    let half = turned / 2;
    let cos = angles(context, 1, [batch, sequence, half])?;
    let sin = angles(context, 2, [batch, sequence, half])?;
    let interleaved = context.flag("interleaved", false)?;
    let y = ArrayD::from_shape_fn(IxDyn(x.shape()), |at| {
        let (b, head, token, channel) = (at[0], at[1], at[2], at[3]);
        if channel >= turned {
            return x[&at];
        }
        let (pair, second) =
            if interleaved { (channel / 2, channel % 2 == 1) } else { (channel % half, channel >= half) };
        let other = match (interleaved, second) {
            (true, _) => channel ^ 1,
            (false, false) => channel + half,
            (false, true) => channel - half,
        };
        let (own, other) = (x[&at], x[[b, head, token, other].as_slice()]);
        let (cos, sin) = (cos[[b, token, pair].as_slice()], sin[[b, token, pair].as_slice()]);
        if second { other * sin + own * cos } else { own * cos - other * sin }
    });
    let y = if joined { join_heads(&y.into_shared())? } else { y.into_shared() };
    Ok(vec![Tensor { dtype, data: Data::Float(y) }])
}

/// A cache's row for each token: the one at its position, or, without positions, its own.
fn angles(context: &Context, input: usize, shape: [usize; 3]) -> Result<Array<f64>, Fault> {
    let cache = context.floats(input)?;
    let [batch, sequence, half] = shape;
    let wrong = |wanted: String| Fault::shape("a cache", cache.shape(), wanted);
    if context.optional(3).is_none() {
        return if cache.shape() == shape { Ok(cache.clone()) } else { Err(wrong(format!("{shape:?}"))) };
    }
    let positions = context.ints(3)?;
    if positions.shape() != [batch, sequence] {
        let wanted = format!("[{batch}, {sequence}]");
        return Err(Fault::shape("the positions", positions.shape(), wanted));
    }
    let &[rows, _] = cache.shape() else { return Err(wrong(format!("[positions, {half}]"))) };
    if cache.shape()[1] != half {
        return Err(wrong(format!("[positions, {half}]")));
    }
    let mut elements = Vec::new();
    for &position in positions {
        elements.extend(cache.index_axis(Axis(0), index(position, rows)?));
    }
    Ok(array(&shape, elements)?.into_shared())
}

pub(super) const OPS: &[Op] =
    &[Op::onnx("RotaryEmbedding", (3, 4), "interleaved num_heads rotary_embedding_dim", rotary_embedding)
        .since(23)];
