//! The model, module by module; beside it, `candle-bert` reads the same.

use candle_bert::{BertConfig, Task};
use engine::{DType, Dim};
use half::f16;
use onnx_graph::Attribute;

use crate::builder::{Builder, Name};
use crate::functions::{activation, dense, layer_norm};
use crate::{ExportError, FloatType, Options, Shape, heads};

/// The inputs, all i64 `[rows, sequence]`.
struct Inputs {
    input_ids: Name,
    attention_mask: Name,
    token_type_ids: Name,
}

pub(crate) fn bert(b: &mut Builder, config: &BertConfig, options: &Options) -> Result<(), ExportError> {
    let axes = options.task.input_axes();
    let axes: Vec<Dim> = match options.shape.sizes() {
        None => axes.iter().map(|axis| Dim::Symbol((*axis).into())).collect(),
        Some(sizes) => sizes.into_iter().map(Dim::Fixed).collect(),
    };
    let mut input = |name| b.input(name, DType::I64, &axes);
    let given = Inputs {
        input_ids: input("input_ids"),
        attention_mask: input("attention_mask"),
        token_type_ids: input("token_type_ids"),
    };
    let inputs = match options.task {
        Task::MultipleChoice => Inputs {
            input_ids: rows(b, "embeddings", &given.input_ids),
            attention_mask: rows(b, "encoder", &given.attention_mask),
            token_type_ids: rows(b, "embeddings", &given.token_type_ids),
        },
        _ => given,
    };

    let mut state = embeddings(b, config, &inputs, options.shape)?;
    let mask = additive_mask(b, &inputs.attention_mask);
    for n in 0..config.num_hidden_layers {
        state = layer(b, config, &format!("encoder.layer.{n}"), &state, &mask)?;
    }
    heads::head(b, config, options, &axes, &state)
}

/// Choices as rows of their own: `[batch · choices, sequence]`.
fn rows(b: &mut Builder, module: &str, input: &Name) -> Name {
    b.node_with(module, "Flatten", &[input], [("axis", Attribute::Int(2))])
}

/// LayerNorm(word[id] + token_type[type] + position[i])
fn embeddings(
    b: &mut Builder,
    config: &BertConfig,
    inputs: &Inputs,
    shape: Shape,
) -> Result<Name, ExportError> {
    let words = lookup(b, "embeddings.word_embeddings", &inputs.input_ids)?;
    let types = lookup(b, "embeddings.token_type_embeddings", &inputs.token_type_ids)?;
    let positions = positions(b, "embeddings.position_embeddings", &inputs.input_ids, shape)?;
    let sum = b.node("embeddings", "Add", &[&words, &types]);
    let sum = b.node("embeddings", "Add", &[&sum, &positions]);
    layer_norm(b, "embeddings.LayerNorm", &sum, config.hidden_size, config.layer_norm_eps)
}

fn lookup(b: &mut Builder, module: &str, ids: &Name) -> Result<Name, ExportError> {
    let table = b.weight(&format!("{module}.weight"))?;
    Ok(b.node(module, "Gather", &[&table, ids]))
}

/// The first rows of the table, one for each token: `[sequence, hidden]`.
fn positions(b: &mut Builder, module: &str, ids: &Name, shape: Shape) -> Result<Name, ExportError> {
    let table = b.weight(&format!("{module}.weight"))?;
    let (zero, one) = (b.ints(&[0]), b.ints(&[1]));
    let length = match shape {
        Shape::Dynamic => {
            let shape = b.node(module, "Shape", &[ids]);
            b.node(module, "Gather", &[&shape, &one])
        }
        // It is one of the table's rows at most, and so no larger than a tensor may be.
        Shape::Static { sequence, .. } | Shape::StaticChoices { sequence, .. } => b.ints(&[sequence as i64]),
    };
    Ok(b.node(module, "Slice", &[&table, &zero, &length, &zero]))
}

/// `[batch, 1, 1, sequence]`: what is added to the scores, 0 for a token and [`lowest`] for padding.
///
fn additive_mask(b: &mut Builder, mask: &Name) -> Name {
    let module = "encoder";
    let (one, two) = (b.ints(&[1]), b.ints(&[2]));
    // One axis at a time: given both, candle-onnx adds the second in the wrong place.
    let mask = b.node(module, "Unsqueeze", &[mask, &one]);
    let mask = b.node(module, "Unsqueeze", &[&mask, &two]);
    let mask = b.cast(module, &mask, b.dtype);
    let (one, lowest) = (b.scalar("one", 1.0), b.scalar("lowest", lowest(b.dtype)));
    let padding = b.node(module, "Sub", &[&one, &mask]);
    b.node(module, "Mul", &[&padding, &lowest])
}

