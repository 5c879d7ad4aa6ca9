//! Attention: softmax(scale · Q Kᵀ + bias) V, for each head.
//!
//! **A query that may look nowhere** gives zeros where the bias of all its keys is −∞: a bool mask
//! that is false throughout, or a float one of −∞. The specification says so in words ("a
//! fully-masked query row produces a zero output row, not NaN", an erratum of onnx 1.23 that holds
//! from opset 23 on), and in the function body: `Where(ReduceMax(bias) == −∞, 0, Softmax(scores +
//! bias))`. It looks at the bias, not at the scores, and at nothing but −∞: a float mask is "added
//! to the attention scores rather than disabling positions". So a row whose keys are all masked by
//! f32's least number is the mean of the values, as by every other finite number that swallows the
//! scores. ONNX Runtime 1.31 takes that number for −∞ on the CPU, and gives zeros; the function
//! body, run by the same ONNX Runtime, gives the mean.
//!
//! The function body computes in the dtype of the queries, so the scores and their sums with the
//! bias are rounded to it.

use engine::DType;
use ndarray::{ArrayD, Axis, IxDyn};

use super::Op;
use super::linear::matmul;
use super::normalize::softmax;
use super::shape::concatenate;
use crate::context::{Context, Outputs, along};
use crate::fault::Fault;
use crate::tensor::{Array, Data, Tensor, reshaped};

/// \[batch, sequence, heads · size\] as \[batch, heads, sequence, size\].
pub(super) fn split_heads<T: Clone>(x: &Array<T>, heads: usize) -> Result<Array<T>, Fault> {
    let &[batch, sequence, hidden] = x.shape() else { return Err(not_divided(x.shape(), heads)) };
    if heads == 0 || hidden % heads != 0 {
        return Err(not_divided(x.shape(), heads));
    }
    let split = reshaped(x, &[batch, sequence, heads, hidden / heads])?;
    Ok(split.permuted_axes(IxDyn(&[0, 2, 1, 3])).into_shared())
}

fn not_divided(shape: &[usize], heads: usize) -> Fault {
    let wanted = format!("[batch, sequence, {heads} heads · size]");
    Fault::shape("an input of the attention", shape, wanted)
}

/// \[batch, heads, sequence, size\] as \[batch, sequence, heads · size\].
pub(super) fn join_heads(x: &Array<f64>) -> Result<Array<f64>, Fault> {
    let &[batch, heads, sequence, size] = x.shape() else { return Err(not_divided(x.shape(), 0)) };
    let turned = x.view().permuted_axes(IxDyn(&[0, 2, 1, 3])).to_owned().into_shared();
    Ok(reshaped(&turned, &[batch, sequence, heads * size])?.into_shared())
}

/// A head count that is an attribute.
pub(super) fn heads(context: &Context, name: &'static str) -> Result<usize, Fault> {
    let heads = context.node.int(name)?.ok_or(Fault::MissingAttribute(name))?;
    usize::try_from(heads)
        .ok()
        .filter(|&heads| heads > 0)
        .ok_or_else(|| Fault::argument("the number of heads", heads, "positive"))
}

/// Each row's softmax; a row whose bias is −∞ throughout, where nothing may be attended to, becomes
/// zeros.
fn masked_softmax(scores: &Array<f64>, bias: &ArrayD<f64>) -> Array<f64> {
    let mut weights = along(scores, &[scores.ndim() - 1], softmax);
    let last = Axis(bias.ndim() - 1);
    for (mut row, bias) in weights.lanes_mut(last).into_iter().zip(bias.lanes(last)) {
        if bias.iter().all(|&x| x == f64::NEG_INFINITY) {
            row.fill(0.0);
        }
    }
    weights.into_shared()
}

/// Q K' for each head.
pub(super) fn scores(context: &Context, q: &Array<f64>, k: &Array<f64>) -> Result<Array<f64>, Fault> {
    let turned = k.view().permuted_axes(IxDyn(&[0, 1, 3, 2])).to_owned().into_shared();
    Ok(matmul(context, q, &turned)?.into_shared())
}

