//! Why something could not be checked.

use std::path::PathBuf;

use architecture::TaskError;
use bert_pipeline::PipelineError;
use candle_blocks::ModelError;
use checkpoint::CheckpointError;
use engine::{DType, EngineError, ValueError, ValueSpec};
use onnx_eval::OracleError;
use onnx_export::ExportError;
use onnx_graph::GraphError;
use onnx_session::text_inputs::InputError;

use crate::tensors::TensorsError;

/// Why something could not be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum ParityError {
    /// A graph was given where a checkpoint is wanted.
    #[error(
        "'{path}' is a graph, and a checkpoint is wanted here: give its folder, and the graph with --onnx; \
         'parity run {path}' runs a graph by itself, and with another graph in --onnx 'parity check {path}' holds that one against it"
    )]
    IsAGraph { path: String },
    /// The model's files cannot be found or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The model's config.json is malformed or contradicts itself.
    #[error("config.json of {model}: {source}")]
    Config { model: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// The model is for something that is not known here.
    #[error("{model}: {source}")]
    Task { model: String, source: TaskError },
    /// The model's weights do not fit its config.json.
    #[error("the checkpoint of {model} does not fit its config.json: {source}")]
    Weights { model: String, source: Box<ModelError> },
    /// There is no graph beside the checkpoint.
    #[error(
        "{model} has no ONNX graph, no file that ends in .onnx at its top or in onnx/: give one with --onnx FILE, or make one with 'parity export'"
    )]
    NoGraph { model: String },
    /// No graph can be made of the checkpoint.
    #[error("no graph can be made of {model}: {source}")]
    Export { model: String, source: Box<ExportError> },
    /// A graph is malformed.
    #[error("{}", with_file(.onnx, .source))]
    Graph { onnx: String, source: Box<GraphError> },
    /// A graph wants an input that a text does not have.
    #[error("{onnx}: {source}")]
    Inputs { onnx: String, source: InputError },
    /// The oracle does not take a graph.
    #[error("{onnx} cannot be run on the oracle: {source}")]
    Oracle { onnx: String, source: Box<OracleError> },
    /// Faults are to be planted in a graph that has one.
    #[error("{onnx} is not sound, so that no fault could be told from what it is: {why}")]
    NotSound { onnx: String, why: String },
    /// An engine that was asked for by name does not take a graph.
    #[error("{onnx}: {source}")]
    Refused { onnx: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// Something is asked of a graph that takes a checkpoint.
    #[error("{graph} is a graph, {why}")]
    NeedsCheckpoint { graph: String, why: &'static str },
    /// Two things are asked for that do not go together.
    #[error("{0}")]
    Asked(&'static str),
    /// An input is given that no side takes.
    #[error("there is no input '{name}': this model takes {known}; rename it, or leave it out")]
    UnknownInput { name: String, known: String },
    /// An output is expected that no side gives.
    #[error(
        "something is expected of output '{name}', and this model gives {known}; rename it, or leave it out"
    )]
    UnknownOutput { name: String, known: String },
    /// The folder for a replay is not new.
    #[error("{} is not empty, and nothing is overwritten: give a new folder", .dir.display())]
    FullFolder { dir: PathBuf },
    /// Inputs or recorded outputs cannot be read.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    /// There is text, and nothing to read it with.
    #[error(
        "{model} has no tokenizer, neither tokenizer.json nor vocab.txt, so it cannot read text: put them there, or give --inputs"
    )]
    NoTokenizer { model: String },
    /// The tokenizer is malformed, or cannot take a text.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// Inputs do not fit a graph.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// An engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An input could not be made.
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// Errors about a whole file name it; those about a node or a tensor do not.
fn with_file(onnx: &str, source: &GraphError) -> String {
    let message = source.to_string();
    if message.contains(onnx) { message } else { format!("{onnx}: {message}") }
}

/// Why inputs do not fit a graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum FitError {
    /// The graph wants an input that is not there.
    #[error("input '{0}' is wanted, and is not among those given: give that, too")]
    Missing(ValueSpec),
    /// The graph wants an input in a dtype that the given one cannot be converted to exactly.
    #[error(
        "input '{spec}' is wanted, and the one given is {found}, of which it cannot be made \
         exactly: convert it before"
    )]
    DType { spec: ValueSpec, found: DType },
    /// A converted value could not be made.
    #[error(transparent)]
    Value(#[from] ValueError),
}
