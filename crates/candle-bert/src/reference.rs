use std::collections::HashMap;

use candle_core::{DType as CandleDType, Tensor};
use engine::{DType, Dim, Engine, EngineError, NamedValues, Value, ValueSpec, check_inputs};

use crate::{BertError, BertModel};

const OUTPUTS: [&str; 2] = ["last_hidden_state", "pooler_output"];

/// A [`BertModel`] as an engine: the reference that graphs are judged by.
///
/// Inputs are `input_ids`, `attention_mask` and `token_type_ids`, i64 `[batch, sequence]`, the last two optional.
/// Outputs are `last_hidden_state` and, if the model has a pooler, `pooler_output`, in the model's dtype. The output of
/// any module can be asked for by its path: `encoder.layer.0.attention.self`.
#[derive(Debug, Clone)]
pub struct ReferenceEngine {
    model: BertModel,
    inputs: Vec<ValueSpec>,
    outputs: Vec<ValueSpec>,
    modules: Vec<String>,
}

impl ReferenceEngine {
    /// An engine that runs this model.
    pub fn new(model: BertModel) -> Self {
        let symbol = |name: &str| Dim::Symbol(name.into());
        let spec = |name: &str, dtype, shape: Vec<Dim>, optional| ValueSpec {
            name: name.into(),
            dtype,
            shape: Some(shape),
            optional,
        };
        let tokens = || vec![symbol("batch"), symbol("sequence")];
        let inputs = [("input_ids", false), ("attention_mask", true), ("token_type_ids", true)];
        let dtype = match model.dtype() {
            CandleDType::F16 => DType::F16,
            CandleDType::BF16 => DType::BF16,
            CandleDType::F64 => DType::F64,
            _ => DType::F32,
        };
        let hidden = Dim::Fixed(model.config().hidden_size);
        let shapes =
            [vec![symbol("batch"), symbol("sequence"), hidden.clone()], vec![symbol("batch"), hidden]];
        Self {
            inputs: inputs.map(|(name, optional)| spec(name, DType::I64, tokens(), optional)).into(),
            outputs: OUTPUTS
                .into_iter()
                .zip(shapes)
                .take(if model.has_pooler() { 2 } else { 1 })
                .map(|(name, shape)| spec(name, dtype, shape, false))
                .collect(),
            modules: model.module_paths(),
            model,
        }
    }

    /// The model.
    pub fn model(&self) -> &BertModel {
        &self.model
    }

    /// Runs the model, and gives those of its values that were asked for.
    fn tensors(&self, inputs: &NamedValues, names: &[&str]) -> Result<HashMap<String, Tensor>, BertError> {
        let tensor = |name| inputs.get(name).map(|value| value.to_tensor(self.model.device())).transpose();
        let (ids, mask, types) = (tensor("input_ids")?, tensor("attention_mask")?, tensor("token_type_ids")?);
        // `check_inputs` has seen that it is there.
        let Some(ids) = ids else { return Ok(HashMap::new()) };
        let mut tensors = HashMap::new();
        let output = if names.iter().all(|name| OUTPUTS.contains(name)) {
            self.model.forward(&ids, mask.as_ref(), types.as_ref())?
        } else {
            self.model.forward_with_taps(&ids, mask.as_ref(), types.as_ref(), &mut |module, tensor| {
                if names.contains(&module) {
                    tensors.insert(module.to_string(), tensor.clone());
                }
                Ok(())
            })?
        };
        tensors.insert("last_hidden_state".into(), output.last_hidden_state);
        tensors.extend(output.pooler_output.map(|pooled| ("pooler_output".into(), pooled)));
        Ok(tensors)
    }
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
