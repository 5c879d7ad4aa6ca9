use std::path::Path;

use engine::{Engine, EngineError, NamedValues, ValueSpec};
use onnx_graph::Model;

use crate::SessionError;
use crate::compiled::{CompiledEngine, Options};

/// A graph, loaded and ready to run on one of the engines.
///
/// ```no_run
/// use engine::{NamedValues, Value};
/// use onnx_session::Session;
///
/// let session = Session::load("model.onnx")?;
/// let inputs = NamedValues::from_iter([("input_ids", Value::new([1, 3], vec![101i64, 7592, 102])?)]);
/// let outputs = session.run(&inputs)?;
/// println!("{:?}", outputs.get("last_hidden_state"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Session {
    engine: Box<dyn Engine>,
}

/// Which engine runs a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EngineKind {
    /// candle-onnx, over a graph that has been lowered to what it computes correctly.
    #[default]
    Candle,
    /// The graph compiled to few steps over packed weights: see [`compiled`](crate::compiled).
    Compiled,
}

impl Session {
    /// Reads, checks and loads an ONNX file on the default engine.
    ///
    /// # Errors
    /// If the file is not a valid graph, or the engine cannot run it exactly.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, SessionError> {
        Self::new(&Model::open(path)?, EngineKind::default())
    }

    /// Loads a graph that has already been read and checked.
    ///
    /// # Errors
    /// If the engine cannot run the graph exactly.
    pub fn new(model: &Model, kind: EngineKind) -> Result<Self, SessionError> {
        match kind {
            #[cfg(feature = "candle-onnx")]
            EngineKind::Candle => Ok(Self { engine: Box::new(crate::candle::CandleEngine::new(model)?) }),
            #[cfg(not(feature = "candle-onnx"))]
            EngineKind::Candle => {
                let _ = model;
                Err(SessionError::NoEngine)
            }
            EngineKind::Compiled => Self::with(model, Options::default()),
        }
    }

    /// Loads a graph on the engine `compiled`, with its options.
    ///
    /// # Errors
    /// If the engine does not know a node, or its threads cannot be started.
    pub fn with(model: &Model, options: Options) -> Result<Self, SessionError> {
        Ok(Self { engine: Box::new(CompiledEngine::new(model, options)?) })
    }

    /// What the graph takes.
    pub fn inputs(&self) -> &[ValueSpec] {
        self.engine.inputs()
    }

    /// What the graph gives.
    pub fn outputs(&self) -> &[ValueSpec] {
        self.engine.outputs()
    }

    /// Runs the graph for all its outputs.
    ///
    /// # Errors
    /// If the inputs do not fit, or a node fails.
    pub fn run(&self, inputs: &NamedValues) -> Result<NamedValues, EngineError> {
        self.engine.run(inputs)
    }

    /// Runs the graph for the named values only: outputs, or any value in between.
    ///
    /// # Errors
    /// If the inputs do not fit, a name is unknown, or a node fails.
    pub fn run_for(&self, inputs: &NamedValues, names: &[&str]) -> Result<NamedValues, EngineError> {
        self.engine.run_for(inputs, names)
    }
}

impl Engine for Session {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn inputs(&self) -> &[ValueSpec] {
        self.engine.inputs()
    }

    fn outputs(&self) -> &[ValueSpec] {
        self.engine.outputs()
    }

    fn run_for(&self, inputs: &NamedValues, names: &[&str]) -> Result<NamedValues, EngineError> {
        self.engine.run_for(inputs, names)
    }
}
