use std::error::Error;

use crate::{InputError, NamedValues, ValueError, ValueSpec};

/// A way to run a model: the native reference, a graph on candle, the oracle.
///
/// An engine is loaded once and may be shared between threads.
pub trait Engine: Send + Sync {
    /// What the command line and reports call it: `reference`, `candle`, `oracle`.
    fn name(&self) -> &str;

    /// What it takes.
    fn inputs(&self) -> &[ValueSpec];

    /// What it gives.
    fn outputs(&self) -> &[ValueSpec];

    /// Runs the model for the named values only: outputs, or any value in between (a graph's value by its name, a module's
    /// output by its checkpoint path). They come in the order of `names`.
    ///
    /// # Errors
    /// If the inputs do not fit, a name is unknown, or a node fails.
    fn run_for(&self, inputs: &NamedValues, names: &[&str]) -> Result<NamedValues, EngineError>;

    /// Runs the model for all its outputs.
    ///
    /// # Errors
    /// If the inputs do not fit, or a node fails.
    fn run(&self, inputs: &NamedValues) -> Result<NamedValues, EngineError> {
        let names: Vec<&str> = self.outputs().iter().map(|spec| spec.name.as_str()).collect();
        self.run_for(inputs, &names)
    }
}

/// Why an engine could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum EngineError {
    /// The inputs are not what the model takes.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A value was asked for that the model does not have.
    #[error("this model has no value named '{name}'")]
    UnknownValue { name: String },
    /// An input has an element that the model cannot take: an id outside the vocabulary, a text longer than the model.
    #[error("{0}")]
    BadInput(#[source] Box<dyn Error + Send + Sync>),
    /// A node of the graph failed.
    #[error("node '{node}' ({op}) failed: {source}")]
    Node { node: String, op: String, source: Box<dyn Error + Send + Sync> },
    /// A result is not a value that can be handed out.
    #[error("value '{name}' cannot be read back: {source}")]
    Output { name: String, source: ValueError },
    /// The tensor library failed outside any node.
    #[error("{0}")]
    Backend(#[source] Box<dyn Error + Send + Sync>),
}
