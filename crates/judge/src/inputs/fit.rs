//! What a graph or a reference takes of an input.

use engine::{DType, NamedValues, Value, ValueError, ValueSpec};

use crate::error::FitError;

/// The inputs of a case as a graph takes them: those that it does not have are left out, and int64
/// becomes int32 where it wants that.
///
/// # Errors
/// If the graph wants an input that is missing, or of a dtype that cannot be made.
pub fn fit_inputs(inputs: &NamedValues, specs: &[ValueSpec]) -> Result<NamedValues, FitError> {
    let mut fitted = NamedValues::new();
    for spec in specs {
        let value = match inputs.get(&spec.name) {
            Some(value) => value.clone(),
            None if spec.optional => continue,
            None => return Err(FitError::Missing(spec.clone())),
        };
        let wrong = || FitError::DType { spec: spec.clone(), found: value.dtype() };
        let value = match (value.dtype(), spec.dtype) {
            (found, wanted) if found == wanted => value,
            (DType::I64, DType::I32) => {
                let narrow: Result<Vec<i32>, _> =
                    value.as_slice::<i64>()?.iter().map(|&x| i32::try_from(x)).collect();
                Value::new(value.shape(), narrow.map_err(|_| wrong())?)?
            }
            _ => return Err(wrong()),
        };
        fitted.insert(spec.name.clone(), value);
    }
    Ok(fitted)
}

/// The inputs of a case as both sides can take them.
///
/// An optional input of the reference that the graph does not have goes to neither side: the
/// reference then takes what such an export has built in, a mask of ones or token types of zeros.
/// Where the graph insists on one that was not given, it gets the same.
///
/// # Errors
/// If a default cannot be made, which a shape that was given rules out.
pub fn common_inputs(
    inputs: &NamedValues,
    reference: &[ValueSpec],
    graph: &[ValueSpec],
) -> Result<NamedValues, ValueError> {
    let mut common = inputs.clone();
    for spec in reference.iter().filter(|spec| spec.optional) {
        let wanted = graph.iter().find(|input| input.name == spec.name);
        match (wanted, inputs.get("input_ids")) {
            (None, _) => {
                common.remove(&spec.name);
            }
            (Some(wanted), Some(ids)) if !wanted.optional && !inputs.contains(&spec.name) => {
                let default = i64::from(spec.name == "attention_mask");
                common.insert(&spec.name, Value::new(ids.shape(), vec![default; ids.len()])?);
            }
            _ => {}
        }
    }
    Ok(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_fitted_to_the_graph() {
        let given = NamedValues::from_iter([
            ("input_ids", Value::new([1, 1], vec![7i64]).unwrap()),
            ("token_type_ids", Value::new([1, 1], vec![0i64]).unwrap()),
        ]);
        let mut ids = ValueSpec { name: "input_ids".into(), dtype: DType::I32, shape: None, optional: false };
        let fitted = fit_inputs(&given, &[ids.clone()]).unwrap();
        assert_eq!(fitted.names().collect::<Vec<_>>(), ["input_ids"]);
        assert_eq!(fitted.get("input_ids").unwrap().as_slice::<i32>().unwrap(), [7]);
        // What the graph wants and nobody gives is an error, and so is an id that int32 cannot
        // hold.
        ids.name = "position_ids".into();
        assert!(matches!(fit_inputs(&given, &[ids.clone()]), Err(FitError::Missing(_))));
        ids.name = "input_ids".into();
        let huge = NamedValues::from_iter([("input_ids", Value::new([1, 1], vec![i64::MAX]).unwrap())]);
        assert!(matches!(fit_inputs(&huge, &[ids]), Err(FitError::DType { .. })));
    }
}
