//! From a checkpoint to an ONNX graph, without Python: the back end that writes an
//! [`architecture::Program`] in ONNX's operators.
//!
//! The graph takes the inputs of the program (of a BERT `input_ids`, `attention_mask` and
//! `token_type_ids`), all i64 `[batch, sequence]`, and gives `last_hidden_state`, f32 `[batch,
//! sequence, hidden]`, and, where the checkpoint has a pooler, `pooler_output`, f32 `[batch,
//! hidden]`; or, with the head of another [`Options::task`], what optimum's graph for that task
//! gives:
//!
//! | task | outputs, f32 |
//! | --- | --- |
//! | text-classification | `logits` `[batch, labels]` |
//! | token-classification | `logits` `[batch, sequence, labels]` |
//! | question-answering | `start_logits`, `end_logits` `[batch, sequence]` |
//! | fill-mask | `logits` `[batch, sequence, vocabulary]`; a decoder that is tied to the word embeddings has no weight of its own in the graph, either |
//! | multiple-choice | `logits` `[batch, choices]`, of inputs `[batch, choices, sequence]` |
//! | next-sentence-prediction | `logits` `[batch, 2]` |
//!
//! Every node says which module it came from:
//!
//! | where | what |
//! | --- | --- |
//! | its name | `/encoder/layer.0/attention/self/query/MatMul` |
//! | property `module` | the path in the checkpoint: `encoder.layer.0.attention.self.query` |
//! | property `hierarchy_tag` | the classes in transformers: `/BertModel/BertEncoder/BertLayer.0/BertAttention/BertSelfAttention` |
//!
//! A tag names transformers' own classes: what PyTorch's (`Linear`, `LayerNorm`, `Embedding`) do is
//! tagged as part of the class that holds them. The additive mask, made once for all layers, is the
//! encoder's; what turns choices into rows and back is the embeddings', the encoder's and the
//! classifier's. The properties are the node's `metadata_props`. Those came with version 10 of the
//! file format, which opset 21 is the first to have, and candle-onnx does not read them; for all
//! such readers they are in the node's `doc_string`, too, a line each.
//!
//! With [`FloatType::F16`] the graph computes in half precision, and keeps the border of one that
//! does not: whole numbers in, f32 out.
//!
//! [`export`] makes the graph; [`onnx_graph::Model::save`] and its sisters write it, with the
//! weights inside or beside it, and [`save_beside`] lets it point into the checkpoint's own file.
//!
//! ```
//! use onnx_export::{Options, Shape, export};
//! use candle_bert::BertConfig;
//! use checkpoint::Checkpoint;
//! # use safetensors::tensor::{Dtype, TensorView};
//!
//! let config = BertConfig::from_json(
//!     br#"{"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}"#,
//! )?;
//! # let expected = config.program(candle_bert::Task::FeatureExtraction, &|_| true)?.tensors;
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
mod graph;
mod weights;

use architecture::{Bound, Family, Program, Task, bind};
use checkpoint::Checkpoint;
use engine::DType;
use onnx_graph::Model;

pub use beside::save_beside;
pub use dialect::OPSETS;
pub use error::ExportError;

use builder::Builder;
use dialect::Dialect;

/// What kind of graph is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What it is for: which head it has. [`Family::task`] tells what a checkpoint was saved for.
    pub task: Task,
    /// The version of ONNX's operators, one of [`OPSETS`].
    pub opset: i64,
    /// The shape of the inputs.
    pub shape: Shape,
    /// Who will run it.
    pub target: Target,
    /// What becomes of the weights.
    pub weights: Weights,
    /// What it computes in.
    pub dtype: FloatType,
}

impl Default for Options {
    /// No head, and f32. Opset 17, the first with LayerNormalization, of 2022: every runtime in use
    /// has it. Any batch and sequence; weights as MatMul takes them.
    fn default() -> Self {
        Self {
            task: Task::FeatureExtraction,
            opset: 17,
            shape: Shape::Dynamic,
            target: Target::Onnx,
            weights: Weights::Transposed,
            dtype: FloatType::F32,
        }
    }
}

/// The shape of the inputs, `[batch, sequence]`, or `[batch, choices, sequence]` of a multiple
/// choice.
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
    /// This one and no other, for a multiple choice.
    StaticChoices {
        /// The number of questions.
        batch: usize,
        /// The number of choices of each.
        choices: usize,
        /// The number of tokens of each choice.
        sequence: usize,
    },
}

