use std::collections::HashMap;

use candle_core::{DType as CandleDType, Tensor};
use engine::{DType, Dim, Engine, EngineError, NamedValues, Value, ValueSpec, check_inputs};

use crate::{BertError, BertForTask, BertModel, Task};

/// A model as an engine: the reference that graphs are judged by.
///
/// Inputs are `input_ids`, `attention_mask` and `token_type_ids`, i64, the last two optional, with the axes of [`Task::input_axes`]. Outputs are those of
/// [`Task::outputs`], in the model's dtype; without a pooler there is no `pooler_output`. The output of any module can be asked for by its path:
/// `encoder.layer.0.attention.self`, `classifier`.
#[derive(Debug, Clone)]
pub struct ReferenceEngine {
    model: BertForTask,
    inputs: Vec<ValueSpec>,
    outputs: Vec<ValueSpec>,
    modules: Vec<String>,
}

impl ReferenceEngine {
    /// An engine that runs this model: a [`BertModel`], one with a head, or a [`BertForTask`].
    pub fn new(model: impl Into<BertForTask>) -> Self {
        let model = model.into();
        let spec = |name: &str, dtype, shape: Vec<Dim>, optional| ValueSpec {
            name: name.into(),
            dtype,
            shape: Some(shape),
            optional,
        };
        let axes = || model.task().input_axes().iter().map(|axis| Dim::Symbol((*axis).into()));
        let inputs = [("input_ids", false), ("attention_mask", true), ("token_type_ids", true)];
        let dtype = match model.dtype() {
            CandleDType::F16 => DType::F16,
            CandleDType::BF16 => DType::BF16,
            CandleDType::F64 => DType::F64,
            _ => DType::F32,
        };
        Self {
            inputs: inputs.map(|(name, optional)| spec(name, DType::I64, axes().collect(), optional)).into(),
            outputs: output_shapes(&model).map(|(name, shape)| spec(name, dtype, shape, false)).collect(),
            modules: model.module_paths(),
            model,
        }
    }

    /// The encoder of the model: the model itself where it has no head.
    pub fn model(&self) -> &BertModel {
        self.model.bert()
    }

    /// The model with its head.
    pub fn task_model(&self) -> &BertForTask {
        &self.model
    }

    /// The path of every module whose output can be asked for, in the order of execution.
    pub fn module_paths(&self) -> &[String] {
        &self.modules
    }

    /// Runs the model, and gives those of its values that were asked for.
    fn tensors(&self, inputs: &NamedValues, names: &[&str]) -> Result<HashMap<String, Tensor>, BertError> {
        let tensor = |name| inputs.get(name).map(|value| value.to_tensor(self.model.device())).transpose();
        let (ids, mask, types) = (tensor("input_ids")?, tensor("attention_mask")?, tensor("token_type_ids")?);
        // `check_inputs` has seen that it is there.
        let Some(ids) = ids else { return Ok(HashMap::new()) };
        let mut tensors = HashMap::new();
        let outputs = if names.iter().all(|name| self.outputs.iter().any(|spec| spec.name == *name)) {
            self.model.forward(&ids, mask.as_ref(), types.as_ref())?
        } else {
            self.model.forward_with_taps(&ids, mask.as_ref(), types.as_ref(), &mut |module, tensor| {
                if names.contains(&module) {
                    tensors.insert(module.to_string(), tensor.clone());
                }
                Ok(())
            })?
        };
        tensors.extend(outputs.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())));
        Ok(tensors)
    }
}

/// The outputs of a model, with their shapes.
fn output_shapes(model: &BertForTask) -> impl Iterator<Item = (&'static str, Vec<Dim>)> {
    let config = model.config();
    let width = match model.task() {
        Task::FeatureExtraction => Some(config.hidden_size),
        Task::SequenceClassification | Task::TokenClassification => Some(config.num_labels),
        Task::MaskedLm => Some(config.vocab_size),
        Task::NextSentencePrediction => Some(2),
        Task::MultipleChoice | Task::QuestionAnswering => None,
    };
    let axes = model.task().input_axes();
    let has_pooler = model.bert().has_pooler();
    let names = model.task().outputs().iter().filter(move |name| has_pooler || **name != "pooler_output");
    names.map(move |name| {
        // What is made of the pooled token has lost the tokens' axis.
        let pooled = match model.task() {
            Task::FeatureExtraction => *name == "pooler_output",
            task => task.pooler() == Some(true),
        };
        let axes = if pooled { &axes[..axes.len() - 1] } else { axes };
        let symbols = axes.iter().map(|axis| Dim::Symbol((*axis).into()));
        (*name, symbols.chain(width.map(Dim::Fixed)).collect())
    })
}

impl Engine for ReferenceEngine {
    fn name(&self) -> &str {
        "reference"
    }

    fn inputs(&self) -> &[ValueSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[ValueSpec] {
        &self.outputs
    }

    fn run_for(&self, inputs: &NamedValues, names: &[&str]) -> Result<NamedValues, EngineError> {
        check_inputs(&self.inputs, inputs)?;
        let unknown = |name: &str| EngineError::UnknownValue { name: name.into() };
        let known = |name: &str| {
            self.outputs.iter().any(|spec| spec.name == name) || self.modules.iter().any(|path| path == name)
        };
        if let Some(name) = names.iter().find(|name| !known(name)) {
            return Err(unknown(name));
        }
        let tensors = self.tensors(inputs, names).map_err(|error| match error {
            BertError::Candle(error) => EngineError::Backend(error.into()),
            error => EngineError::BadInput(error.into()),
        })?;
        names
            .iter()
            .map(|&name| {
                let tensor = tensors.get(name).ok_or_else(|| unknown(name))?;
                let value = Value::from_tensor(tensor)
                    .map_err(|source| EngineError::Output { name: name.into(), source })?;
                Ok((name, value))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
