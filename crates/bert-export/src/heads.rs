//! What stands on the encoder, task by task; beside it, `candle-bert` reads the same.

use candle_bert::{BertConfig, Task};
use engine::Dim;
use onnx_graph::Attribute;

use crate::builder::{Builder, Name};
use crate::functions::{activation, dense, layer_norm};
use crate::model::pooler;
use crate::{ExportError, Options};

/// Adds the head of a task, and its outputs. `axes` are those of the inputs, `hidden` is the last hidden state: `[rows, sequence, hidden]`.
pub(crate) fn head(
    b: &mut Builder,
    config: &BertConfig,
    options: &Options,
    axes: &[Dim],
    hidden: &Name,
) -> Result<(), ExportError> {
    let rows = &axes[..axes.len() - 1];
    let with = |axes: &[Dim], width| [axes, &[Dim::Fixed(width)]].concat();
    match options.task {
        Task::SequenceClassification => {
            let pooled = pooler(b, hidden)?;
            dense(b, "classifier", &pooled)?;
            b.output("logits", &with(rows, config.num_labels));
        }
        Task::NextSentencePrediction => {
            let pooled = pooler(b, hidden)?;
            dense(b, "cls.seq_relationship", &pooled)?;
            b.output("logits", &with(rows, 2));
        }
        Task::MultipleChoice => {
            let pooled = pooler(b, hidden)?;
            let logits = dense(b, "classifier", &pooled)?;
            let shape = choices(b, options);
            b.node("classifier", "Reshape", &[&logits, &shape]);
            b.output("logits", rows);
        }
        Task::TokenClassification => {
            dense(b, "classifier", hidden)?;
            b.output("logits", &with(axes, config.num_labels));
        }
        Task::QuestionAnswering => {
            let both = dense(b, "qa_outputs", hidden)?;
            for (row, name) in (0..).zip(options.task.outputs()) {
                let row = b.index(row);
                b.node_with("qa_outputs", "Gather", &[&both, &row], [("axis", Attribute::Int(2))]);
                b.output(name, axes);
            }
        }
        Task::MaskedLm => {
            predictions(b, config, hidden)?;
            b.output("logits", &with(axes, config.vocab_size));
        }
        // Features: all tasks that there are else.
        _ => {
            let state = b.output("last_hidden_state", &with(axes, config.hidden_size));
            if b.has_weight("pooler.dense.weight") {
                pooler(b, &state)?;
                b.output("pooler_output", &with(rows, config.hidden_size));
            }
        }
    }
    Ok(())
}

/// The sizes of batch and choices, as `Reshape` takes them.
fn choices(b: &mut Builder, options: &Options) -> Name {
    if let Some(sizes) = options.shape.sizes() {
        // No larger than tensors may be: the inputs have these sizes.
        let sizes: Vec<i64> = sizes[..2].iter().map(|&size| size as i64).collect();
        return b.ints(&sizes);
    }
    let (zero, two) = (b.ints(&[0]), b.ints(&[2]));
    let shape = b.node("classifier", "Shape", &[&"input_ids".into()]);
    b.node("classifier", "Slice", &[&shape, &zero, &two, &zero])
}

/// E LayerNorm(act(W h + b)) + c, with the table of word embeddings E, unless there is a decoder of its own.
fn predictions(b: &mut Builder, config: &BertConfig, hidden: &Name) -> Result<Name, ExportError> {
    let (transform, decoder) = ("cls.predictions.transform", "cls.predictions.decoder");
    let x = dense(b, &format!("{transform}.dense"), hidden)?;
    let x = activation(b, transform, config.hidden_act, &x);
    let module = format!("{transform}.LayerNorm");
    let x = layer_norm(b, &module, &x, config.hidden_size, config.layer_norm_eps)?;
    let weight = match b.has_weight(&format!("{decoder}.weight")) {
        true => b.dense_weight(decoder)?,
        false => {
            let words = b.weight("embeddings.word_embeddings.weight")?;
            b.node_with(decoder, "Transpose", &[&words], [("perm", Attribute::Ints(vec![1, 0]))])
        }
    };
    let bias = b.weight("cls.predictions.bias")?;
    let product = b.node(decoder, "MatMul", &[&x, &weight]);
    Ok(b.node(decoder, "Add", &[&product, &bias]))
}
