//! What ONNX Runtime's optimizers put into the graph of a BERT: its own domain, com.microsoft. There is no specification beyond its
//! documentation (ContribOperators.md).

use engine::DType;
use ndarray::{ArrayD, Axis, IxDyn};

use super::Op;
use super::activation::{gelu_erf, gelu_tanh, sigmoid};
use super::attention::{heads, join_heads, scores, split_heads};
use super::elementwise::unary;
use super::linear::{gemm, matmul};
use super::normalize::{plus, scaled, softmax, standardised, statistics};
use crate::context::{Context, Outputs, along, fold};
use crate::fault::Fault;
use crate::tensor::{Array, Data, Tensor, array, reshaped};

/// An activation of x + bias, where there is one.
fn biased(context: &Context, f: fn(f64) -> f64) -> Outputs {
    let x = context.floats(0)?.clone();
    let x = plus(context, x, context.optional_floats(1)?)?;
    Ok(vec![Tensor::float(context.input(0)?.dtype, x.mapv(f))])
}

fn quick_gelu(context: &Context) -> Outputs {
    let alpha = context.float("alpha", 1.702)?;
    unary(context, |x| x * sigmoid(alpha * x))
}

/// A factor of FusedMatMul. `transBatch` moves the first axis behind those of the batch; `trans` then swaps the last two.
fn factor(context: &Context, input: usize, trans: &str, trans_batch: &str) -> Result<Array<f64>, Fault> {
    let x = context.floats(input)?;
    let rank = x.ndim();
    let mut order: Vec<usize> = (0..rank).collect();
    if context.flag(trans_batch, false)? && rank > 2 {
        order[..rank - 1].rotate_left(1);
    }
    if context.flag(trans, false)? && rank > 1 {
        order.swap(rank - 1, rank - 2);
    }
    Ok(x.view().permuted_axes(IxDyn(&order)).to_owned().into_shared())
}

/// α A' B'
fn fused_mat_mul(context: &Context) -> Outputs {
    let dtype = context.same_dtype(0, 1)?;
    let alpha = context.float("alpha", 1.0)?;
    let (a, b) = (factor(context, 0, "transA", "transBatchA")?, factor(context, 1, "transB", "transBatchB")?);
    Ok(vec![Tensor::float(dtype, matmul(context, &a, &b)?.mapv_into(|x| alpha * x))])
}

/// An activation of Gemm.
fn fused_gemm(context: &Context) -> Outputs {
    let product = gemm(context)?;
    let alpha = context.float("activation_alpha", 0.01)?;
    let activation: Box<dyn Fn(f64) -> f64> = match context.string("activation", "")? {
        "" => Box::new(|x| x),
        "Relu" => Box::new(|x| if x < 0.0 { 0.0 } else { x }),
        "Tanh" => Box::new(libm::tanh),
        "Sigmoid" => Box::new(sigmoid),
        "LeakyRelu" => Box::new(move |x| if x < 0.0 { alpha * x } else { x }),
        other => {
            let found = format!("'{other}'");
            return Err(Fault::argument("attribute 'activation'", found, "Relu, Tanh, Sigmoid or LeakyRelu"));
        }
    };
    let activated = product.into_iter().map(|x| match &x.data {
        Data::Float(array) => Ok(Tensor::float(x.dtype, array.mapv(&activation))),
        Data::Int(_) => Err(Fault::DType { input: 0, found: x.dtype, wanted: "a float" }),
    });
    activated.collect()
}

/// input + skip, and bias where there is one. The skip may lack the batch.
fn skipped(context: &Context, bias: usize) -> Result<Array<f64>, Fault> {
    let x = context.floats(0)?.clone();
    let x = plus(context, x, Some(context.floats(1)?))?;
    plus(context, x, context.optional_floats(bias)?)
}

fn last_axis(x: &Array<f64>) -> Result<[usize; 1], Fault> {
    let wrong = || Fault::shape("input 0", &[], "of rank 1 or more");
    Ok([x.ndim().checked_sub(1).ok_or_else(wrong)?])
}

