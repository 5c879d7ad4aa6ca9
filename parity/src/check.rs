//! One engine against another, over a set of inputs.

use engine::{DType, Dim, Engine, EngineError, NamedValues, Value, ValueError, ValueSpec};
use onnx_eval::Fault;

use crate::ParityError;
use crate::Verdict;
use crate::compare::{Comparison, Distance, compare, from_truth, output_report};
use crate::decide::{self, Decides};
use crate::expect::single;
use crate::proof::{Budget, Truth, widened};
use crate::report::{EngineCheck, OutputReport};
use crate::suite::Case;

/// The tolerance of a check unless another is given: the notebook's claim, absolute. It is about one f32 ULP at 8 to 16, so a
/// model with larger activations cannot meet it in f32 (all-MiniLM-L6-v2 is 2e-6 to 4e-6 off).
pub const DEFAULT_ATOL: f64 = 1e-6;

/// Against what a candidate is held.
#[derive(Debug, Clone)]
pub struct Options {
    /// The largest |reference − candidate| that passes; absolute, with no relative part.
    pub atol: f64,
    /// Only these outputs, each of which must be there; empty means all that both have.
    pub outputs: Vec<String>,
    /// An output of half precision is held against the reference's f32 by its numbers, instead of differing in dtype.
    pub half: bool,
    /// How logits are read, where they are: see [`Decides::of`].
    pub decides: Option<Decides>,
}

impl Default for Options {
    fn default() -> Self {
        Self { atol: DEFAULT_ATOL, outputs: Vec::new(), half: false, decides: None }
    }
}

/// Why inputs do not fit a graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// The graph wants an input that is not there.
    #[error("input '{0}' is wanted, and is not among those given")]
    Missing(ValueSpec),
    /// The graph wants an input in a dtype that the given one cannot be converted to exactly.
    #[error("input '{spec}' is wanted, and the one given is {found}")]
    DType {
        /// What it wants.
        spec: ValueSpec,
        /// What is there.
        found: DType,
    },
    /// A converted value could not be made.
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// The inputs of a case as a graph takes them: those that it does not have are left out, and int64 becomes int32 where it wants that.
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
/// An optional input of the reference that the graph does not have goes to neither side: the reference then takes what such an export has built
/// in, a mask of ones or token types of zeros. Where the graph insists on one that was not given, it gets the same.
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

/// Which positions of an output decide, from its declared shape: `[batch, sequence, …]` has the mask's positions, `[batch, …]` its rows,
/// which count if they have a real token. Without a mask everything decides.
pub fn deciding(spec: &ValueSpec, attention_mask: Option<&Value>) -> Vec<bool> {
    // Whatever its dtype: two graphs may agree on another.
    let mask = attention_mask.map(|mask| (mask.shape(), mask.to_f64()));
    // Of several choices for a text, each is a row.
    let Some(([_, sequence] | [_, _, sequence], mask)) = mask else { return Vec::new() };
    let by_position = matches!(
        spec.shape.as_deref(),
        Some([_, Dim::Symbol(second), ..]) if second == "sequence"
    );
    if by_position && attention_mask.is_some_and(|mask| mask.shape().len() == 2) {
        return mask.iter().map(|&bit| bit != 0.0).collect();
    }
    mask.chunks(*sequence.max(&1)).map(|row| row.iter().any(|&bit| bit != 0.0)).collect()
}

/// What the reference computed for each case.
pub struct Expected<'a> {
    cases: &'a [Case],
    specs: Vec<ValueSpec>,
    outputs: Vec<NamedValues>,
}

impl<'a> Expected<'a> {
    /// Runs the reference on every case. An input that only the graph has is left out.
    ///
    /// # Errors
    /// If a case does not fit the reference.
    pub fn compute(
        reference: &dyn Engine,
        cases: &'a [Case],
        mut progress: impl FnMut(&Case),
    ) -> Result<Self, ParityError> {
        let mut outputs = Vec::new();
        for case in cases {
            progress(case);
            let inputs = fit_inputs(&case.inputs, reference.inputs())?;
            outputs.push(reference.run(&inputs)?);
        }
        Ok(Self { cases, specs: reference.outputs().to_vec(), outputs })
    }

