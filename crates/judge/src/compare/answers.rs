//! What an engine gives for each of some inputs, and how that compares with what another gives.

use std::borrow::Cow;

use engine::{Dim, Engine, EngineError, NamedValues, Value, ValueSpec};
use onnx_eval::Fault;
use report::{Beyond, FromTruth, NonFinite, OutputReport, Padding, Verdict};

use super::{Comparison, compare, widened};
use crate::ParityError;
use crate::inputs::{Case, fit_inputs};

/// What an engine gave for each case.
#[derive(Debug, Clone)]
pub struct Answers<'a> {
    cases: &'a [Case],
    specs: Vec<ValueSpec>,
    outputs: Vec<NamedValues>,
    failure: Option<(Verdict, String)>,
}

/// What becomes of a case that the engine cannot run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// It is an error.
    Stop,
    /// It is the graph's fault, where a node failed, and noted; no further case is run.
    Note,
    /// It has no outputs. Somebody else has judged that.
    Skip,
}

impl<'a> Answers<'a> {
    /// Runs an engine on every case, for all its outputs. `progress` is called before each.
    ///
    /// # Errors
    /// If a case does not fit the engine, or the engine fails on it.
    pub fn of(
        engine: &dyn Engine,
        cases: &'a [Case],
        progress: impl FnMut(&Case),
    ) -> Result<Self, ParityError> {
        let names: Vec<&str> = engine.outputs().iter().map(|spec| spec.name.as_str()).collect();
        Self::run(engine, cases, &names, OnFailure::Stop, progress)
    }

    /// Runs an engine for some of its outputs. `progress` is called before each case.
    pub(crate) fn run(
        engine: &dyn Engine,
        cases: &'a [Case],
        names: &[&str],
        on_failure: OnFailure,
        mut progress: impl FnMut(&Case),
    ) -> Result<Self, ParityError> {
        let (mut outputs, mut failure) = (Vec::new(), None);
        for case in cases {
            progress(case);
            let found = engine.run_for(&fit_inputs(&case.inputs, engine.inputs())?, names);
            match (found, on_failure) {
                (Ok(found), _) => outputs.push(found),
                (Err(_), OnFailure::Skip) => outputs.push(NamedValues::new()),
                (Err(error), OnFailure::Note) if let Some(verdict) = failed_node(&error) => {
                    failure = Some((verdict, format!("on input '{}': {error}", case.name)));
                    break;
                }
                (Err(error), _) => return Err(error.into()),
            }
        }
        Ok(Self { cases, specs: engine.outputs().to_vec(), outputs, failure })
    }

    /// What is known of one case from elsewhere.
    pub(crate) fn recorded(case: &'a Case, outputs: &NamedValues) -> Self {
        let cases = std::slice::from_ref(case);
        Self { cases, specs: Vec::new(), outputs: vec![outputs.clone()], failure: None }
    }

    /// These with other outputs, made of them: their specs, and those of each case.
    pub(crate) fn with_outputs(
        &self,
        specs: impl FnOnce(&[ValueSpec]) -> Vec<ValueSpec>,
        outputs: impl Fn(&Case, &NamedValues) -> NamedValues,
    ) -> Self {
        let outputs = self.iter().map(|(case, values)| outputs(case, values)).collect();
        Self { specs: specs(&self.specs), outputs, ..self.clone() }
    }

    /// The inputs.
    pub fn cases(&self) -> &'a [Case] {
        self.cases
    }

    /// The outputs that the engine has.
    pub fn specs(&self) -> &[ValueSpec] {
        &self.specs
    }

    /// Each case that was run, and what the engine made of it.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&'a Case, &NamedValues)> + ExactSizeIterator {
        self.cases.iter().zip(&self.outputs)
    }

    /// What the engine made of the case of that name.
    pub(crate) fn on(&self, case: &Case) -> Option<&NamedValues> {
        self.iter().find(|(other, _)| other.name == case.name).map(|(_, outputs)| outputs)
    }

    /// On which case the graph failed, and what that means.
    pub(crate) fn failure(&self) -> Option<&(Verdict, String)> {
        self.failure.as_ref()
    }
}

