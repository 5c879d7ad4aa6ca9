//! Faults that lie between the graph and the one who runs it.

use engine::{NamedValues, Value};

use super::{Explanation, NOISE, bound};
use crate::compare::{Distance, compare, widened};

/// Looks for exchanged or renamed outputs and for exchanged inputs: hypotheses about the whole graph, which are tried before any module is
/// looked at.
///
/// `inputs` are `input_ids`, `attention_mask`, `token_type_ids`, i64 `[batch, sequence]`; `outputs` what the reference makes of them in f64.
/// `run` runs the graph in f64 on such inputs, and gives all its outputs, or nothing where it does not take them. Of an output that is
/// `[batch, sequence, …]`, the positions of real tokens decide, of any other the rows of texts that have one.
///
/// [`Explanation::before`] is infinite where outputs of the same name have different shapes, none has the name of one of the reference's, or the
/// graph does not take the inputs as they are.
///
/// Nothing if the graph agrees as it is, or nothing that is tried makes it agree.
pub fn explain_whole(
    inputs: &NamedValues,
    outputs: &NamedValues,
    run: &mut dyn FnMut(&NamedValues) -> Option<NamedValues>,
) -> Option<Explanation> {
    let mask = inputs.get("attention_mask");
    let as_it_is = run(inputs);
    let mut distance = f64::INFINITY;
    if let Some(as_it_is) = &as_it_is {
        if let Some(explanation) = renamed(outputs, as_it_is, mask) {
            return Some(explanation);
        }
        let before = gap(outputs, as_it_is, mask);
        distance = before.far();
        if distance <= NOISE * before.scale() {
            return None;
        }
    }
    let mut best: Option<Explanation> = None;
    for (text, changed) in other_inputs(inputs) {
        let Some(candidate) = run(&changed) else { continue };
        let gap = gap(outputs, &candidate, mask);
        let better = best.as_ref().is_none_or(|best| gap.far() < best.after);
        if gap.far() <= bound(distance, gap.scale()) && better {
            best = Some(Explanation { text, before: distance, after: gap.far(), module: None });
        }
    }
    best
}

/// How far values of a graph are from the reference's, at the positions that decide; nothing where
/// shapes or dtypes differ.
struct Gap(Option<Distance>);

impl Gap {
    fn of(reference: &Value, candidate: &Value, mask: Option<&Value>) -> Self {
        let decides = decides(reference.shape(), mask);
        let comparison = compare(&widened(reference), &widened(candidate), &decides, 0.);
        Self(comparison.ok().map(|comparison| comparison.deciding))
    }

    /// The largest distance; infinite where nothing can be compared, or a value is not finite.
    fn far(&self) -> f64 {
        self.0.as_ref().and_then(Distance::max_abs).unwrap_or(f64::INFINITY)
    }

    /// The largest reference value, or 1.
    fn scale(&self) -> f64 {
        self.0.as_ref().map_or(1., |distance| distance.largest_reference().max(1.))
    }
}

/// How far a graph's outputs are from the reference's of the same names.
fn gap(reference: &NamedValues, candidate: &NamedValues, mask: Option<&Value>) -> Gap {
    let both = reference.iter().filter_map(|(name, value)| Some((value, candidate.get(name)?)));
    let mut total = Some(Distance::default());
    for (value, candidate) in both {
        total = total.zip(Gap::of(value, candidate, mask).0).map(|(mut total, gap)| {
            total.merge(gap);
            total
        });
    }
    Gap(total)
}

/// Which positions of a value of that shape decide: those of the mask, or its rows.
fn decides(shape: &[usize], mask: Option<&Value>) -> Vec<bool> {
    let Some(mask) = mask else { return Vec::new() };
    let bits: Vec<bool> = mask.to_f64().into_iter().map(|bit| bit != 0.).collect();
    if shape.len() > 2 && shape.starts_with(mask.shape()) {
        return bits;
    }
    let sequence = mask.shape().last().copied().unwrap_or(1).max(1);
    bits.chunks(sequence).map(|row| row.contains(&true)).collect()
}