/// Each head of keys or values, `times` in a row: grouped queries share one.
fn repeat_heads(x: &Array<f64>, times: usize) -> Array<f64> {
    let mut shape = x.shape().to_vec();
    shape[1] *= times;
    let source = |mut at: IxDyn| {
        at[1] /= times;
        x[&at]
    };
    ArrayD::from_shape_fn(IxDyn(&shape), source).into_shared()
}

/// What may be attended to beside the mask: causality, windows, and how many keys are real.
struct Visible {
    causal: bool,
    left: Option<i64>,
    right: Option<i64>,
    /// The place of the first query among the keys, for each batch row.
    offsets: Vec<i64>,
    /// How many keys are real, for each batch row.
    lengths: Option<Vec<i64>>,
}

impl Visible {
    /// What the attributes say, and input 6. `past` keys stand before the new ones.
    fn read(context: &Context, [batch, queries, keys]: [usize; 3], past: usize) -> Result<Self, Fault> {
        let lengths = context.list(6)?;
        let in_range = |&real: &i64| usize::try_from(real).is_ok_and(|real| real <= keys);
        if lengths
            .as_ref()
            .is_some_and(|lengths| lengths.len() != batch || past > 0 || !lengths.iter().all(in_range))
        {
            let found = format!("{lengths:?}");
            return Err(Fault::argument(
                "nonpad_kv_seqlen",
                found,
                "one length within the keys for each batch row, without a past",
            ));
        }
        let offset = |row: usize| match &lengths {
            Some(lengths) => lengths[row].saturating_sub(queries as i64),
            None => past as i64,
        };
        Ok(Self {
            causal: context.flag("is_causal", false)?,
            left: window(context, "left_window_size")?,
            right: window(context, "right_window_size")?,
            offsets: (0..batch).map(offset).collect(),
            lengths,
        })
    }

    fn hides(&self, batch: usize, query: usize, key: usize) -> bool {
        let place = query as i64 + self.offsets.get(batch).copied().unwrap_or_default();
        let key = key as i64;
        (self.causal && key > place)
            || self.left.is_some_and(|left| key < place.saturating_sub(left))
            || self.right.is_some_and(|right| key > place.saturating_add(right))
            || self
                .lengths
                .as_ref()
                .and_then(|lengths| lengths.get(batch))
                .is_some_and(|&length| key >= length)
    }
}

/// A window that is −1 where there is none.
fn window(context: &Context, name: &str) -> Result<Option<i64>, Fault> {
    Ok(Some(context.int(name, -1)?).filter(|&size| size >= 0))
}

fn attention(context: &Context) -> Outputs {
    let dtype = context.same_dtype(0, 1)?;
    let rank = context.input(0)?.rank();
    let part = |input: usize, name: &'static str| -> Result<Array<f64>, Fault> {
        let x = context.floats(input)?;
        match x.ndim() {
            4 if rank == 4 => Ok(x.clone()),
            3 if rank == 3 => split_heads(x, heads(context, name)?),
            _ => Err(not_divided(x.shape(), 0)),
        }
    };
    let (q, mut k, mut v) = (part(0, "q_num_heads")?, part(1, "kv_num_heads")?, part(2, "kv_num_heads")?);
    let mut past = 0;
    if let (Some(past_k), Some(past_v)) = (context.optional_floats(4)?, context.optional_floats(5)?) {
        past = past_k.shape().get(2).copied().unwrap_or(0);
        k = joined(dtype, past_k, &k)?;
        v = joined(dtype, past_v, &v)?;
    } else if context.optional(4).is_some() || context.optional(5).is_some() {
        return Err(Fault::MissingInput(if context.optional(4).is_some() { 5 } else { 4 }));
    }
    let (
        &[batch, q_heads, q_length, size],
        &[k_batch, k_heads, length, k_size],
        &[v_batch, v_heads, v_length, _],
    ) = (q.shape(), k.shape(), v.shape())
    else {
        return Err(not_divided(q.shape(), 0));
    };
    let fits = k_size == size
        && (k_batch, v_batch) == (batch, batch)
        && (v_heads, v_length) == (k_heads, length)
        && k_heads > 0
        && q_heads % k_heads == 0;
    if !fits {
        let wanted = format!("what the keys {:?} and values {:?} fit", k.shape(), v.shape());
        return Err(Fault::shape("the query", q.shape(), wanted));
    }
    let (all_k, all_v) = (repeat_heads(&k, q_heads / k_heads), repeat_heads(&v, q_heads / k_heads));
    let scale = context.optional_float("scale")?.unwrap_or(1.0 / (size as f64).sqrt());
    let rounded = |x: Array<f64>| x.into_owned().mapv_into(|x| context.round(x, dtype)).into_shared();
    let raw = rounded(scores(context, &q, &all_k)?.mapv(|x| x * scale).into_shared());
    let softcap = context.float("softcap", 0.0)?;
    let capped = if softcap == 0.0 {
        raw.clone()
    } else {
        rounded(raw.mapv(|x| softcap * libm::tanh(x / softcap)).into_shared())
    };
    let visible = Visible::read(context, [batch, q_length, length], past)?;
    let mut added = match context.optional(3) {
        Some(mask) => context.expand(&bias(mask, length)?, capped.shape())?.into_owned(),
        None => ArrayD::zeros(IxDyn(capped.shape())),
    };
    for (at, added) in added.indexed_iter_mut() {
        if visible.hides(at[0], at[2], at[3]) {
            *added = f64::NEG_INFINITY;
        }
    }
    let biased = rounded((&capped + &added).into_shared());
    let weights = masked_softmax(&biased, &added);
    let y = matmul(context, &weights, &all_v)?.into_shared();
    let y = if rank == 3 { join_heads(&y)? } else { y };
    let shown = match context.int("qk_matmul_output_mode", 0)? {
        0 => raw,
        1 => capped,
        2 => biased,
        3 => weights,
        mode => {
            return Err(Fault::argument("attribute 'qk_matmul_output_mode'", mode, "0, 1, 2 or 3"));
        }
    };
    Ok([y, k, v, shown].into_iter().map(|x| Tensor { dtype, data: Data::Float(x) }).collect())
}

