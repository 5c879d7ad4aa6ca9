//! What became of a graph, in a line.

use std::collections::BTreeMap;
use std::fmt;

use super::engine::{CompiledEngine, StepInfo};

/// How a graph is run: in how many steps, and what of it no kernel takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Why every run is the oracle's, if it is: then all else is empty.
    pub fallback: Option<String>,
    /// Steps of every run.
    pub steps: usize,
    /// Of these, the nodes that the oracle's functions run, by operator.
    pub nodes: BTreeMap<String, usize>,
    /// Steps that are done once for each of the inputs' sizes.
    pub sized_steps: usize,
    /// Whether padding can be left out.
    pub can_skip_padding: bool,
}

impl CompiledEngine {
    /// What became of the graph.
    pub fn summary(&self) -> Summary {
        let steps = self.steps();
        let mut nodes = BTreeMap::new();
        for step in steps.iter().filter(|step| !step.is_kernel()) {
            *nodes.entry(step.op.clone()).or_insert(0) += 1;
        }
        Summary {
            fallback: self.fallback().map(str::to_owned),
            steps: steps.len(),
            nodes,
            sized_steps: self.sized_steps().len(),
            can_skip_padding: self.can_skip_padding(),
        }
    }
}

impl StepInfo {
    /// Whether it is a kernel's, and no node as the oracle runs it.
    pub fn is_kernel(&self) -> bool {
        self.op.ends_with('*')
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.fallback {
            return write!(f, "not compiled: every run is the oracle's, as {why}");
        }
        write!(f, "{} steps", self.steps)?;
        if self.sized_steps > 0 {
            write!(f, ", and {} once for each size of the inputs", self.sized_steps)?;
        }
        let fallen: usize = self.nodes.values().sum();
        if fallen == 0 {
            write!(f, "; all by kernels")?;
        } else {
            let list: Vec<String> = self.nodes.iter().map(|(op, count)| format!("{count} {op}")).collect();
            write!(f, "; {fallen} fell back to the oracle's functions: {}", list.join(", "))?;
        }
        write!(f, "; padding can{} be skipped", if self.can_skip_padding { "" } else { "not" })
    }
}
