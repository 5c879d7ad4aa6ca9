//! What candle users have today: candle-transformers' model, and candle-onnx as it comes. Both take their threads from
//! `RAYON_NUM_THREADS`.

use std::collections::HashMap;

use anyhow::Context as _;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_onnx::onnx::ModelProto;
use candle_transformers::models::bert::{BertModel, Config};

use crate::batch::{Batch, INPUT_NAMES, Outputs};
use crate::peer::Runtime;
use crate::workload::Files;

/// candle-transformers' BertModel, without a pooler, since it has none.
pub struct Transformers(BertModel);

impl Transformers {
    /// Loads the checkpoint.
    pub fn load(files: &Files) -> anyhow::Result<Self> {
        let config: Config = serde_json::from_slice(&std::fs::read(files.config())?)?;
        let weights = candle_core::safetensors::load(files.weights(), &Device::Cpu)?;
        Ok(Self(BertModel::load(VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu), &config)?))
    }
}

/// Token ids, attention mask, token types, as candle's examples make them.
pub struct Ids {
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
}

fn elements(tensor: &Tensor) -> anyhow::Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

impl Runtime for Transformers {
    type Inputs = Ids;
    type Outputs = Tensor;

    fn prepare(&self, batch: &Batch) -> anyhow::Result<Ids> {
        let tensor = |ids: &[i64]| {
            let ids = ids.iter().map(|&id| u32::try_from(id)).collect::<Result<Vec<_>, _>>()?;
            anyhow::Ok(Tensor::from_vec(ids, (batch.rows, batch.width), &Device::Cpu)?)
        };
        Ok(Ids { ids: tensor(&batch.ids)?, mask: tensor(&batch.mask)?, types: tensor(&batch.types)? })
    }

    fn run(&mut self, inputs: &Ids) -> anyhow::Result<Tensor> {
        Ok(self.0.forward(&inputs.ids, &inputs.types, Some(&inputs.mask))?)
    }

    fn read(&self, outputs: Tensor) -> anyhow::Result<Outputs> {
        Ok(Outputs { hidden: elements(&outputs)?, pooled: None })
    }
}

/// candle-onnx's only way to run a graph: it converts every initializer again on every call.
pub struct SimpleEval(ModelProto);

impl SimpleEval {
    /// Reads the graph exported at opset 14: the other has LayerNormalization, which candle-onnx has not.
    pub fn load(files: &Files) -> anyhow::Result<Self> {
        Ok(Self(candle_onnx::read_file(files.opset14())?))
    }
}

impl Runtime for SimpleEval {
    type Inputs = HashMap<String, Tensor>;
    type Outputs = HashMap<String, Tensor>;

    fn prepare(&self, batch: &Batch) -> anyhow::Result<Self::Inputs> {
        INPUT_NAMES
            .iter()
            .zip(batch.inputs())
            .map(|(name, ids)| {
                Ok(((*name).to_owned(), Tensor::from_slice(ids, (batch.rows, batch.width), &Device::Cpu)?))
            })
            .collect()
    }

    fn run(&mut self, inputs: &Self::Inputs) -> anyhow::Result<Self::Outputs> {
        Ok(candle_onnx::simple_eval(&self.0, inputs.clone())?)
    }

    fn read(&self, outputs: Self::Outputs) -> anyhow::Result<Outputs> {
        Ok(Outputs {
            hidden: elements(outputs.get("last_hidden_state").context("there is no last_hidden_state")?)?,
            pooled: outputs.get("pooler_output").map(elements).transpose()?,
        })
    }
}
