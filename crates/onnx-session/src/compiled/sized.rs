//! What depends on the inputs' sizes alone, such as distances between places, the bias that is
//! looked up by them, and angles of places: computed once for each of the sizes, by the oracle's
//! functions, and kept for the last few sizes. So a run allocates nothing at sizes of which the
//! values are still known.

use std::sync::{Arc, Mutex, PoisonError};

use engine::{EngineError, Value};
use onnx_eval::{Limits, Operation};

use super::dim::{Dim, Int};
use super::run::{Failure, sizes};

/// So many sizes are remembered.
const REMEMBERED: usize = 4;

/// The part of a plan that is run for sizes that are new.
#[derive(Default)]
pub struct Sized {
    pub steps: Vec<SizedStep>,
    /// For each value, whether a step of every run reads it.
    pub wanted: Vec<bool>,
    /// The latest last.
    known: Mutex<Vec<(Vec<usize>, Arc<SizedValues>)>>,
    /// What there is if there are no steps.
    nothing: Arc<SizedValues>,
}

pub struct SizedStep {
    /// The node's name.
    pub label: String,
    pub op: String,
    pub work: SizedWork,
    /// Places, and the shapes that are expected there.
    pub outputs: Vec<Option<(usize, Option<Vec<Dim>>)>>,
}

pub enum SizedWork {
    Onnx(Box<Operation>, Vec<Option<SizedInput>>),
    /// Sizes, as a value of this rank.
    Sizes(Vec<Int>, usize),
}

pub enum SizedInput {
    Slot(usize),
    Constant(Value),
}

/// What has been computed for some sizes.
#[derive(Default)]
pub struct SizedValues(Vec<Option<Value>>);

impl SizedValues {
    pub fn get(&self, slot: usize) -> Option<&Value> {
        self.0.get(slot)?.as_ref()
    }
}

impl Sized {
    /// The values for these sizes.
    pub fn values(&self, symbols: &[usize]) -> Result<Arc<SizedValues>, Failure> {
        if self.steps.is_empty() {
            return Ok(Arc::clone(&self.nothing));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.iter().position(|(of, _)| of == symbols) {
            known[place..].rotate_left(1);
        } else {
            let values = Arc::new(self.compute(symbols)?);
            if known.len() == REMEMBERED {
                known.remove(0);
            }
            known.push((symbols.to_vec(), values));
        }
        known.last().map(|(_, values)| Arc::clone(values)).ok_or(Failure::Assumption)
    }

    fn compute(&self, symbols: &[usize]) -> Result<SizedValues, Failure> {
        let mut values: Vec<Option<Value>> = vec![None; self.wanted.len()];
        for step in &self.steps {
            let results = match &step.work {
                SizedWork::Onnx(operation, inputs) => {
                    let given = inputs.iter().map(|input| match input {
                        Some(SizedInput::Slot(slot)) => {
                            values[*slot].as_ref().map(Some).ok_or(Failure::Assumption)
                        }
                        Some(SizedInput::Constant(value)) => Ok(Some(value)),
                        None => Ok(None),
                    });
                    let given = given.collect::<Result<Vec<_>, _>>()?;
                    let taken = values.iter().flatten().map(|value| value.len() * value.dtype().size());
                    let limits = Limits::default();
                    let max_bytes = limits.max_bytes.saturating_sub(taken.sum());
                    operation.run(&given, Limits { max_bytes, ..limits }).map_err(EngineError::from)?
                }
                SizedWork::Sizes(list, rank) => {
                    vec![Some(numbers(list, *rank, symbols).ok_or(Failure::Assumption)?)]
                }
            };
            for (output, result) in step.outputs.iter().zip(results) {
                let (Some((slot, shape)), Some(value)) = (output, result) else { continue };
                let expected = shape.as_ref().map(|shape| sizes(shape, symbols));
                if expected.is_some_and(|shape| shape.as_deref() != Some(value.shape())) {
                    return Err(Failure::Assumption);
                }
                values[*slot] = Some(value);
            }
        }
        let wanted = values.into_iter().zip(&self.wanted);
        Ok(SizedValues(wanted.map(|(value, wanted)| value.filter(|_| *wanted)).collect()))
    }
}

fn numbers(list: &[Int], rank: usize, symbols: &[usize]) -> Option<Value> {
    let number = |int: &Int| match int {
        Int::Known(number) => Some(*number),
        Int::Size(size) => i64::try_from(size.size(symbols)?).ok(),
    };
    let numbers = list.iter().map(number).collect::<Option<Vec<i64>>>()?;
    let shape = if rank == 0 { vec![] } else { vec![numbers.len()] };
    Value::new(shape, numbers).ok()
}
