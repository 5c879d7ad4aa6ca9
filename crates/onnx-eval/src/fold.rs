//! What a graph computes of its constants alone, whatever its inputs are.

use std::collections::{HashMap, HashSet};

use engine::EngineError;

use crate::Oracle;
use crate::oracle::Run;
use crate::program::Step;
use crate::tensor::Data;

/// A float value that follows from constants alone.
#[derive(Debug)]
pub struct Folded<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its dimensions.
    pub shape: &'a [usize],
    elements: &'a ndarray::ArcArray<f64, ndarray::IxDyn>,
}

impl Folded<'_> {
    /// Its elements, in row-major order.
    pub fn elements(&self) -> impl Iterator<Item = f64> {
        self.elements.iter().copied()
    }
}

impl Oracle {
    /// Computes what an output depends on and what depends on constants alone, and shows each float
    /// among it. One is dropped as soon as none of the others is made of it.
    ///
    /// # Errors
    /// If a node fails on its constants.
    pub fn fold(&self, mut see: impl FnMut(Folded)) -> Result<(), EngineError> {
        let steps = self.folding();
        let mut last: HashMap<&str, usize> = HashMap::new();
        for (at, step) in steps.iter().enumerate() {
            last.extend(step.reads.iter().chain(&step.node.outputs).map(|name| (name.as_str(), at)));
        }
        let mut run = Run::new(self);
        for (at, step) in steps.iter().enumerate() {
            run.step(step)?;
            for name in step.node.outputs.iter().filter(|name| !name.is_empty()) {
                if let Some(Data::Float(elements)) = run.value(name).map(|tensor| &tensor.data) {
                    see(Folded { name, shape: elements.shape(), elements });
                }
            }
            let names = step.reads.iter().chain(&step.node.outputs);
            names.filter(|name| last.get(name.as_str()) == Some(&at)).for_each(|name| run.drop(name));
        }
        Ok(())
    }

    /// The steps that depend on constants alone. An initializer that is an input, too, is none.
    fn folding(&self) -> Vec<&Step> {
        let inputs: HashSet<&str> = self.inputs.iter().map(|spec| spec.name.as_str()).collect();
        let mut constant: HashSet<&str> = self.constants.held().map(|(name, _)| name).collect();
        constant.retain(|name| !inputs.contains(name));
        let mut steps = Vec::new();
        for (index, _) in &self.program.plan.0 {
            let step = &self.program.steps[*index];
            if step.reads.iter().all(|name| constant.contains(name.as_str())) {
                constant.extend(step.node.outputs.iter().map(String::as_str));
                steps.push(step);
            }
        }
        steps
    }
}
