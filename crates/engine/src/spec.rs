use std::collections::HashMap;
use std::fmt;

use crate::{DType, NamedValues, Value};

/// One dimension of a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Always this size.
    Fixed(usize),
    /// Any size, the same wherever this name stands (ONNX's `dim_param`).
    Symbol(String),
    /// Any size.
    Any,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(size) => write!(f, "{size}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Any => f.write_str("?"),
        }
    }
}

/// What an input or output is called and what may be put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueSpec {
    /// Its name.
    pub name: String,
    /// Its dtype.
    pub dtype: DType,
    /// Its dimensions; `None` where even the rank is open.
    pub shape: Option<Vec<Dim>>,
    /// Whether it may be left out (an input that has a default).
    pub optional: bool,
}

impl fmt::Display for ValueSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.dtype)?;
        match &self.shape {
            None => f.write_str("[…]"),
            Some(dims) => {
                let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
                write!(f, "[{}]", dims.join(", "))
            }
        }
    }
}

/// Why inputs do not fit an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum InputError {
    /// A required input was not given.
    #[error("input '{name}' is missing (this model takes {expected})")]
    Missing { name: String, expected: String },
    /// An input was given that the model does not have.
    #[error("there is no input '{name}' (this model takes {expected})")]
    Unexpected { name: String, expected: String },
    /// An input of the wrong dtype.
    #[error("input '{name}' must be {expected}, got {found}")]
    DType { name: String, expected: DType, found: DType },
    /// An input whose shape is not the declared one.
    #[error("input '{spec}' was given shape {found:?}")]
    Shape { spec: Box<ValueSpec>, found: Vec<usize> },
    /// Two inputs disagree about the size of a named dimension.
    #[error("inputs disagree about '{symbol}': {first_size} in '{first}', {second_size} in '{second}'")]
    Symbol { symbol: String, first: String, first_size: usize, second: String, second_size: usize },
}

/// Checks that `inputs` are what `specs` ask for: names, dtypes, ranks, fixed sizes, and named sizes that agree.
///
/// # Errors
/// The first thing that does not fit.
pub fn check_inputs(specs: &[ValueSpec], inputs: &NamedValues) -> Result<(), InputError> {
    let expected = || specs.iter().map(ValueSpec::to_string).collect::<Vec<_>>().join(", ");
    if let Some(name) = inputs.names().find(|name| !specs.iter().any(|spec| spec.name == **name)) {
        return Err(InputError::Unexpected { name: name.into(), expected: expected() });
    }
    let mut symbols = HashMap::new();
    for spec in specs {
        match inputs.get(&spec.name) {
            Some(value) => check_input(spec, value, &mut symbols)?,
            None if spec.optional => {}
            None => return Err(InputError::Missing { name: spec.name.clone(), expected: expected() }),
        }
    }
    Ok(())
}

fn check_input<'a>(
    spec: &'a ValueSpec,
    value: &Value,
    symbols: &mut HashMap<&'a str, (&'a str, usize)>,
) -> Result<(), InputError> {
    if value.dtype() != spec.dtype {
        return Err(InputError::DType {
            name: spec.name.clone(),
            expected: spec.dtype,
            found: value.dtype(),
        });
    }
    let Some(dims) = &spec.shape else { return Ok(()) };
    let wrong_shape = || InputError::Shape { spec: Box::new(spec.clone()), found: value.shape().to_vec() };
    if dims.len() != value.shape().len() {
        return Err(wrong_shape());
    }
    for (dim, &size) in dims.iter().zip(value.shape()) {
        match dim {
            Dim::Fixed(fixed) if *fixed != size => return Err(wrong_shape()),
            Dim::Fixed(_) | Dim::Any => {}
            Dim::Symbol(symbol) => {
                let (first, first_size) = *symbols.entry(symbol).or_insert((&spec.name, size));
                if first_size != size {
                    return Err(InputError::Symbol {
                        symbol: symbol.clone(),
                        first: first.into(),
                        first_size,
                        second: spec.name.clone(),
                        second_size: size,
                    });
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Vec<ValueSpec> {
        let shape = Some(vec![Dim::Symbol("batch".into()), Dim::Symbol("sequence".into())]);
        let spec = |name: &str, optional| ValueSpec {
            name: name.into(),
            dtype: DType::I64,
            shape: shape.clone(),
            optional,
        };
        vec![spec("input_ids", false), spec("attention_mask", true)]
    }

    fn message(inputs: &[(&str, Value)]) -> String {
        let inputs = inputs.iter().map(|(name, value)| (*name, value.clone())).collect();
        check_inputs(&specs(), &inputs).unwrap_err().to_string()
    }

    fn zeros(shape: &[usize]) -> Value {
        Value::new(shape, vec![0i64; shape.iter().product()]).unwrap()
    }

    #[test]
    fn what_fits_passes() {
        let inputs = NamedValues::from_iter([("input_ids", zeros(&[2, 3]))]);
        assert_eq!(check_inputs(&specs(), &inputs), Ok(()));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let all = "input_ids i64[batch, sequence], attention_mask i64[batch, sequence]";
        assert_eq!(message(&[]), format!("input 'input_ids' is missing (this model takes {all})"));
        assert_eq!(
            message(&[("ids", zeros(&[2, 3]))]),
            format!("there is no input 'ids' (this model takes {all})")
        );
        assert_eq!(
            message(&[("input_ids", Value::new([1, 1], vec![0i32]).unwrap())]),
            "input 'input_ids' must be i64, got i32"
        );
        assert_eq!(
            message(&[("input_ids", zeros(&[3]))]),
            "input 'input_ids i64[batch, sequence]' was given shape [3]"
        );
        assert_eq!(
            message(&[("input_ids", zeros(&[2, 3])), ("attention_mask", zeros(&[2, 4]))]),
            "inputs disagree about 'sequence': 3 in 'input_ids', 4 in 'attention_mask'"
        );
    }
}
