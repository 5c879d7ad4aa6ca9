//! This project's engines.

use anyhow::Context as _;
use candle_bert::{BertConfig, BertModel, ReferenceEngine};
use candle_core::{DType, Device};
use checkpoint::Checkpoint;
use engine::{Engine, NamedValues, Value};
use onnx_graph::Model;
use onnx_session::compiled::{Options, Threads};
use onnx_session::{EngineKind, Session};

use crate::batch::{Batch, INPUT_NAMES, Outputs};
use crate::peer::Runtime;
use crate::workload::Files;

/// Any [`Engine`].
pub struct House(Box<dyn Engine>);

/// The engine `compiled`, on its own threads.
pub fn compiled(files: &Files, threads: usize, skip_padding: bool) -> anyhow::Result<House> {
    let options = Options { threads: Threads::Count(threads), skip_padding, ..Options::default() };
    Ok(House(Box::new(Session::with(&Model::open(files.graph())?, options)?)))
}

/// The engine `candle`. Its threads are those of candle: `RAYON_NUM_THREADS`.
pub fn candle(files: &Files) -> anyhow::Result<House> {
    Ok(House(Box::new(Session::new(&Model::open(files.graph())?, EngineKind::Candle)?)))
}

/// The native model in f32, with candle's threads.
pub fn reference(files: &Files) -> anyhow::Result<House> {
    Ok(House(Box::new(bert(files, DType::F32)?)))
}

/// The native model.
pub fn bert(files: &Files, dtype: DType) -> anyhow::Result<ReferenceEngine> {
    let config = BertConfig::from_json(&std::fs::read(files.config())?)?;
    let checkpoint = Checkpoint::open_safetensors(files.weights())?;
    Ok(ReferenceEngine::new(BertModel::from_checkpoint(&checkpoint, &config, dtype, &Device::Cpu)?.model))
}

/// A batch as this project's engines take it.
pub fn named_values(batch: &Batch) -> anyhow::Result<NamedValues> {
    INPUT_NAMES
        .iter()
        .zip(batch.inputs())
        .map(|(name, ids)| Ok((*name, Value::new([batch.rows, batch.width], ids)?)))
        .collect()
}

impl Runtime for House {
    type Inputs = NamedValues;
    type Outputs = NamedValues;

    fn prepare(&self, batch: &Batch) -> anyhow::Result<NamedValues> {
        named_values(batch)
    }

    fn run(&mut self, inputs: &NamedValues) -> anyhow::Result<NamedValues> {
        Ok(self.0.run(inputs)?)
    }

    fn read(&self, outputs: NamedValues) -> anyhow::Result<Outputs> {
        let hidden = outputs.get("last_hidden_state").context("there is no last_hidden_state")?;
        let pooled = outputs.get("pooler_output").map(Value::as_slice::<f32>).transpose()?;
        Ok(Outputs { hidden: hidden.as_slice::<f32>()?.to_vec(), pooled: pooled.map(<[f32]>::to_vec) })
    }
}
