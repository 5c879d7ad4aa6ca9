use std::io;
use std::path::PathBuf;

use candle_bert::BertError;
use checkpoint::CheckpointError;
use engine::DType;
use onnx_graph::{GraphError, TensorFault};

/// Why a graph could not be made, or not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum ExportError {
    /// An opset that does not exist, or is not known here.
    #[error(
        "a graph cannot be made for opset {opset}; opsets {} to {} are known",
        crate::OPSETS.start(),
        crate::OPSETS.end()
    )]
    Opset { opset: i64 },
    /// A fixed shape that the model cannot take.
    #[error(
        "inputs of {batch} rows of {sequence} tokens are not possible: there must be at least one of each, and the model has positions for {positions} tokens"
    )]
    Shape { batch: usize, sequence: usize, positions: usize },
    /// The checkpoint does not fit the config.
    #[error(transparent)]
    Bert(#[from] BertError),
    /// A tensor could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A tensor that the model needs and the checkpoint does not have.
    #[error("the checkpoint has no '{tensor}'")]
    Missing { tensor: String },
    /// The weight of a dense layer that is no matrix.
    #[error("'{tensor}' must be a matrix, it has shape {shape:?}")]
    NotAMatrix { tensor: String, shape: Vec<usize> },
    /// A weight in another dtype, where the graph is to use it as it is.
    #[error("'{tensor}' is {dtype}; a graph can point only at weights in f32, so let it have a copy of them")]
    NotF32 { tensor: String, dtype: DType },
    /// A tensor whose bytes do not fit its shape.
    #[error("'{tensor}': {source}")]
    Tensor { tensor: String, source: TensorFault },
    /// A file that a graph cannot point into.
    #[error(
        "the weights lie in '{file}', which is not a safetensors file, so that a graph cannot point at them; let it have a copy of them"
    )]
    NotSafetensors { file: String },
    /// The graph was to be written elsewhere than beside its weights.
    #[error(
        "{} is not the checkpoint's file '{file}'; a graph whose weights stay in the checkpoint must be written into the checkpoint's folder",
        path.display()
    )]
    NotBeside { file: String, path: PathBuf },
    /// The checkpoint's file is not where the graph is to be written.
    #[error(
        "a graph whose weights stay in the checkpoint must be written into the checkpoint's folder: cannot read {}: {source}",
        path.display()
    )]
    NoCheckpoint { path: PathBuf, source: io::Error },
    /// The graph was not made to share the checkpoint's weights.
    #[error(
        "'{tensor}' is not as the checkpoint has it, so that the graph cannot point at it; export it with its weights as stored"
    )]
    NotAsStored { tensor: String },
    /// The model could not be written.
    #[error(transparent)]
    Graph(#[from] GraphError),
}