impl Shape {
    /// The sizes of the axes, where they are fixed.
    fn sizes(self) -> Option<Vec<usize>> {
        match self {
            Self::Dynamic => None,
            Self::Static { batch, sequence } => Some(vec![batch, sequence]),
            Self::StaticChoices { batch, choices, sequence } => Some(vec![batch, choices, sequence]),
        }
    }
}

/// Who will run the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Anything that follows the specification.
    Onnx,
    /// Stock candle-onnx 0.11 as well: only operators that its `simple_eval` has, in the forms that
    /// it computes as specified.
    CandleOnnx,
}

/// What becomes of the weights of dense layers, which a checkpoint stores as `[out, in]` and MatMul
/// takes as `[in, out]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// They are copied, transposed; all other weights are the checkpoint's own bytes, shared.
    Transposed,
    /// All weights are the checkpoint's own bytes under the checkpoint's own names, and the graph
    /// transposes. Only for checkpoints in f32.
    AsStored,
}

/// What a graph computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// Single precision.
    F32,
    /// Half precision, as runtimes for it want a graph: half the size, and a loss that `parity
    /// check --expect f16` measures.
    ///
    /// - Weights are f16: rounded to f32 first, if they are more, and then to the nearest f16. One
    ///   that would become infinite, 65520 or more, is refused. What is too small for f16 becomes
    ///   0, as in any conversion.
    /// - Every operator is f16 but the inside of a layer norm, which is f32: `stash_type` of
    ///   LayerNormalization says so, and below opset 17 the same is spelled out. Squares overflow
    ///   f16 from 256 on, and the eps of a BERT, 1e-12, is less than its least number.
    /// - Outputs are f32, cast at the end. Whoever reads the f32 graph can read this one, as of
    ///   ONNX Runtime's converter with `keep_io_types=True`, and sums over features, such as means
    ///   and cosines, are not taken in f16.
    F16,
}

impl FloatType {
    /// It as the dtype of a value.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
        }
    }
}

/// The graph of a model, with its head if the task has one, and with the weights of its checkpoint.
/// Prefixes and old names of tensors are understood, and weights of another float dtype are rounded
/// to that of the graph.
///
/// # Errors
/// If the opset is not known, the shape is impossible for the model, or the checkpoint does not fit
/// the config or has no such head; and in half precision if a weight is too large for it, or it was
/// not asked for [`Target::Onnx`] and [`Weights::Transposed`].
pub fn export(checkpoint: &Checkpoint, family: &dyn Family, options: &Options) -> Result<Model, ExportError> {
    let dialect = Dialect::of(options.opset, options.target)?;
    check_dtype(options)?;
    let bound = bind(checkpoint, family, options.task)?;
    check_shape(&bound.program, options)?;
    written(dialect, &bound, options)
}

fn written(dialect: Dialect, bound: &Bound, options: &Options) -> Result<Model, ExportError> {
    let tensors = bound.named().map(|(name, entry)| (name.to_string(), entry)).collect();
    let weights = weights::Store::new(tensors, options.weights, options.dtype)?;
    let mut builder = Builder::new(dialect, weights, &bound.program, options.dtype);
    graph::write(&mut builder, &bound.program, options)?;
    let model = builder.finish(options);
    model.check()?;
    Ok(model)
}

/// Whether half precision is possible with what else was asked for.
fn check_dtype(options: &Options) -> Result<(), ExportError> {
    match options {
        Options { dtype: FloatType::F16, target: Target::CandleOnnx, .. } => Err(ExportError::HalfForCandle),
        Options { dtype: FloatType::F16, weights: Weights::AsStored, .. } => Err(ExportError::HalfAsStored),
        _ => Ok(()),
    }
}

/// Whether fixed inputs have as many axes as the task's, something on each, and no more tokens than
/// the model has positions for.
fn check_shape(program: &Program, options: &Options) -> Result<(), ExportError> {
    let Some(sizes) = options.shape.sizes() else { return Ok(()) };
    let axes = program.axes;
    if sizes.len() != axes.len() {
        return Err(ExportError::Axes { task: options.task, axes, found: sizes });
    }
    let positions = program.limits().positions;
    if sizes.contains(&0) || sizes.last().is_some_and(|&sequence| sequence > positions) {
        return Err(ExportError::Shape { axes, found: sizes, positions });
    }
    Ok(())
}