/// What is added to the scores: −∞ where a bool is false. A mask that is shorter than the keys hides the rest.
fn bias(mask: &Tensor, length: usize) -> Result<Array<f64>, Fault> {
    let mask = match &mask.data {
        Data::Float(mask) => mask.clone(),
        Data::Int(bools) if mask.dtype == DType::Bool => {
            bools.mapv(|bit| if bit != 0 { 0.0 } else { f64::NEG_INFINITY }).into_shared()
        }
        Data::Int(_) => {
            return Err(Fault::DType { input: 3, found: mask.dtype, wanted: "bool or a float" });
        }
    };
    let Some(last) = mask.ndim().checked_sub(1).filter(|&last| (2..length).contains(&mask.shape()[last]))
    else {
        return Ok(mask);
    };
    let mut shape = mask.shape().to_vec();
    let given = shape[last];
    shape[last] = length;
    let padded = |at: IxDyn| if at[last] < given { mask[&at] } else { f64::NEG_INFINITY };
    Ok(ArrayD::from_shape_fn(IxDyn(&shape), padded).into_shared())
}

/// Keys or values after those of the past.
fn joined(dtype: DType, past: &Array<f64>, new: &Array<f64>) -> Result<Array<f64>, Fault> {
    let part = |x: &Array<f64>| Tensor { dtype, data: Data::Float(x.clone()) };
    if past.ndim() != 4 {
        return Err(not_divided(past.shape(), 0));
    }
    match concatenate(dtype, &[&part(past), &part(new)], 2)?.data {
        Data::Float(x) => Ok(x),
        Data::Int(_) => Err(Fault::DType { input: 4, found: dtype, wanted: "a float" }),
    }
}

const ATTRIBUTES: &str =
    "is_causal kv_num_heads q_num_heads qk_matmul_output_mode scale softcap softmax_precision";
const WITH_WINDOWS: &str = "is_causal kv_num_heads q_num_heads qk_matmul_output_mode scale softcap softmax_precision \
                            left_window_size right_window_size";

pub(super) const OPS: &[Op] = &[
    Op::onnx("Attention", (3, 6), ATTRIBUTES, attention).outputs(4).since(23).until(23),
    Op::onnx("Attention", (3, 7), ATTRIBUTES, attention).outputs(4).since(24).until(24),
    Op::onnx("Attention", (3, 7), WITH_WINDOWS, attention).outputs(4).since(25),
];