/// Outputs whose values are right under another name. Every output of the reference must be found, but for one that the graph may lack.
fn renamed(outputs: &NamedValues, found: &NamedValues, mask: Option<&Value>) -> Option<Explanation> {
    let mut moved: Vec<(&str, &str)> = Vec::new();
    let (mut before, mut after) = (0f64, 0f64);
    for (name, value) in outputs.iter() {
        let distance = |candidate: &Value| {
            let gap = Gap::of(value, candidate, mask);
            (gap.far(), gap.far() <= bound(f64::INFINITY, gap.scale()))
        };
        let own = found.get(name).map(distance);
        if let Some((distance, true)) = own {
            after = after.max(distance);
            continue;
        }
        // What is right under its own name is nobody else's, unless there is no other.
        let is_right = |other: &str, value: &Value| {
            outputs.get(other).is_some_and(|own| {
                let gap = Gap::of(own, value, mask);
                gap.far() <= bound(f64::INFINITY, gap.scale())
            })
        };
        let (right, others): (Vec<_>, Vec<_>) =
            found.iter().partition(|(other, value)| is_right(other, value));
        let elsewhere = others.into_iter().chain(right).map(|(other, value)| (other, distance(value)));
        match elsewhere.into_iter().find(|(_, (_, near))| *near) {
            Some((other, (distance, _))) => {
                before = before.max(own.map_or(f64::INFINITY, |(own, _)| own));
                after = after.max(distance);
                moved.push((name, other));
            }
            None if own.is_some() => return None,
            None => {}
        }
    }
    let text = match moved.as_slice() {
        [] => return None,
        [(a, b), (c, d)] if a == d && b == c => format!("outputs {a} and {c} exchanged"),
        moved => {
            let words =
                moved.iter().map(|(name, other)| format!("output '{other}' has the values of {name}"));
            words.collect::<Vec<_>>().join(", ")
        }
    };
    Some(Explanation { text, before, after, module: None })
}

/// The inputs in each other's place, and the two that are flags inverted.
fn other_inputs(inputs: &NamedValues) -> Vec<(String, NamedValues)> {
    let names: Vec<&str> = inputs.names().collect();
    let mut all = Vec::new();
    let mut push = |text: String, changed: NamedValues| {
        if changed != *inputs {
            all.push((text, changed));
        }
    };
    let value = |name: &str| inputs.get(name).cloned();
    for (at, a) in names.iter().enumerate() {
        for b in &names[at + 1..] {
            let (Some(x), Some(y)) = (value(a), value(b)) else { continue };
            let mut changed = inputs.clone();
            changed.insert(*a, y);
            changed.insert(*b, x);
            push(format!("holds with {a} and {b} exchanged"), changed);
        }
    }
    if let [a, b, c] = names.as_slice() {
        for order in [[b, c, a], [c, a, b]] {
            let mut changed = inputs.clone();
            for (name, from) in [a, b, c].into_iter().zip(order) {
                if let Some(value) = value(from) {
                    changed.insert(*name, value);
                }
            }
            let [x, y, z] = order;
            push(format!("holds with {x} given as {a}, {y} as {b}, {z} as {c}"), changed);
        }
    }
    for name in ["attention_mask", "token_type_ids"] {
        let Some(value) = value(name) else { continue };
        let Ok(bits) = value.as_slice::<i64>() else { continue };
        let inverted: Vec<i64> = bits.iter().map(|bit| 1 - bit).collect();
        if let Ok(inverted) = Value::new(value.shape(), inverted) {
            let mut changed = inputs.clone();
            changed.insert(name, inverted);
            push(format!("holds with {name} inverted, 1 for 0 and 0 for 1"), changed);
        }
    }
    all
}
