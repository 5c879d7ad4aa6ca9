//! Values within the reference that transformers gives on request: hidden states and attentions.

use architecture::{Op, Program, Wire};
use candle_core::{D, DType as CandleDType, Device, Result, Tensor};
use engine::{DType, Dim, NamedValues, Value, ValueSpec};

use super::rounded;

/// A value within the reference.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Inner {
    /// What a module gives, `[batch, sequence, width]`.
    State { module: String, width: Option<usize> },
    /// Who attends to whom, `[batch, heads, sequence, sequence]`: the softmax of what these modules
    /// give.
    Attention { query: String, key: String, heads: usize },
}

/// All of a model's, under transformers' and optimum's names: `hidden_states.0` is what goes into
/// the first layer, `hidden_states.1` what comes out of it, `attentions.0` its attention.
pub(super) fn all(program: &Program) -> Vec<(String, Inner)> {
    let layers = || (0..program.layers()).filter_map(|layer| layer_end(program, layer));
    let states = before_layers(program).into_iter().chain(layers());
    let states = states.filter_map(|step| {
        let module = program.ending_at(step).next()?.path.clone();
        Some(Inner::State { module, width: program.shapes()[step].width })
    });
    let module = |wire: Option<&Wire>| Some(program.ending_at(wire?.step()?).next()?.path.clone());
    let attentions = program.steps.iter().filter_map(|step| match step.op {
        Op::Attention { heads } => Some(Inner::Attention {
            query: module(step.inputs.first())?,
            key: module(step.inputs.get(1))?,
            heads,
        }),
        _ => None,
    });
    let numbered = |name: &'static str| move |(at, inner)| (format!("{name}.{at}"), inner);
    let states = states.enumerate().map(numbered("hidden_states"));
    states.chain(attentions.enumerate().map(numbered("attentions"))).collect()
}

/// A name as [`all`] has it, whatever stands between the word and the number.
pub(super) fn usual(name: &str) -> String {
    let digits = name.trim_end_matches(']');
    let word = digits.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let number = &digits[word.len()..];
    match word.trim_end_matches(['.', '_', '[']) {
        "hidden_states" | "hidden_state" => format!("hidden_states.{number}"),
        "attentions" | "attention" => format!("attentions.{number}"),
        _ => name.into(),
    }
}

/// The step that a repeated layer ends with.
fn layer_end(program: &Program, layer: usize) -> Option<usize> {
    let own = program.modules.iter().find(|module| module.item == Some(layer));
    own.map(|module| module.output)
}

/// The step whose value goes into the first layer.
fn before_layers(program: &Program) -> Option<usize> {
    let is_within = |module: &str| program.layer_of(module) == Some(0);
    let first = program.steps.iter().find(|step| is_within(&step.module))?;
    first.inputs.first()?.step()
}

impl Inner {
    /// The modules that it is made of.
    pub fn taps(&self) -> Vec<&str> {
        match self {
            Self::State { module, .. } => vec![module],
            Self::Attention { query, key, .. } => vec![query, key],
        }
    }

    pub fn spec(&self, name: &str, dtype: DType) -> ValueSpec {
        let symbol = |name: &str| Dim::Symbol(name.into());
        let (batch, sequence) = (symbol("batch"), symbol("sequence"));
        let shape = match self {
            Self::State { width, .. } => vec![batch, sequence, width.map_or(Dim::Any, Dim::Fixed)],
            Self::Attention { heads, .. } => vec![batch, Dim::Fixed(*heads), sequence.clone(), sequence],
        };
        ValueSpec { name: name.into(), dtype, shape: Some(shape), optional: false }
    }

    /// Its value, of what the modules give.
    pub fn value(&self, taps: &NamedValues, mask: Option<&Value>) -> Option<Value> {
        match self {
            Self::State { module, .. } => taps.get(module).cloned(),
            Self::Attention { query, key, heads } => {
                let (query, key) = (taps.get(query)?, taps.get(key)?);
                let weights = attention(query, key, *heads, mask).ok()?;
                rounded(&Value::from_tensor(&weights).ok()?, query.dtype())
            }
        }
    }
}

/// softmax(q kᵀ / √d) over the real tokens, in f64. In a row without any, every token attends to
/// all of them equally, as in transformers.
fn attention(query: &Value, key: &Value, heads: usize, mask: Option<&Value>) -> Result<Tensor> {
    let split = |value: &Value| {
        let x = value.to_tensor(&Device::Cpu)?.to_dtype(CandleDType::F64)?;
        let (rows, sequence, width) = x.dims3()?;
        x.reshape((rows, sequence, heads, width / heads.max(1)))?.transpose(1, 2)?.contiguous()
    };
    let (query, key) = (split(query)?, split(key)?);
    let (rows, _, sequence, width) = query.dims4()?;
    let mut scores = (query.matmul(&key.transpose(2, 3)?)? / (width as f64).sqrt())?;
    if let Some(mask) = mask {
        let mask = mask.to_tensor(&Device::Cpu)?.reshape((rows, 1, 1, sequence))?.ne(0f64)?;
        let lowest = Tensor::full(f64::MIN, scores.dims(), scores.device())?;
        scores = mask.broadcast_as(scores.dims())?.where_cond(&scores, &lowest)?;
    }
    let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_use() {
        for (name, usual_name) in [
            ("hidden_states.3", "hidden_states.3"),
            ("hidden_states_12", "hidden_states.12"),
            ("attentions[0]", "attentions.0"),
            ("attention_1", "attentions.1"),
            ("logits", "logits"),
            ("1234", "1234"),
        ] {
            assert_eq!(usual(name), usual_name);
        }
    }

    #[test]
    fn attention_sees_real_tokens_only() {
        let query = Value::new([2, 2, 2], vec![1f64, 0., 0., 1., 1., 1., 2., 2.]).unwrap();
        let mask = Value::new([2, 2], vec![1i64, 0, 0, 0]).unwrap();
        let weights = attention(&query, &query, 2, Some(&mask)).unwrap();
        assert_eq!(weights.dims(), [2, 2, 2, 2]);
        let numbers: Vec<f64> = weights.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(numbers[..4], [1., 0., 1., 0.]);
        assert_eq!(numbers[8..], [0.5; 8]);
        // One head of one feature over two real tokens: 1 · 1 and 1 · 0.
        let one = Value::new([1, 2, 1], vec![1f64, 0.]).unwrap();
        let weights = attention(&one, &one, 1, None).unwrap().flatten_all().unwrap();
        let e = std::f64::consts::E;
        let expected = [e / (e + 1.), 1. / (e + 1.), 0.5, 0.5];
        for (found, expected) in weights.to_vec1::<f64>().unwrap().into_iter().zip(expected) {
            approx::assert_abs_diff_eq!(found, expected, epsilon = 1e-15);
        }
    }
}
