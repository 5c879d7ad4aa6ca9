use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use onnx_session::EngineKind;

/// What runs the model of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EngineChoice {
    /// The fastest engine that takes the model's graph; the checkpoint where there is no graph, or none that the task can use.
    #[default]
    Auto,
    /// The checkpoint, natively on candle.
    Native,
    /// The graph, on this engine.
    Session(EngineKind),
}

/// How a pipeline runs its model.
///
/// ```
/// use bert_pipeline::pipeline::{EngineChoice, Options};
///
/// let options = Options::default().with_engine(EngineChoice::Native).with_batch_size(8);
/// assert_eq!(options.batch_size, 8);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// What runs the model.
    pub engine: EngineChoice,
    /// Where the checkpoint runs. A graph runs where its engine does.
    pub device: Device,
    /// What the checkpoint runs in: any float dtype. A graph has its own.
    pub dtype: DType,
    /// The graph, in place of the one beside the checkpoint.
    pub onnx: Option<PathBuf>,
    /// What inputs of the graph are, by the usual name (`attention_mask`), where neither their own
    /// names nor what the graph does with them tells.
    pub inputs: BTreeMap<String, String>,
    /// How many rows are run at once, at most.
    pub batch_size: usize,
    /// How many batches of texts are read ahead by `run_iter`, so that texts of like length run together. That, and nothing else, is what
    /// an iteration keeps in memory.
    pub read_ahead: usize,
    /// Whether texts that are too long are cut (`true`) or refused (`false`); `None` to do what transformers does for the task.
    pub truncation: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            engine: EngineChoice::default(),
            device: Device::Cpu,
            dtype: DType::F32,
            onnx: None,
            inputs: BTreeMap::new(),
            batch_size: 32,
            read_ahead: 16,
            truncation: None,
        }
    }
}

impl Options {
    /// These options, with this engine.
    pub fn with_engine(mut self, engine: EngineChoice) -> Self {
        self.engine = engine;
        self
    }

    /// These options, with the checkpoint on this device.
    pub fn with_device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// These options, with the checkpoint in this dtype.
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// These options, with this graph.
    pub fn with_onnx(mut self, onnx: impl AsRef<Path>) -> Self {
        self.onnx = Some(onnx.as_ref().to_path_buf());
        self
    }

    /// These options, with at most so many rows at once.
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// These options, with texts that are too long cut or refused.
    pub fn with_truncation(mut self, truncation: bool) -> Self {
        self.truncation = Some(truncation);
        self
    }
}