    /// The same with other outputs, made of these: their specs, and those of each case.
    pub(crate) fn with_outputs(
        &self,
        specs: impl FnOnce(&[ValueSpec]) -> Vec<ValueSpec>,
        outputs: impl Fn(&Case, &NamedValues) -> NamedValues,
    ) -> Self {
        let outputs = self.iter().map(|(case, values)| outputs(case, values)).collect();
        Self { cases: self.cases, specs: specs(&self.specs), outputs }
    }

    /// Each case, and what the reference made of it.
    pub fn iter(&self) -> impl Iterator<Item = (&Case, &NamedValues)> {
        self.cases.iter().zip(&self.outputs)
    }
}

/// What an engine's f32 is judged by beside the tolerance: both sides in f64.
#[derive(Clone, Copy)]
pub struct Exact<'a> {
    /// The reference in f64.
    pub truth: &'a Truth,
    /// What f32 has a right to.
    pub budget: &'a Budget,
}

/// Holds a candidate against what the reference computed. Without `exact`, whatever is beyond the tolerance fails.
///
/// An output that only one of both has is listed, not failed, unless `options.outputs` asks for it. An engine that fails on an input that its
/// declared shapes allow fails the check: a graph with dynamic axes that runs only at the traced size is not the same function.
///
/// # Errors
/// If the inputs do not fit the graph.
pub fn check(
    expected: &Expected,
    candidate: &dyn Engine,
    onnx: &str,
    options: &Options,
    exact: Option<Exact>,
    mut progress: impl FnMut(&Case),
) -> Result<EngineCheck, ParityError> {
    let wanted =
        |name: &str| options.outputs.is_empty() || options.outputs.iter().any(|output| output == name);
    let has = |specs: &[ValueSpec], name: &str| specs.iter().any(|spec| spec.name == name);
    let shared: Vec<&ValueSpec> = expected
        .specs
        .iter()
        .filter(|spec| wanted(&spec.name) && has(candidate.outputs(), &spec.name))
        .collect();
    let names: Vec<&str> = shared.iter().map(|spec| spec.name.as_str()).collect();
    let mut not_compared = Vec::new();
    for spec in
        expected.specs.iter().filter(|spec| wanted(&spec.name) && !has(candidate.outputs(), &spec.name))
    {
        not_compared.push(format!("the graph has no output '{}'", spec.name));
    }
    for spec in
        candidate.outputs().iter().filter(|spec| wanted(&spec.name) && !has(&expected.specs, &spec.name))
    {
        not_compared.push(format!("the reference has no output '{}'", spec.name));
    }
    let unknown: Vec<&String> =
        options.outputs.iter().filter(|name| !names.contains(&name.as_str())).collect();
    for name in &unknown {
        if !has(&expected.specs, name) && !has(candidate.outputs(), name) {
            not_compared.push(format!("neither side has an output '{name}'"));
        }
    }

    let mut results: Vec<Tally> = vec![Tally::default(); shared.len()];
    let mut failure = None;
    for (index, (case, reference)) in expected.iter().enumerate() {
        let truth = exact.and_then(|exact| exact.truth.outputs().get(index));
        let inputs = fit_inputs(&case.inputs, candidate.inputs())?;
        let outputs = match candidate.run_for(&inputs, &names) {
            Ok(outputs) if options.half => {
                outputs.into_iter().map(|(name, value)| (name, single(value))).collect()
            }
            Ok(outputs) => outputs,
            Err(error) if let Some(verdict) = failed_node(&error) => {
                failure = Some((verdict, format!("on input '{}': {error}", case.name)));
                break;
            }
            Err(error) => return Err(error.into()),
        };
        for (spec, tally) in shared.iter().zip(&mut results) {
            let (Some(reference), Some(candidate)) = (reference.get(&spec.name), outputs.get(&spec.name))
            else {
                continue;
            };
            let decides = deciding(spec, case.inputs.get("attention_mask"));
            tally.add(&case.name, reference, candidate, &decides, options.atol);
            let truth = truth.and_then(|truth| truth.get(&spec.name));
            if let Some(truth) = truth {
                tally.add_truth(truth, reference, candidate, &decides);
            }
            if let Some(how) = options.decides {
                tally.decisions.add(how, &case.name, truth.unwrap_or(reference), candidate, &decides);
            }
        }
        progress(case);
    }
    let outputs: Vec<OutputReport> = shared
        .iter()
        .zip(results)
        .map(|(spec, tally)| {
            let budget = exact.and_then(|exact| exact.budget.of(&spec.name));
            let truth = exact.map(|_| from_truth(&tally.from_truth[0], &tally.from_truth[1]));
            let output =
                output_report(&spec.name, &tally.total, tally.worst_input, tally.mismatch, budget, truth);
            OutputReport { decisions: tally.decisions.close(output.max_abs), ..output }
        })
        .collect();
    let mut verdict = Verdict::worst(outputs.iter().map(|output| output.verdict));
    let (failed, failure) = failure.unzip();
    verdict = verdict.max(failed.unwrap_or(verdict));
    if !unknown.is_empty() {
        verdict = verdict.max(Verdict::Inconclusive);
    }
    let computed = candidate.outputs().iter().find(|spec| names.contains(&spec.name.as_str()));
    let dtype = computed.map_or_else(String::new, |spec| spec.dtype.to_string());
    Ok(EngineCheck {
        engine: candidate.name().into(),
        onnx: onnx.into(),
        graph: None,
        dtype,
        verdict,
        failure,
        not_compared,
        outputs,
    })
}