/// What it means that a node failed: the graph cannot compute the input, unless it was only the
/// oracle that ran out of what it may take. Nothing for other errors, which are not the graph's.
fn failed_node(error: &EngineError) -> Option<Verdict> {
    let EngineError::Node { source, .. } = error else { return None };
    let out_of_memory = matches!(source.downcast_ref(), Some(Fault::TooLarge { .. }));
    Some(if out_of_memory { Verdict::Inconclusive } else { Verdict::Fail })
}

/// Which positions of an output decide, from its declared shape: `[batch, sequence, …]` has the
/// mask's positions, `[batch, heads, sequence, sequence]` those of who attends, in every head, and
/// `[batch, …]` its rows, which count if they have a real token. Without a mask everything decides.
pub fn deciding(spec: &ValueSpec, inputs: &NamedValues) -> Vec<bool> {
    let Some(attention_mask) = inputs.get("attention_mask") else { return Vec::new() };
    // Whatever its dtype: two graphs may agree on another.
    let (shape, mask) = (attention_mask.shape(), attention_mask.to_f64());
    // Of several choices for a text, each is a row.
    let ([_, sequence] | [_, _, sequence]) = shape else { return Vec::new() };
    let is_sequence = |dim: &Dim| matches!(dim, Dim::Symbol(symbol) if symbol == "sequence");
    let bits = mask.iter().map(|&bit| bit != 0.0);
    let rows = mask.chunks(*sequence.max(&1));
    match spec.shape.as_deref() {
        Some([_, second, ..]) if is_sequence(second) => bits.collect(),
        Some([_, Dim::Fixed(heads), third, _]) if is_sequence(third) => {
            let rows = rows.flat_map(|row| std::iter::repeat_n(row, *heads));
            rows.flatten().map(|&bit| bit != 0.0).collect()
        }
        _ => rows.map(|row| row.iter().any(|&bit| bit != 0.0)).collect(),
    }
}

/// One output of a candidate against a reference's, over all cases that both were run on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// How far they are apart.
    pub total: Comparison,
    /// The case with the largest difference.
    pub worst_input: Option<String>,
    /// How a shape or a dtype differs, if one does.
    pub mismatch: Option<String>,
    /// How far each case is off; nothing where a value is not finite.
    by_case: Vec<(String, Option<f64>)>,
}

impl Tally {
    /// Both sides as they are. What only one of them has is left out.
    pub fn of(spec: &ValueSpec, reference: &Answers, candidate: &Answers, atol: f64) -> Self {
        Self::by(spec, reference, candidate, |a, b, decides| compare(a, b, decides, atol))
    }

    /// Both sides by their numbers, whatever floats they are.
    pub fn in_f64(spec: &ValueSpec, reference: &Answers, candidate: &Answers, atol: f64) -> Self {
        Self::by(spec, reference, candidate, |a, b, decides| compare(&widened(a), &widened(b), decides, atol))
    }

    fn by(
        spec: &ValueSpec,
        reference: &Answers,
        candidate: &Answers,
        compare: impl Fn(&Value, &Value, &[bool]) -> Result<Comparison, super::Mismatch>,
    ) -> Self {
        let mut tally = Self::default();
        for ((case, reference), (_, candidate)) in reference.iter().zip(candidate.iter()) {
            let (Some(reference), Some(candidate)) = (reference.get(&spec.name), candidate.get(&spec.name))
            else {
                continue;
            };
            match compare(reference, candidate, &deciding(spec, &case.inputs)) {
                Ok(comparison) => tally.add(&case.name, comparison),
                Err(error) => {
                    tally.mismatch.get_or_insert(format!("on input '{}': {error}", case.name));
                }
            }
        }
        tally
    }

