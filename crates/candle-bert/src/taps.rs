//! Taps: every module's output, handed out under the path that the module has in the checkpoint, without a leading `bert.`.
//!
//! The order is that of execution, a module after its parts, as PyTorch's forward hooks are called.

use std::fmt::Display;
use std::fmt::Write as _;

use candle_core::{Result, Tensor};

use crate::BertConfig;

/// Is shown a module's path and its output.
pub(crate) type Visitor<'a> = dyn FnMut(&str, &Tensor) -> Result<()> + 'a;

/// Where the forward pass stands in the tree of modules, and who wants to see their outputs, if anyone.
pub struct Taps<'a> {
    visitor: Option<&'a mut Visitor<'a>>,
    path: String,
}

impl<'a> Taps<'a> {
    /// Nobody looks. This costs one branch a module: no name is formatted, nothing is allocated.
    pub(crate) fn off() -> Self {
        Self { visitor: None, path: String::new() }
    }

    pub(crate) fn on(visitor: &'a mut Visitor<'a>) -> Self {
        Self { visitor: Some(visitor), path: String::new() }
    }

    /// Runs the part called `name` of the module in which the pass stands, and shows its output.
    pub(crate) fn module(
        &mut self,
        name: impl Display,
        forward: impl FnOnce(&mut Self) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if self.visitor.is_none() {
            return forward(self);
        }
        let parent = self.path.len();
        let dot = if parent == 0 { "" } else { "." };
        write!(self.path, "{dot}{name}").map_err(candle_core::Error::wrap)?;
        let output = forward(self)?;
        if let Some(visitor) = &mut self.visitor {
            visitor(&self.path, &output)?;
        }
        self.path.truncate(parent);
        Ok(output)
    }
}

const EMBEDDINGS: [&str; 5] = [
    "embeddings.word_embeddings",
    "embeddings.token_type_embeddings",
    "embeddings.position_embeddings",
    "embeddings.LayerNorm",
    "embeddings",
];

const LAYER: [&str; 13] = [
    ".attention.self.query",
    ".attention.self.key",
    ".attention.self.value",
    ".attention.self",
    ".attention.output.dense",
    ".attention.output.LayerNorm",
    ".attention.output",
    ".attention",
    ".intermediate.dense",
    ".intermediate",
    ".output.dense",
    ".output.LayerNorm",
    ".output",
];

/// The path of every module, in the order of execution.
pub(crate) fn module_paths(config: &BertConfig, pooler: bool) -> Vec<String> {
    let mut paths: Vec<String> = EMBEDDINGS.map(String::from).into();
    for n in 0..config.num_hidden_layers {
        paths.extend(LAYER.map(|part| format!("encoder.layer.{n}{part}")));
        paths.push(format!("encoder.layer.{n}"));
    }
    paths.push("encoder".into());
    if pooler {
        paths.extend(["pooler.dense", "pooler"].map(String::from));
    }
    paths
}
