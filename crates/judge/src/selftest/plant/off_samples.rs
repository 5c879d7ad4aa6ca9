//! Faults that show on inputs which no suite has, and weights that were moved, which is no fault.

use architecture::Op;
use engine::{DType, Value};

use super::{Plants, Side, Wanted};

/// What is added where a fault shows.
const BUMP: f64 = 0.25;

/// A number of texts that no suite has.
const TEXTS: usize = 40;

impl Plants<'_> {
    /// Faults on one id, one length, one number of texts.
    pub(super) fn off_samples(&mut self) {
        let limits = self.sound.program().limits();
        let takes_ids = |spec: &&engine::ValueSpec| spec.name == "input_ids" && spec.dtype == DType::I64;
        let ids = self.sound.edit.model.graph.inputs.iter().find(takes_ids);
        let Some(dims) = ids.and_then(|spec| spec.shape.clone()).filter(|dims| dims.len() == 2) else {
            return;
        };
        // The last ones but a few: the suite has the very last.
        let (rare, length) = (limits.vocabulary.saturating_sub(5), limits.positions.saturating_sub(5));
        if rare > 1 {
            self.add(34, format!("id {rare} looked up as {}", rare - 1), None, None, |edit| {
                edit.replace_input("input_ids", |nodes, ids| {
                    let [is, other] = [rare, rare - 1].map(|id| nodes.constant(&Value::scalar(id as i64)));
                    let at = nodes.op("Equal", &[ids, &is]);
                    nodes.op("Where", &[&at, &other, ids])
                })
            });
        }
        let value = self.sound.first_norm().map(|(value, _)| value);
        for (axis, at, what) in [(1usize, length, "of the tokens"), (0, TEXTS, "of the texts")] {
            let Some(value) = value.clone().filter(|_| !matches!(dims[axis], engine::Dim::Fixed(_))) else {
                continue;
            };
            self.add(34, format!("{BUMP} too much where the number {what} is {at}"), None, None, |edit| {
                edit.replace(&value, |nodes, sound| {
                    let [along, at] = [axis, at].map(|number| nodes.constant(&Value::scalar(number as i64)));
                    let sizes = nodes.op("Shape", &["input_ids"]);
                    let size = nodes.op("Gather", &[&sizes, &along]);
                    let is = nodes.op("Equal", &[&size, &at]);
                    let [bump, nothing] = [BUMP, 0.0].map(|number| nodes.number(number));
                    let more = nodes.op("Where", &[&is, &bump, &nothing]);
                    nodes.op("Add", &[sound, &more])
                })
            });
        }
    }

    /// Weights that were moved, and what was moved undone elsewhere: the same function.
    pub(super) fn moved(&mut self) {
        let before = self.plants.len();
        let program = self.sound.program();
        let parameter = |step: Option<usize>, name: &str| Some(self.sound.named(step?, name)?.to_string());
        let carrier = |tensor: &str| self.sound.carrier(tensor);
        let first = self.sound.steps(|op| matches!(op, Op::Attention { .. })).map(|(step, _)| step).next();
        let value = first.and_then(|step| program.steps[step].inputs.get(2)?.step());
        // Neurons that are bent and go on, and are no queries, no keys, and no gate.
        let is_bent = |(user, _): (usize, usize)| matches!(program.steps[user].op, Op::Activation { .. });
        let inner = self.widening(0).filter(|&inner| program.consumers(inner).all(is_bent));
        let outer = inner.and_then(|inner| {
            let narrow = |step: &usize| {
                matches!(program.steps[*step].op, Op::Linear { .. })
                    && self.sound.width(*step) != self.sound.width(inner)
            };
            self.sound
                .steps_in(0, |op| matches!(op, Op::Linear { .. }))
                .into_iter()
                .filter(|&step| step > inner)
                .find(narrow)
        });
        let all = |names: [Option<String>; 3]| -> Option<[(String, bool); 3]> {
            let [a, b, c] = names;
            Some([carrier(&a?)?, carrier(&b?)?, carrier(&c?)?])
        };
        let neurons = all([parameter(inner, "weight"), parameter(inner, "bias"), parameter(outer, "weight")]);
        let values = all([
            parameter(value, "weight"),
            parameter(value, "bias"),
            parameter(self.projection(), "weight"),
        ]);
        let width = inner.and_then(|inner| self.sound.width(inner)).unwrap_or(1);
        if let Some([weight, bias, next]) = neurons {
            self.add(35, "the neurons of a layer in the opposite order", None, None, |edit| {
                for ((name, transposed), rows) in [(weight, true), (bias, true), (next, false)] {
                    // The checkpoint has [out, in].
                    edit.change(&name, |elements| reverse(elements, width, rows ^ transposed))?;
                }
                Some(())
            });
        }
        if let Some([weight, bias, next]) = values {
            self.add(35, "a value doubled, and halved behind the attention", None, None, |edit| {
                for ((name, _), factor) in [(weight, 2.0), (bias, 2.0), (next, 0.5)] {
                    edit.change(&name, |elements| elements.iter_mut().for_each(|x| *x *= factor))?;
                }
                Some(())
            });
        }
        self.last_is(before, Wanted::Holds, Side::Graph);
    }

    /// Whether a tensor is the bias of a key, which no softmax sees.
    pub(super) fn is_unseen(&self, tensor: &str) -> bool {
        let program = self.sound.program();
        let mut keys = (0..program.steps.len()).filter(|&step| program.is_only_key(step));
        keys.any(|step| self.sound.named(step, "bias") == Some(tensor))
    }
}

/// The rows of a matrix of so many rows in the opposite order, or the columns of one of so many
/// columns. A vector has one row.
fn reverse(elements: &mut Vec<f32>, width: usize, rows: bool) {
    let old = std::mem::take(elements);
    let other = old.len() / width.max(1);
    *elements = match rows && other > 1 {
        true => old.chunks(other.max(1)).rev().flatten().copied().collect(),
        false => old.chunks(width.max(1)).flat_map(|row| row.iter().rev().copied()).collect(),
    };
}