/// What it means that a node failed: the graph cannot compute the input, unless it was only the oracle that ran out of what it may take. Nothing for
/// other errors, which are not the graph's.
pub(crate) fn failed_node(error: &EngineError) -> Option<Verdict> {
    let EngineError::Node { source, .. } = error else { return None };
    let out_of_memory = matches!(source.downcast_ref(), Some(Fault::TooLarge { .. }));
    Some(if out_of_memory { Verdict::Inconclusive } else { Verdict::Fail })
}

/// One output over all cases.
#[derive(Clone, Default)]
struct Tally {
    total: Comparison,
    worst_input: Option<String>,
    mismatch: Option<String>,
    /// The reference, and the candidate.
    from_truth: [Distance; 2],
    decisions: decide::Tally,
}

impl Tally {
    fn add(&mut self, case: &str, reference: &Value, candidate: &Value, decides: &[bool], atol: f64) {
        match compare(reference, candidate, decides, atol) {
            Ok(comparison) => {
                if self.total.deciding.merge(comparison.deciding) {
                    self.worst_input = Some(case.into());
                }
                self.total.padding.merge(comparison.padding);
            }
            Err(error) => {
                self.mismatch.get_or_insert(format!("on input '{case}': {error}"));
            }
        }
    }

    fn add_truth(&mut self, truth: &Value, reference: &Value, candidate: &Value, decides: &[bool]) {
        for (total, side) in self.from_truth.iter_mut().zip([reference, candidate]) {
            // Shapes that differ have been noted.
            if let Ok(comparison) = compare(truth, &widened(side), decides, 0.0) {
                total.merge(comparison.deciding);
            }
        }
    }
}

/// What [`assert_parity!`](crate::assert_parity) asserts: the candidate passes on every case.
///
/// # Errors
/// A message with a line for each output that does not pass.
pub fn agree(
    reference: &dyn Engine,
    candidate: &dyn Engine,
    cases: &[Case],
    atol: f64,
) -> Result<(), String> {
    let cases = cases
        .iter()
        .map(|case| {
            let inputs = common_inputs(&case.inputs, reference.inputs(), candidate.inputs())?;
            Ok(Case { name: case.name.clone(), inputs })
        })
        .collect::<Result<Vec<_>, ValueError>>()
        .map_err(|error| error.to_string())?;
    let expected = Expected::compute(reference, &cases, |_| ()).map_err(|error| error.to_string())?;
    let options = Options { atol, ..Options::default() };
    let check =
        check(&expected, candidate, "graph", &options, None, |_| ()).map_err(|error| error.to_string())?;
    if check.verdict == Verdict::Pass {
        return Ok(());
    }
    let lines = [format!("{} against {}: {}", candidate.name(), reference.name(), check.verdict)];
    Err(lines.into_iter().chain(check.complaints(atol)).collect::<Vec<_>>().join("\n  "))
}

#[cfg(test)]
mod tests;
