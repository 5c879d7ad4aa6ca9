use std::io;
use std::path::PathBuf;

use architecture::{BindError, Task};
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
        "inputs of {} are not possible: there must be at least one of each, and the model has positions for {positions} tokens",
        counted(axes, found)
    )]
    Shape { axes: &'static [&'static str], found: Vec<usize>, positions: usize },
    /// A fixed shape of another number of axes.
    #[error(
        "the inputs of {task} are [{}], which {found:?} are not the sizes of: give one for each",
        axes.join(", ")
    )]
    Axes { task: Task, axes: &'static [&'static str], found: Vec<usize> },
    /// The checkpoint does not fit the config.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A description that feeds a block what it does not take.
    #[error(
        "the description of the model feeds a block in '{module}' {inputs} values, which it does not take"
    )]
    Fed { module: String, inputs: usize },
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
    #[error(
        "'{tensor}' is {dtype}; a graph can point only at weights in f32, so let it have a copy of them, \
         without --weights-from"
    )]
    NotF32 { tensor: String, dtype: DType },
    /// A weight that half precision cannot hold.
    #[error("'{tensor}' has {value:e}, and f16 ends at 65504; export it in f32")]
    TooLargeForHalf { tensor: String, value: f32 },
    /// Half precision for candle-onnx.
    #[error(
        "a graph for candle-onnx must be in f32: its operators do not all take f16; leave the dtype or the target out"
    )]
    HalfForCandle,
    /// Half precision with the checkpoint's own weights.
    #[error(
        "a graph in f16 cannot point at the checkpoint's weights, which are in f32; let it have a copy of \
         them, rounded, without --weights-from"
    )]
    HalfAsStored,
    /// A tensor whose bytes do not fit its shape.
    #[error("'{tensor}': {source}")]
    Tensor { tensor: String, source: TensorFault },
    /// A file that a graph cannot point into.
    #[error(
        "the weights lie in '{file}', which is not a safetensors file, so that a graph cannot point at them; \
         let it have a copy of them, without --weights-from"
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

/// `2 rows of 3 choices of 8 tokens`
fn counted(axes: &[&str], sizes: &[usize]) -> String {
    let counted = axes.iter().zip(sizes).map(|(axis, size)| {
        let things = match *axis {
            "batch" => "rows",
            "sequence" => "tokens",
            other => other,
        };
        format!("{size} {things}")
    });
    counted.collect::<Vec<_>>().join(" of ")
}