    fn add(&mut self, case: &str, comparison: Comparison) {
        if comparison.deciding.compared() > 0 {
            self.by_case.push((case.into(), comparison.deciding.max_abs()));
        }
        if self.total.deciding.merge(comparison.deciding) {
            self.worst_input = Some(case.into());
        }
        self.total.padding.merge(comparison.padding);
    }

    /// The cases whose largest difference is so; it is nothing where a value is not finite.
    pub fn cases(&self, is: impl Fn(Option<f64>) -> bool) -> Vec<String> {
        self.by_case.iter().filter(|(_, max)| is(*max)).map(|(case, _)| case.clone()).collect()
    }

    /// What it comes to: within the tolerance, or each feature within its budget, or neither.
    pub fn report(self, name: &str, budget: Option<&[f64]>, truth: Option<FromTruth>) -> OutputReport {
        let Comparison { deciding, padding } = &self.total;
        let worst = deciding.worst();
        let [reference, candidate] = deciding.non_finite();
        let features = &deciding.features().max_abs;
        let allowed = |feature: usize| budget.and_then(|all| all.get(feature).or(all.last())).copied();
        let share = |feature: usize| allowed(feature).map_or(f64::INFINITY, |all| features[feature] / all);
        let nearest = (0..features.len()).max_by(|a, b| share(*a).total_cmp(&share(*b)));
        let within_budget =
            || deciding.max_abs().is_some() && nearest.is_some_and(|feature| share(feature) <= 1.0);
        // Beyond it, the feature that is furthest; else that of the largest difference.
        let of_worst = worst.and_then(|worst| worst.index.last().copied()).unwrap_or(0);
        let beyond = nearest.filter(|feature| *feature != of_worst && share(*feature) > 1.0);
        let beyond = beyond.and_then(|feature| {
            Some(Beyond { feature, max_abs: features[feature], budget: allowed(feature)? })
        });
        let budget_share = budget.and(nearest).map(share);
        let budget = allowed(of_worst);
        let verdict = if self.mismatch.is_some() {
            Verdict::Fail
        } else if deciding.compared() == 0 {
            Verdict::Inconclusive
        } else if deciding.beyond() == 0 {
            Verdict::Pass
        } else if within_budget() {
            Verdict::Rounding
        } else {
            Verdict::Fail
        };
        OutputReport {
            name: name.into(),
            shape: worst.map(|worst| worst.shape.clone()).unwrap_or_default(),
            max_abs: deciding.max_abs(),
            max_rel: deciding.max_rel(),
            max_ulp: deciding.max_ulp(),
            mean_abs: deciding.mean_abs(),
            cosine: deciding.cosine(),
            worst_ulp: deciding.max_abs().and(worst).map(|worst| worst.ulp),
            worst_input: self.worst_input,
            worst_index: worst.map(|worst| worst.index.clone()),
            reference: worst.and_then(|worst| finite(worst.reference)),
            candidate: worst.and_then(|worst| finite(worst.candidate)),
            compared: deciding.compared(),
            beyond_atol: deciding.beyond(),
            non_finite: NonFinite { reference, candidate },
            budget,
            budget_share,
            beyond,
            truth,
            mismatch: self.mismatch,
            verdict,
            decisions: None,
            padding: Padding { max_abs: padding.max_abs(), compared: padding.compared() },
        }
    }
}

/// An output by itself against what was recorded elsewhere. Every element decides.
pub fn output_report(name: &str, recorded: &Value, found: &Value, atol: f64) -> OutputReport {
    let mut tally = Tally::default();
    let [recorded, found] = &by_value(recorded, found);
    match compare(recorded, found, &[], atol) {
        Ok(comparison) => tally.total = comparison,
        Err(mismatch) => tally.mismatch = Some(mismatch.to_string()),
    }
    tally.report(name, None, None)
}

