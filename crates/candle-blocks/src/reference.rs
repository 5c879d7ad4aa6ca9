use std::collections::HashMap;

use architecture::{Program, Shape};
use candle_core::{DType as CandleDType, Tensor};
use engine::{DType, Dim, Engine, EngineError, NamedValues, Value, ValueSpec, check_inputs};

use crate::{Model, ModelError};

/// A model as an engine: the reference that graphs are judged by.
///
/// Inputs and outputs are those of its program: inputs i64, all but the first optional, outputs in
/// the model's dtype. The output of any module can be asked for by its path.
#[derive(Debug, Clone)]
pub struct ReferenceEngine {
    model: Model,
    inputs: Vec<ValueSpec>,
    outputs: Vec<ValueSpec>,
}

impl ReferenceEngine {
    /// An engine that runs this model.
    pub fn new(model: impl Into<Model>) -> Self {
        let model = model.into();
        let program = model.program();
        let axes = |count: usize| program.axes.iter().take(count).map(|axis| Dim::Symbol((*axis).into()));
        let spec = |name: &str, dtype, shape: Vec<Dim>, optional| ValueSpec {
            name: name.into(),
            dtype,
            shape: Some(shape),
            optional,
        };
        let dtype = match model.dtype() {
            CandleDType::F16 => DType::F16,
            CandleDType::BF16 => DType::BF16,
            CandleDType::F64 => DType::F64,
            _ => DType::F32,
        };
        let all = program.axes.len();
        let inputs = program.inputs.iter().enumerate();
        let inputs =
            inputs.map(|(at, input)| spec(input.name, DType::I64, axes(all).collect(), at > 0)).collect();
        let shapes = program.shapes();
        let outputs = program.outputs.iter().map(|output| {
            let Shape { per_token, width } = shapes[output.step];
            // What is made of one token has lost the tokens' axis.
            let axes = axes(if per_token { all } else { all - 1 });
            spec(output.name, dtype, axes.chain(width.map(Dim::Fixed)).collect(), false)
        });
        let outputs = outputs.collect();
        Self { model, inputs, outputs }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the model is made of.
    pub fn program(&self) -> &Program {
        self.model.program()
    }

    /// Runs the model, and gives those of its values that were asked for.
    fn tensors(&self, inputs: &NamedValues, names: &[&str]) -> Result<HashMap<String, Tensor>, ModelError> {
        let mut given = Vec::new();
        for (name, value) in inputs.iter() {
            given.push((name, value.to_tensor(self.model.device())?));
        }
        let given: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let mut tensors = HashMap::new();
        let mut visit = |module: &str, tensor: &Tensor| {
            if names.contains(&module) {
                tensors.insert(module.to_string(), tensor.clone());
            }
            Ok(())
        };
        let is_output = |name: &&str| self.outputs.iter().any(|spec| spec.name == **name);
        let outputs = match names.iter().all(is_output) {
            true => self.model.run(&given, None)?,
            false => self.model.run(&given, Some(&mut visit))?,
        };
        tensors.extend(outputs.into_iter().map(|(name, tensor)| (name.to_string(), tensor)));
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
            self.outputs.iter().any(|spec| spec.name == name) || self.program().module(name).is_some()
        };
        if let Some(name) = names.iter().find(|name| !known(name)) {
            return Err(unknown(name));
        }
        let tensors = self.tensors(inputs, names).map_err(|error| match error {
            ModelError::Candle(error) => EngineError::Backend(error.into()),
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