fn skip_layer_normalization(context: &Context) -> Outputs {
    let sum = skipped(context, 4)?;
    let epsilon = context.float("epsilon", 1e-12)?;
    let axes = last_axis(&sum)?;
    let y = standardised(&sum, &axes, epsilon);
    let y = scaled(context, y, Some(context.floats(2)?), context.optional_floats(3)?)?;
    let (mean, inverse) = statistics(&sum, &axes, epsilon)?;
    let dtype = context.input(0)?.dtype;
    let tensor = |dtype, x| Tensor { dtype, data: Data::Float(x) };
    Ok(vec![tensor(dtype, y), tensor(DType::F32, mean), tensor(DType::F32, inverse), tensor(dtype, sum)])
}

/// A layer normalisation of the sum of three embeddings, and how many tokens of each row count.
fn embed_layer_normalization(context: &Context) -> Outputs {
    let ids = context.ints(0)?;
    let &[batch, sequence] = ids.shape() else {
        return Err(Fault::shape("the ids", ids.shape(), "[batch, sequence]"));
    };
    let mut sum = looked_up(context, ids, 2)?;
    let positions = match context.optional(8) {
        Some(_) => context.ints(8)?.clone(),
        None => ArrayD::from_shape_fn(IxDyn(&[1, sequence]), |at| at[1] as i128).into_shared(),
    };
    sum = plus(context, sum, Some(&looked_up(context, &positions, 3)?))?;
    if context.optional(1).is_some() {
        sum = plus(context, sum, Some(&looked_up(context, context.ints(1)?, 4)?))?;
    }
    let y = standardised(&sum, &last_axis(&sum)?, context.float("epsilon", 1e-12)?);
    let y = scaled(context, y, Some(context.floats(5)?), Some(context.floats(6)?))?;
    let counts = match context.optional(7) {
        Some(_) => {
            let mask = context.ints(7)?;
            if mask.shape() != ids.shape() {
                let wanted = format!("{:?}", ids.shape());
                return Err(Fault::shape("the mask", mask.shape(), wanted));
            }
            fold(mask, &[1], |row| row.iter().filter(|bit| **bit == 1).count() as i128)?
        }
        None => ArrayD::zeros(IxDyn(&[batch])),
    };
    let dtype = context.input(2)?.dtype;
    Ok(vec![
        Tensor { dtype, data: Data::Float(y) },
        Tensor::int(DType::I32, counts),
        Tensor { dtype, data: Data::Float(sum) },
    ])
}

