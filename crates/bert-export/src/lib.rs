//! From a BERT's checkpoint to an ONNX graph, without Python.
//!
//! ```text
//! embeddings   h₀ = LayerNorm(word[id] + token_type[type] + position[i])
//! layer n      a  = LayerNorm(h + Attention(h))
//!              h' = LayerNorm(a + W₂ act(W₁ a + b₁) + b₂)
//! pooler       p  = tanh(W h[first token] + b)
//! ```
//!
//! The graph takes `input_ids`, `attention_mask` and `token_type_ids`, all i64 `[batch, sequence]`, and gives `last_hidden_state`, f32 `[batch,
//! sequence, hidden]`, and, where the checkpoint has a pooler, `pooler_output`, f32 `[batch, hidden]`.
//!
//! Every node says which module it came from:
//!
//! | where | what |
//! | --- | --- |
//! | its name | `/encoder/layer.0/attention/self/query/MatMul` |
//! | property `module` | the path in the checkpoint: `encoder.layer.0.attention.self.query` |
//! | property `hierarchy_tag` | the classes in transformers: `/BertModel/BertEncoder/BertLayer.0/BertAttention/BertSelfAttention` |
//!
//! A tag names transformers' own classes: what PyTorch's (`Linear`, `LayerNorm`, `Embedding`) do is tagged as part of the class that holds them. The
//! additive mask, made once for all layers, is the encoder's. The properties are the node's `metadata_props`. Those came with version 10 of the file format,
//! which opset 21 is the first to have, and candle-onnx does not read them; for all such readers they are in the node's `doc_string`, too, a line each.
//!
//! [`export`] makes the graph; [`onnx_graph::Model::save`] and its sisters write it, with the weights inside or beside it, and [`save_beside`] lets it point
//! into the checkpoint's own file.
//!
//! ```
//! use bert_export::{Options, Shape, export};
//! use candle_bert::BertConfig;
//! use checkpoint::Checkpoint;
//! # use safetensors::tensor::{Dtype, TensorView};
//!
//! let config = BertConfig::from_json(
//!     br#"{"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}"#,
//! )?;
//! # let expected = candle_bert::expected_tensors(&config, true);
//! # let zeros: Vec<Vec<u8>> = expected.iter().map(|tensor| vec![0; 4 * tensor.shape.iter().product::<usize>()]).collect();
//! # let views = expected.iter().zip(&zeros).map(|(t, data)| (&t.name, TensorView::new(Dtype::F32, t.shape.clone(), data).unwrap()));
//! # let bytes = safetensors::serialize(views, None)?;
//! let checkpoint = Checkpoint::from_safetensors("model.safetensors", bytes.into())?;
//!
//! let model = export(&checkpoint, &config, &Options::default())?;
//! let node = model.graph.nodes.iter().find(|node| node.op == "Softmax").unwrap();
//! assert_eq!(node.name, "/encoder/layer.0/attention/self/Softmax");
//! assert_eq!(node.metadata["hierarchy_tag"], "/BertModel/BertEncoder/BertLayer.0/BertAttention/BertSelfAttention");
//!
//! let model = export(&checkpoint, &config, &Options { opset: 13, shape: Shape::Static { batch: 1, sequence: 16 }, ..Options::default() })?;
//! assert_eq!(model.graph.inputs[0].to_string(), "input_ids i64[1, 16]");
//!
//! let error = export(&checkpoint, &config, &Options { opset: 12, ..Options::default() }).unwrap_err();
//! assert_eq!(error.to_string(), "a graph cannot be made for opset 12; opsets 13 to 21 are known");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod beside;
mod builder;
mod dialect;
mod error;
mod functions;
mod model;
mod modules;
mod weights;

use candle_bert::{BertConfig, used_tensors};
use checkpoint::Checkpoint;
use onnx_graph::Model;

pub use beside::save_beside;
pub use dialect::OPSETS;
pub use error::ExportError;

use builder::Builder;
use dialect::Dialect;

/// What kind of graph is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The version of ONNX's operators, one of [`OPSETS`].
    pub opset: i64,
    /// The shape of the inputs.
    pub shape: Shape,
    /// Who will run it.
    pub target: Target,
    /// What becomes of the weights.
    pub weights: Weights,
}

impl Default for Options {
    /// Opset 17, the first with LayerNormalization, of 2022: every runtime in use has it. Any batch and sequence; weights as MatMul takes them.
    fn default() -> Self {
        Self { opset: 17, shape: Shape::Dynamic, target: Target::Onnx, weights: Weights::Transposed }
    }
}

/// The shape of the inputs, `[batch, sequence]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Any, up to as many tokens as there are positions.
    Dynamic,
    /// This one and no other.
    Static {
        /// The number of rows.
        batch: usize,
        /// The number of tokens in each.
        sequence: usize,
    },
}

/// Who will run the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Anything that follows the specification.
    Onnx,
    /// Stock candle-onnx 0.11 as well: only operators that its `simple_eval` has, in the forms that it computes as specified.
    CandleOnnx,
}

/// What becomes of the weights of dense layers, which a checkpoint stores as `[out, in]` and MatMul takes as `[in, out]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// They are copied, transposed; all other weights are the checkpoint's own bytes, shared.
    Transposed,
    /// All weights are the checkpoint's own bytes under the checkpoint's own names, and the graph transposes. Only for checkpoints in f32.
    AsStored,
}

/// The graph of a BERT in f32, with the weights of its checkpoint. The prefix `bert.` and the old names `gamma` and `beta` are understood, and weights of
/// another float dtype are rounded to f32.
///
/// # Errors
/// If the opset is not known, the shape is impossible for the model, or the checkpoint does not fit the config.
pub fn export(checkpoint: &Checkpoint, config: &BertConfig, options: &Options) -> Result<Model, ExportError> {
    let dialect = Dialect::of(options.opset, options.target)?;
    if let Shape::Static { batch, sequence } = options.shape {
        let positions = config.max_position_embeddings;
        if batch == 0 || sequence == 0 || sequence > positions {
            return Err(ExportError::Shape { batch, sequence, positions });
        }
    }
    let tensors = used_tensors(checkpoint, config)?;
    let weights = weights::Store::new(tensors, options.weights)?;
    let mut builder = Builder::new(dialect, weights);
    model::bert(&mut builder, config, options.shape)?;
    let model = builder.finish(options);
    model.check()?;
    Ok(model)
}