/// Both as f64 where both are floats of different dtypes, which holds all of them exactly.
fn by_value<'a>(a: &'a Value, b: &'a Value) -> [Cow<'a, Value>; 2] {
    match a.dtype() != b.dtype() && a.dtype().is_float() && b.dtype().is_float() {
        true => [a, b].map(|value| Cow::Owned(widened(value))),
        false => [a, b].map(Cow::Borrowed),
    }
}

/// A number that JSON can hold.
pub(crate) fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

#[cfg(test)]
mod tests {
    use engine::DType;

    use super::*;

    fn spec(name: &str) -> ValueSpec {
        let symbols = ["batch", "sequence", "hidden"].map(|symbol| Dim::Symbol(symbol.into()));
        ValueSpec { name: name.into(), dtype: DType::F32, shape: Some(symbols.to_vec()), optional: false }
    }

    #[test]
    fn rows_decide_for_pooled_outputs() {
        let mask = Value::new([2, 2], vec![1i64, 0, 0, 0]).unwrap();
        let masked = NamedValues::from_iter([("attention_mask", mask)]);
        let mut pooled = spec("pooler_output");
        pooled.shape = Some(vec![Dim::Symbol("batch".into()), Dim::Fixed(2)]);
        assert_eq!(deciding(&pooled, &masked), [true, false]);
        assert_eq!(deciding(&spec("h"), &masked), [true, false, false, false]);
        assert!(deciding(&pooled, &NamedValues::new()).is_empty());
        let mut attention = spec("attentions.0");
        let sequence = || Dim::Symbol("sequence".into());
        attention.shape = Some(vec![Dim::Any, Dim::Fixed(2), sequence(), sequence()]);
        assert_eq!(deciding(&attention, &masked), [true, false, true, false, false, false, false, false]);
    }

    #[test]
    fn a_large_feature_hides_no_small_one() {
        let value = |numbers: [f64; 2]| Value::new([1, 2], numbers.to_vec()).unwrap();
        let of = |found: [f64; 2], budget: &[f64]| {
            let total = compare(&value([1e8, 1.0]), &value(found), &[], 0.0).unwrap();
            Tally { total, ..Tally::default() }.report("y", Some(budget), None)
        };
        let budget = [10.0, 1e-6];
        let right = of([1e8 + 5.0, 1.0 + 1e-7], &budget);
        assert_eq!((right.verdict, right.budget, right.beyond), (Verdict::Rounding, Some(10.0), None));
        assert_eq!(right.budget_share, Some(0.5));
        let hidden = of([1e8 + 5.0, 1.0 + 4e-3], &budget);
        let beyond = hidden.beyond.unwrap();
        assert_eq!((hidden.verdict, beyond.feature, beyond.budget), (Verdict::Fail, 1, 1e-6));
        assert!((beyond.max_abs - 4e-3).abs() < 1e-12 && hidden.max_abs == Some(5.0));
        // One budget for all, where the last axis is not always the same.
        assert_eq!(of([1e8 + 5.0, 1.0 + 4e-3], &[10.0]).verdict, Verdict::Rounding);
        assert_eq!(of([1e8 + 5.0, 1.0], &[]).verdict, Verdict::Fail);
    }

    #[test]
    fn running_out_of_memory_says_nothing_about_a_graph() {
        let node = |source: Box<dyn std::error::Error + Send + Sync>| EngineError::Node {
            node: "n".into(),
            op: "Expand".into(),
            source,
        };
        let large = Fault::TooLarge { shape: vec![1 << 40], alive: 0, limit: 1 << 30 };
        assert_eq!(failed_node(&node(Box::new(large))), Some(Verdict::Inconclusive));
        assert_eq!(failed_node(&node(Box::new(Fault::DivisionByZero))), Some(Verdict::Fail));
        assert_eq!(failed_node(&EngineError::UnknownValue { name: "y".into() }), None);
    }
}
