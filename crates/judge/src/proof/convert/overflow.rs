//! Where half precision overflows.

use std::collections::HashSet;

use engine::{Engine, NamedValues, Value};
use onnx_eval::Oracle;

use crate::compare::{Answers, deciding, widened};
use crate::inputs::{Case, fit_inputs};

/// As many values are tried as the one that spoils the outputs. Masks make −∞ in every layer, which spoils nothing, and each try costs a run.
const TRIED: usize = 200;

/// A value that is not finite, and with it an output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NotFinite {
    /// The input.
    pub input: String,
    /// The value of the graph.
    pub value: String,
    /// The node that gives it.
    pub node: String,
    /// That node's operator.
    pub op: String,
    /// The largest |element| before it is rounded; nothing where it is no number even then.
    pub largest: Option<f64>,
}

/// What makes an output not finite at a position that decides, on the smallest input where that is so and the truth is finite.
///
/// Where nothing is rounded, that is the first NaN. Else it is the first value that is not finite as the graph rounds it, is finite before, and alone
/// spoils an output: put in the place of the exact one it makes that output not finite. A mask's −∞ does not.
pub(crate) fn not_finite(
    exact: (&Oracle, &Answers),
    rounded: (&Oracle, &Answers),
    truth: &Answers,
) -> Option<NotFinite> {
    let spoiled = |case: &Case, outputs: &NamedValues| {
        truth.specs().iter().any(|spec| {
            let truth = truth.on(case).and_then(|truth| truth.get(&spec.name));
            let sides = truth.zip(outputs.get(&spec.name));
            sides.is_some_and(|(truth, found)| spoils(truth, found, &deciding(spec, &case.inputs)))
        })
    };
    let smallest = |answers: &Answers| {
        let positions = |case: &&Case| case.inputs.get("input_ids").map_or(0, Value::len);
        let all = answers.iter().filter(|(case, outputs)| spoiled(case, outputs));
        all.map(|(case, _)| case.clone()).min_by_key(|case| positions(&case))
    };
    if let Some(case) = smallest(exact.1) {
        return first_nan(exact.0, &case);
    }
    let case = smallest(rounded.1)?;
    first_overflow(exact.0, rounded.0, &case, |outputs| spoiled(&case, outputs))
}

fn first_overflow(
    exact: &Oracle,
    rounded: &Oracle,
    case: &Case,
    spoiled: impl Fn(&NamedValues) -> bool,
) -> Option<NotFinite> {
    let inputs = fit_inputs(&case.inputs, exact.inputs()).ok()?;
    let also: HashSet<&str> = rounded.needed_values().collect();
    let common: Vec<&str> = exact.needed_values().filter(|name| also.contains(name)).collect();
    let (plain, rounded) = (exact.run_for(&inputs, &common).ok()?, rounded.run_for(&inputs, &common).ok()?);
    let names: Vec<&str> = exact.outputs().iter().map(|spec| spec.name.as_str()).collect();
    let candidates = common.iter().filter(|name| {
        let both = plain.get(name).zip(rounded.get(name));
        both.is_some_and(|(plain, rounded)| spoils(plain, rounded, &[]))
    });
    let first = candidates.take(TRIED).find(|name| {
        let Some(value) = rounded.get(name) else { return false };
        let substitutes = NamedValues::from_iter([(**name, widened(value))]);
        exact.run_with(&inputs, &names, &substitutes).is_ok_and(|outputs| spoiled(&outputs))
    })?;
    let largest = plain.get(first)?.to_f64().into_iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    NotFinite::of(exact, case, first, Some(largest))
}

/// The first NaN of which nothing that its node takes is one.
fn first_nan(exact: &Oracle, case: &Case) -> Option<NotFinite> {
    let inputs = fit_inputs(&case.inputs, exact.inputs()).ok()?;
    let needed: Vec<&str> = exact.needed_values().collect();
    let values = exact.run_for(&inputs, &needed).ok()?;
    let is_nan =
        |name: &&str| values.get(name).is_some_and(|value| value.to_f64().into_iter().any(f64::is_nan));
    NotFinite::of(exact, case, needed.iter().copied().find(is_nan)?, None)
}

/// Whether an element that decides is finite on the first side only.
fn spoils(truth: &Value, found: &Value, decides: &[bool]) -> bool {
    if !truth.dtype().is_float() || truth.shape() != found.shape() {
        return false;
    }
    let per_position = truth.len().checked_div(decides.len()).unwrap_or(0).max(1);
    let sides = truth.to_f64().into_iter().zip(found.to_f64()).enumerate();
    sides.into_iter().any(|(flat, (truth, found))| {
        decides.get(flat / per_position).copied().unwrap_or(true) && truth.is_finite() && !found.is_finite()
    })
}

impl NotFinite {
    fn of(exact: &Oracle, case: &Case, value: &str, largest: Option<f64>) -> Option<Self> {
        let node = exact.nodes().find(|node| node.outputs.iter().any(|output| output == value))?;
        Some(Self {
            input: case.name.clone(),
            value: value.into(),
            node: node.name.clone(),
            op: node.op.clone(),
            largest,
        })
    }

    /// What happened, where, and by how much.
    pub fn sentence(&self) -> String {
        let Self { input, value, node, op, largest } = self;
        match largest {
            Some(largest) => format!(
                "overflow: '{value}' of {op} '{node}' is not finite on input '{input}' as the graph rounds it; before that it is up to {largest:.3e}, and f16 ends at 65504"
            ),
            None => format!(
                "no number: '{value}' of {op} '{node}' is NaN on input '{input}', and is the first that is"
            ),
        }
    }
}
