use std::path::Path;

use engine::{Engine, EngineError, NamedValues, ValueSpec};
use onnx_graph::Model;

use crate::SessionError;
use crate::compiled::{CompiledEngine, Options};

/// A graph, loaded and ready to run on one of the engines.
///
/// [`Session::load`] and [`Session::fastest`] choose the engine; [`Session::new`] takes the one it
/// is told.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineKind {
    /// candle-onnx, over a graph that has been lowered to what it computes correctly.
    Candle,
    /// The graph compiled to few steps over packed weights: see [`compiled`](crate::compiled).
    Compiled,
}

impl Session {
    /// Reads, checks and loads an ONNX file on the fastest engine that takes it.
    ///
    /// # Errors
    /// If the file is not a valid graph, or as [`Session::fastest`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, SessionError> {
        Self::fastest(&Model::open(path)?, Options::default())
    }

    /// Loads a graph on the fastest engine that takes it: `compiled`, with these options; else
    /// `candle`. [`Engine::name`] tells which.
    ///
    /// # Errors
    /// If no engine can run the graph exactly: the error of `compiled`, which takes the most.
    pub fn fastest(model: &Model, options: Options) -> Result<Self, SessionError> {
        Self::with(model, options)
            .or_else(|refusal| Self::new(model, EngineKind::Candle).map_err(|_| refusal))
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

#[cfg(test)]
mod tests {
    use engine::{DType, Dim};
    use onnx_graph::{Graph, Node};

    use super::*;
    use crate::compiled::Threads;

    fn model(op: &str) -> Model {
        let spec = |name: &str| ValueSpec {
            name: name.into(),
            dtype: DType::F32,
            shape: Some(vec![Dim::Fixed(2)]),
            optional: false,
        };
        let node = Node {
            name: "node".into(),
            op: op.into(),
            inputs: vec!["x".into()],
            outputs: vec!["y".into()],
            ..Node::default()
        };
        let graph = Graph {
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
            nodes: vec![node],
            ..Graph::default()
        };
        Model { ir_version: 8, opsets: [(String::new(), 17)].into(), graph, ..Model::default() }
    }

    #[test]
    fn a_file_is_loaded_on_the_fastest_engine() {
        let file =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/eps/onnx/ts17-eager-dynamic.onnx");
        assert_eq!(Session::load(file).unwrap().name(), "compiled");
    }

    #[cfg(feature = "candle-onnx")]
    #[test]
    fn the_next_engine_is_taken_where_the_fastest_cannot_be_had() {
        let options = Options { threads: Threads::Count(usize::MAX), ..Options::default() };
        assert!(matches!(Session::with(&model("Relu"), options.clone()), Err(SessionError::Kernels(_))));
        assert_eq!(Session::fastest(&model("Relu"), options).unwrap().name(), "candle");
        assert_eq!(Session::fastest(&model("Relu"), Options::default()).unwrap().name(), "compiled");
    }

    #[test]
    fn what_no_engine_takes_is_refused_by_the_one_that_takes_most() {
        let error = Session::fastest(&model("Frobnicate"), Options::default()).err().unwrap();
        assert!(
            error.to_string().starts_with("the compiled engine cannot run node 'node' (Frobnicate"),
            "{error}"
        );
    }
}