/// The rows of a table. Negative ids are no ids.
fn looked_up(context: &Context, ids: &Array<i128>, table: usize) -> Result<Array<f64>, Fault> {
    let table = context.floats(table)?;
    let &[rows, width] = table.shape() else {
        return Err(Fault::shape("an embedding", table.shape(), "[rows, width]"));
    };
    let places = ids
        .iter()
        .map(|&id| {
            usize::try_from(id).ok().filter(|&id| id < rows).ok_or(Fault::Index { index: id, size: rows })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let shape = [ids.shape(), &[width]].concat();
    context.room(&shape)?;
    Ok(reshaped(&table.select(Axis(0), &places).into_shared(), &shape)?.into_shared())
}

/// What is common to Attention and MultiHeadAttention: q, k, v are \[batch, heads, length, size\].
struct Heads {
    q: Array<f64>,
    k: Array<f64>,
    v: Array<f64>,
    /// The inputs that hold the mask and the bias.
    mask: usize,
    bias: usize,
}

/// softmax(scale · Q Kᵀ + mask + bias) V, heads joined. Unlike ONNX's own operator, a key that is masked gets `mask_filter_value` added, −10000
/// by default, so that a row in which all are masked still attends.
///
/// The scores, and their sums with mask and bias, are f32 as they are in ONNX Runtime (1.31 on the
/// CPU): where all keys of a row are masked by −10⁹, the sum has swallowed the scores, and what is
/// left is the mean of the values.
fn attend(context: &Context, given: &Heads) -> Result<Array<f64>, Fault> {
    let (q, k, v) = (given.q.shape(), given.k.shape(), given.v.shape());
    let wrong = || {
        let wanted = format!("[batch, heads, sequence, size], as the keys {k:?} and values {v:?} are");
        Fault::shape("the query by head", q, wanted)
    };
    let (&[batch, heads, queries, size], &[_, _, keys, _]) = (q, k) else { return Err(wrong()) };
    if k != [batch, heads, keys, size] || v.get(..3) != Some(&[batch, heads, keys]) {
        return Err(wrong());
    }
    let scale = match context.float("scale", 0.0)? {
        0.0 => 1.0 / (size as f64).sqrt(),
        scale => scale,
    };
    let in_f32 = |x: Array<f64>| x.into_owned().mapv_into(|x| context.round(x, DType::F32)).into_shared();
    let mut scores = in_f32(scores(context, &given.q, &given.k)?.mapv(|x| x * scale).into_shared());
    if context.optional(given.mask).is_some() {
        let filter = context.float("mask_filter_value", -10000.0)?;
        let visible = visible(context, given.mask, [batch, queries, keys])?;
        let mask = visible.mapv(|bit| if bit { 0.0 } else { filter }).into_shared();
        scores = in_f32(plus(context, scores, Some(&mask))?);
    }
    scores = in_f32(plus(context, scores, context.optional_floats(given.bias)?)?);
    let mut scores = scores.into_owned();
    if context.flag("unidirectional", false)? {
        for (at, score) in scores.indexed_iter_mut() {
            if at[3] > at[2] {
                *score = f64::NEG_INFINITY;
            }
        }
    }
    let weights = along(&scores.into_shared(), &[3], softmax).into_shared();
    join_heads(&matmul(context, &weights, &given.v)?.into_shared())
}

/// A mask as \[batch, 1, queries or 1, keys\]: given as such bits, or as where the keys of each row end, and perhaps begin.
fn visible(
    context: &Context,
    input: usize,
    [batch, queries, keys]: [usize; 3],
) -> Result<ArrayD<bool>, Fault> {
    let mask = context.ints(input)?;
    let at_key = |of: &dyn Fn(usize, usize) -> bool| {
        ArrayD::from_shape_fn(IxDyn(&[batch, 1, 1, keys]), |at| of(at[0], at[3]))
    };
    let wrong = || {
        let wanted = format!("[{batch}], [{}], [{batch}, {keys}] or [{batch}, {queries}, {keys}]", 2 * batch);
        Fault::shape("the mask", mask.shape(), wanted)
    };
    match *mask.shape() {
        [rows] if rows == batch => Ok(at_key(&|row, key| (key as i128) < mask[[row].as_slice()])),
        [rows] if rows == 2 * batch => Ok(at_key(&|row, key| {
            let (end, start) = (mask[[row].as_slice()], mask[[batch + row].as_slice()]);
            (start..end).contains(&(key as i128))
        })),
        [rows, columns] if (rows, columns) == (batch, keys) => {
            Ok(at_key(&|row, key| mask[[row, key].as_slice()] > 0))
        }
        [rows, columns, deep] if (rows, columns, deep) == (batch, queries, keys) => {
            let shape = [batch, 1, queries, keys];
            Ok(ArrayD::from_shape_fn(IxDyn(&shape), |at| mask[[at[0], at[2], at[3]].as_slice()] > 0))
        }
        _ => Err(wrong()),
    }
}

/// Self-attention from one matrix that holds the weights of query, key and value side by side.
fn attention(context: &Context) -> Outputs {
    if context.optional(4).is_some() || context.optional(6).is_some() || context.wants(1) {
        return Err(Fault::Unsupported("attention with a past"));
    }
    if context.flag("do_rotary", false)? || context.flag("past_present_share_buffer", false)? {
        return Err(Fault::Unsupported("attention with rotary embeddings or a shared buffer"));
    }
    let (x, weights) = (context.floats(0)?, context.floats(1)?);
    if x.ndim() != 3 || weights.ndim() != 2 {
        return Err(Fault::shape("the input", x.shape(), "[batch, sequence, hidden]"));
    }
    let projected = matmul(context, x, weights)?.into_shared();
    let projected = plus(context, projected, context.optional_floats(2)?)?;
    let width = projected.shape()[2];
    let sizes = match context.node.ints("qkv_hidden_sizes")? {
        Some(sizes) => super::shape::dims(sizes)?,
        None => vec![width / 3; 3],
    };
    let sum = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
    let (3, true) = (sizes.len(), sum == Some(width)) else {
        let wanted = format!("{sizes:?} side by side");
        return Err(Fault::shape("the weights", weights.shape(), wanted));
    };
    if sizes[0] != sizes[1] {
        return Err(Fault::Unsupported("a query of another size than the key's"));
    }
    let heads = heads(context, "num_heads")?;
    let part = |from: usize, size: usize| {
        let columns = projected.slice_axis(Axis(2), ndarray::Slice::from(from..from + size));
        split_heads(&columns.to_owned().into_shared(), heads)
    };
    let (q, k) = (part(0, sizes[0])?, part(sizes[0], sizes[1])?);
    let v = part(sizes[0] + sizes[1], sizes[2])?;
    let y = attend(context, &Heads { q, k, v, mask: 3, bias: 5 })?;
    Ok(vec![Tensor { dtype: context.input(0)?.dtype, data: Data::Float(y) }])
}

/// Attention of a query to keys and values that are projected already; these may also be given by head.
fn multi_head_attention(context: &Context) -> Outputs {
    if (6..10).any(|input| context.optional(input).is_some()) || context.wants(1) {
        return Err(Fault::Unsupported("attention with a past"));
    }
    let dtype = context.input(0)?.dtype;
    let heads = heads(context, "num_heads")?;
    let biases = context.optional_floats(3)?.map(|bias| bias.iter().copied().collect::<Vec<_>>());
    let mut used = 0;
    let mut part = |input: usize| -> Result<Array<f64>, Fault> {
        let x = context.floats(input)?;
        if x.ndim() == 4 && input > 0 && biases.is_none() {
            return Ok(x.clone());
        }
        let &[_, _, width] = x.shape() else {
            return Err(Fault::Unsupported("packed queries, keys or values, or such by head with a bias"));
        };
        let mut x = x.clone();
        if let Some(biases) = &biases {
            let bias = biases.get(used..used + width).ok_or(Fault::MissingInput(3))?;
            used += width;
            x = plus(context, x, Some(&array(&[width], bias.to_vec())?.into_shared()))?;
        }
        split_heads(&x, heads)
    };
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    if biases.is_some_and(|biases| biases.len() != used) {
        return Err(Fault::Unsupported("a bias of another size than query, key and value together"));
    }
    let y = attend(context, &Heads { q, k, v, mask: 4, bias: 5 })?;
    Ok(vec![Tensor { dtype, data: Data::Float(y) }])
}

const ATTENTION: &str =
    "num_heads unidirectional qkv_hidden_sizes mask_filter_value scale do_rotary past_present_share_buffer";

pub(super) const OPS: &[Op] = &[
    Op::microsoft("Attention", (2, 7), ATTENTION, attention).outputs(2),
    Op::microsoft("BiasGelu", (2, 2), "", |c| biased(c, gelu_erf)),
    Op::microsoft("EmbedLayerNormalization", (7, 9), "epsilon mask_index_type", embed_layer_normalization)
        .outputs(3),
    Op::microsoft("FastGelu", (1, 2), "", |c| biased(c, gelu_tanh)),
    Op::microsoft(
        "FusedGemm",
        (2, 3),
        "alpha beta transA transB activation activation_alpha activation_beta activation_gamma",
        fused_gemm,
    ),
    Op::microsoft("FusedMatMul", (2, 2), "alpha transA transB transBatchA transBatchB", fused_mat_mul),
    Op::microsoft("Gelu", (1, 1), "", |c| biased(c, gelu_erf)),
    Op::microsoft(
        "MultiHeadAttention",
        (3, 10),
        "num_heads mask_filter_value scale unidirectional",
        multi_head_attention,
    )
    .outputs(3),
    Op::microsoft("QuickGelu", (1, 1), "alpha", quick_gelu),
    Op::microsoft("SkipLayerNormalization", (3, 5), "epsilon", skip_layer_normalization).outputs(4),
];