/// What is added to the scores of padding. It is finite, since in a row without any real token −∞ would make NaN.
///
/// A score disappears beside the lowest f32: in such a row all are equal then, and attention is uniform. f16 has numbers so few apart from its lowest that a score of −16 would be −∞ beside
/// it; half of it is as good, as exp(−32752) is 0 in f64, too, and leaves scores room.
fn lowest(dtype: FloatType) -> f64 {
    match dtype {
        FloatType::F32 => f32::MIN.into(),
        FloatType::F16 => f64::from(f16::MIN) / 2.0,
    }
}

fn layer(
    b: &mut Builder,
    config: &BertConfig,
    module: &str,
    hidden: &Name,
    mask: &Name,
) -> Result<Name, ExportError> {
    let context = self_attention(b, config, &format!("{module}.attention.self"), hidden, mask)?;
    let attended = sublayer_output(b, config, &format!("{module}.attention.output"), &context, hidden)?;
    let intermediate = format!("{module}.intermediate");
    let wide = dense(b, &format!("{intermediate}.dense"), &attended)?;
    let wide = activation(b, &intermediate, config.hidden_act, &wide);
    sublayer_output(b, config, &format!("{module}.output"), &wide, &attended)
}

/// LayerNorm(dense(x) + residual)
fn sublayer_output(
    b: &mut Builder,
    config: &BertConfig,
    module: &str,
    x: &Name,
    residual: &Name,
) -> Result<Name, ExportError> {
    let dense = dense(b, &format!("{module}.dense"), x)?;
    let sum = b.node(module, "Add", &[&dense, residual]);
    layer_norm(b, &format!("{module}.LayerNorm"), &sum, config.hidden_size, config.layer_norm_eps)
}

/// Concat(head₁, …, head_A), headₙ = softmax(Q Kᵀ / √d + mask) V
fn self_attention(
    b: &mut Builder,
    config: &BertConfig,
    module: &str,
    hidden: &Name,
    mask: &Name,
) -> Result<Name, ExportError> {
    let head_size = config.head_size();
    // 0 stands for the size that is there: batch and sequence.
    let apart = b.ints(&[0, 0, config.num_attention_heads as i64, head_size as i64]);
    let together = b.ints(&[0, 0, config.hidden_size as i64]);
    let mut heads = |part: &str, perm: [i64; 4]| -> Result<Name, ExportError> {
        let x = dense(b, &format!("{module}.{part}"), hidden)?;
        let x = b.node(module, "Reshape", &[&x, &apart]);
        Ok(transpose(b, module, &x, perm))
    };
    let query = heads("query", [0, 2, 1, 3])?;
    let key = heads("key", [0, 2, 3, 1])?;
    let value = heads("value", [0, 2, 1, 3])?;
    let root = b.scalar("sqrt_head_size", (head_size as f64).sqrt());
    let scores = b.node(module, "MatMul", &[&query, &key]);
    let scores = b.node(module, "Div", &[&scores, &root]);
    let scores = b.node(module, "Add", &[&scores, mask]);
    let probabilities = b.node_with(module, "Softmax", &[&scores], [("axis", Attribute::Int(-1))]);
    let context = b.node(module, "MatMul", &[&probabilities, &value]);
    let context = transpose(b, module, &context, [0, 2, 1, 3]);
    Ok(b.node(module, "Reshape", &[&context, &together]))
}

fn transpose(b: &mut Builder, module: &str, x: &Name, perm: [i64; 4]) -> Name {
    b.node_with(module, "Transpose", &[x], [("perm", Attribute::Ints(perm.into()))])
}

/// tanh(W h[first token] + b)
pub(crate) fn pooler(b: &mut Builder, hidden: &Name) -> Result<Name, ExportError> {
    let first = b.index(0);
    let token = b.node_with("pooler", "Gather", &[hidden, &first], [("axis", Attribute::Int(1))]);
    let dense = dense(b, "pooler.dense", &token)?;
    Ok(b.node("pooler", "Tanh", &[&dense]))
}
