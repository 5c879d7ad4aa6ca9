//! rten, with weights packed at load: an option that is off by default, and that a user who wants speed turns on.

use std::sync::Arc;

use anyhow::Context as _;
use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value};
use rten_tensor::{AsView as _, Tensor};

use crate::batch::{Batch, INPUT_NAMES, Outputs};
use crate::peer::Runtime;
use crate::workload::Files;

/// A loaded model.
pub struct Rten {
    model: Model,
    hidden: NodeId,
    pooled: NodeId,
    options: RunOptions,
}

impl Rten {
    /// Loads the graph as exported.
    pub fn load(files: &Files, threads: usize) -> anyhow::Result<Self> {
        let model = ModelOptions::with_all_ops().prepack_weights(true).load_file(files.graph())?;
        let pool = ThreadPool::with_num_threads(threads);
        Ok(Self {
            hidden: model.node_id("last_hidden_state")?,
            pooled: model.node_id("pooler_output")?,
            model,
            options: RunOptions::default().with_thread_pool(Some(Arc::new(pool))),
        })
    }
}

impl Runtime for Rten {
    /// rten has no i64: its own loader makes i32 of it.
    type Inputs = Vec<(NodeId, Tensor<i32>)>;
    type Outputs = Vec<Value>;

    fn prepare(&self, batch: &Batch) -> anyhow::Result<Self::Inputs> {
        INPUT_NAMES
            .iter()
            .zip(batch.inputs())
            .map(|(name, ids)| {
                let ids = ids.iter().map(|&id| i32::try_from(id)).collect::<Result<Vec<_>, _>>()?;
                Ok((self.model.node_id(name)?, Tensor::from_data(&[batch.rows, batch.width], ids)))
            })
            .collect()
    }

    fn run(&mut self, inputs: &Self::Inputs) -> anyhow::Result<Self::Outputs> {
        let inputs = inputs.iter().map(|(node, tensor)| (*node, tensor.view().into())).collect();
        Ok(self.model.run(inputs, &[self.hidden, self.pooled], Some(self.options.clone()))?)
    }

    fn read(&self, outputs: Self::Outputs) -> anyhow::Result<Outputs> {
        let mut values = outputs.into_iter();
        let mut next = || {
            let value = values.next().context("an output is missing")?;
            anyhow::Ok(Tensor::<f32>::try_from(value)?.to_vec())
        };
        Ok(Outputs { hidden: next()?, pooled: Some(next()?) })
    }
}
