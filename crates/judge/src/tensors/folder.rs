//! ONNX's test folders (`test_data_set_0`): `input_0.pb`, `input_1.pb`, … and `output_0.pb`, …, one tensor a file.

use std::path::Path;

use engine::{NamedValues, ValueSpec};
use onnx_graph::Tensor;

use super::TensorsError;

/// Reads `<kind>_0.pb` and those that follow. Each is called by its own name where the model has one of that name, and otherwise by the one
/// that stands at its place among the model's.
pub(super) fn read(path: &Path, kind: &str, specs: &[ValueSpec]) -> Result<NamedValues, TensorsError> {
    let mut values = NamedValues::new();
    for index in 0.. {
        let file = path.join(format!("{kind}_{index}.pb"));
        if !file.is_file() {
            break;
        }
        let (own, tensor) = Tensor::open(&file).map_err(|error| TensorsError::Proto(error.to_string()))?;
        let Some(spec) = specs.iter().find(|spec| spec.name == own).or(specs.get(index)) else {
            return Err(TensorsError::Surplus { path: file, kind: kind.into(), count: specs.len() });
        };
        let value = tensor.to_value().map_err(|source| TensorsError::Value {
            name: spec.name.clone(),
            path: file,
            source,
        })?;
        values.insert(spec.name.clone(), value);
    }
    if values.is_empty() {
        return Err(TensorsError::NoTestData { path: path.into(), kind: kind.into() });
    }
    Ok(values)
}
