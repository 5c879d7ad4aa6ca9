//! tract, with the shape of the inputs fixed: how it is meant to be used, and what its choice of kernels needs.

use std::sync::Arc;

use anyhow::Context as _;
use tract_linalg::multithread::{Executor, set_default_executor};
use tract_onnx::prelude::*;

use crate::batch::{Batch, Outputs};
use crate::peer::Runtime;
use crate::workload::Files;

/// A model that is optimized for one shape.
pub struct Tract {
    model: Arc<TypedRunnableModel>,
    input_names: Vec<String>,
    output_names: Vec<String>,
}

impl Tract {
    /// Loads the graph as exported, for the shape of this batch.
    pub fn load(files: &Files, batch: &Batch, threads: usize) -> anyhow::Result<Self> {
        // Of the whole process; it starts with one process for each number of threads.
        set_default_executor(if threads == 1 {
            Executor::SingleThread
        } else {
            Executor::multithread(threads)
        });
        let mut model = onnx().with_ignore_output_shapes(true).model_for_path(files.graph())?;
        let mut input_names = Vec::new();
        for (place, outlet) in model.input_outlets()?.to_vec().into_iter().enumerate() {
            input_names.push(model.node(outlet.node).name.clone());
            model = model.with_input_fact(place, i64::fact([batch.rows, batch.width]).into())?;
        }
        let output_names = model
            .output_outlets()?
            .iter()
            .map(|&outlet| model.outlet_label(outlet).unwrap_or(&model.node(outlet.node).name).to_owned())
            .collect();
        Ok(Self { model: model.into_optimized()?.into_runnable()?, input_names, output_names })
    }
}

impl Runtime for Tract {
    type Inputs = TVec<TValue>;
    type Outputs = TVec<TValue>;

    fn prepare(&self, batch: &Batch) -> anyhow::Result<Self::Inputs> {
        self.input_names
            .iter()
            .map(|name| {
                let tensor = Tensor::from_shape(&[batch.rows, batch.width], batch.input(name)?)?;
                Ok(tensor.into())
            })
            .collect()
    }

    fn run(&mut self, inputs: &Self::Inputs) -> anyhow::Result<Self::Outputs> {
        self.model.run(inputs.clone())
    }

    fn read(&self, outputs: Self::Outputs) -> anyhow::Result<Outputs> {
        let read = |wanted: &str| {
            self.output_names
                .iter()
                .zip(&outputs)
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| {
                    Ok::<_, TractError>(value.to_plain_array_view::<f32>()?.iter().copied().collect())
                })
                .transpose()
        };
        Ok(Outputs {
            hidden: read("last_hidden_state")?.context("there is no last_hidden_state")?,
            pooled: read("pooler_output")?,
        })
    }
}
