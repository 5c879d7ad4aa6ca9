//! A graph before another graph: what an optimizer, a simplifier or a converter made of an export against that export.
//!
//! There is no checkpoint here. Both graphs run on the oracle in f64, with the same numbers for the constants that a file can only hold as f32, and the
//! proof is the one that a checkpoint gets: every output within [`DEFAULT_PROOF_TOL`](crate::proof::DEFAULT_PROOF_TOL). In f32 each engine that runs the
//! second graph is held against the first on the oracle in f32, with the budget that both sides' f32 leaves it. As they run on the same kernels, a
//! fault of the oracle itself would not show.

mod constants;
mod inputs;
mod orders;
mod parting;

use engine::{Dim, Engine, EngineError, NamedValues, ValueSpec};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::Model;

pub use inputs::cases;

use crate::ParityError;
use crate::check::{Exact, Expected, check, fit_inputs};
use crate::judge::Bounds;
use crate::proof::{Budget, Known, Promoted, Proof, Truth, promotions_to, prove, widened};
use crate::report::{Culprit, EngineCheck, GraphReport, TokenErrors};
use crate::suite::Case;
use crate::verdict::Verdict;

/// How many elements the ids of the input may have on which values are looked at, if there is one so small: every value of both graphs is kept.
const TELLING: usize = 256;

/// The first graph, made ready for comparison with the second.
pub struct Original {
    /// In f32, as it would be deployed.
    pub single: Side,
    /// In f64, as it is meant.
    pub double: Side,
    known: Vec<Known>,
}

/// A graph on the oracle, with the shapes of its outputs declared as a check reads them.
pub struct Side {
    oracle: Oracle,
    outputs: Vec<ValueSpec>,
}

impl Engine for Side {
    fn name(&self) -> &str {
        self.oracle.name()
    }

    fn inputs(&self) -> &[ValueSpec] {
        self.oracle.inputs()
    }

    fn outputs(&self) -> &[ValueSpec] {
        &self.outputs
    }

    fn run_for(&self, inputs: &NamedValues, names: &[&str]) -> Result<NamedValues, EngineError> {
        self.oracle.run_for(inputs, names)
    }
}

impl Side {
    fn new(oracle: Oracle) -> Self {
        let outputs = oracle.outputs().iter().map(|spec| by_position(spec, oracle.inputs())).collect();
        Self { oracle, outputs }
    }
}

/// The output with its second axis named `sequence`, where that is the mask's: of the mask's name, or of a size that does not contradict it in a
/// value of rank 3. An axis of other names would be taken for a feature, and padding would decide.
fn by_position(spec: &ValueSpec, inputs: &[ValueSpec]) -> ValueSpec {
    let mut spec = spec.clone();
    let mask = inputs.iter().find(|input| input.name == "attention_mask");
    let mask = mask.and_then(|mask| mask.shape.as_ref()).and_then(|dims| dims.get(1));
    let Some(dims) = &mut spec.shape else { return spec };
    let rank = dims.len();
    let Some(second) = dims.get_mut(1) else { return spec };
    let is_sequence = match (mask, &second) {
        (Some(Dim::Symbol(mask)), Dim::Symbol(name)) if mask == name => true,
        (None, _) => false,
        (Some(Dim::Fixed(mask)), Dim::Fixed(size)) => rank == 3 && mask == size,
        // A size of its own where the mask's is open.
        (Some(_), Dim::Fixed(_)) => false,
        _ => rank == 3,
    };
    if is_sequence {
        *second = Dim::Symbol("sequence".into());
    }
    spec
}

impl Original {
    /// Makes a graph ready to be compared with another.
    ///
    /// # Errors
    /// If the oracle does not know an operator of it: nothing can be held against what cannot be computed.
    pub fn new(onnx: &str, raw: &Model, optimised: &Model) -> Result<Self, ParityError> {
        let known = constants::known(&[raw, optimised]);
        let refused = |source| ParityError::Oracle { onnx: onnx.into(), source: Box::new(source) };
        let (double, _) = exact(raw, &known).map_err(refused)?;
        let single = Oracle::with(raw, Precision::F32, Limits::default()).map_err(refused)?;
        Ok(Self { single: Side::new(single), double: Side::new(double), known })
    }

    /// The second graph in f64, with the same numbers for its constants.
    ///
    /// # Errors
    /// If the oracle does not know an operator of it.
    pub fn exact(&self, optimised: &Model) -> Result<(Oracle, Vec<Promoted>), ParityError> {
        exact(optimised, &self.known)
            .map_err(|source| ParityError::Oracle { onnx: "the graph".into(), source: Box::new(source) })
    }
}

fn exact(model: &Model, known: &[Known]) -> Result<(Oracle, Vec<Promoted>), onnx_eval::OracleError> {
    let oracle = Oracle::with(model, Precision::F64, Limits::default())?;
    let (promotions, promoted) = promotions_to(model, oracle.nodes(), known);
    Ok((oracle.promoting(promotions), promoted))
}

/// What a comparison needs beside both graphs.
#[derive(Clone, Copy)]
pub struct Comparison<'a> {
    /// The inputs, which both graphs take.
    pub cases: &'a [Case],
    /// What runs the second graph in f32.
    pub engines: &'a [&'a dyn Engine],
    /// The bounds.
    pub bounds: &'a Bounds,
}

/// Holds the second graph against the first. `progress` is called five times for each case, and once more for each engine.
///
/// In the report `weights`, `located` and `relations` say nothing. The `module` of a culprit is the name of a node of the first graph, whose value
/// the named nodes of the second should have computed.
///
/// # Errors
/// If the inputs do not fit one of the graphs, or the first cannot run them.
pub fn judge(
    original: &Original,
    onnx: &str,
    optimised: &Model,
    comparison: Comparison,
    mut progress: impl FnMut(&Case),
) -> Result<GraphReport, ParityError> {
    let Comparison { cases, engines, bounds } = comparison;
    let expected = Expected::compute(&original.single, cases, &mut progress)?;
    let truth = Truth::compute(&original.double, cases, &mut progress)?;
    let sides = original.exact(optimised).and_then(|(double, promoted)| {
        let single = Oracle::with(optimised, Precision::F32, Limits::default());
        let refused = |source| ParityError::Oracle { onnx: onnx.into(), source: Box::new(source) };
        Ok((double, promoted, single.map_err(refused)?))
    });
    let (proof, budget, oracle) = match sides {
        Err(refused) => (Proof::impossible(refused.to_string(), bounds.proof_tol), None, None),
        Ok((double, promoted, single)) => {
            let (mut proof, exact) = prove(&truth, &double, cases, bounds.proof_tol, &mut progress)?;
            proof.promoted = promoted;
            let rounded = runs(&single, cases, &exact, &mut progress)?;
            let budget = Budget::measure(&truth, &expected, &exact, &rounded);
            (proof, Some(budget), Some(double))
        }
    };
    let exact = budget.as_ref().map(|budget| Exact { truth: &truth, budget });
    let checks: Vec<EngineCheck> = engines
        .iter()
        .map(|engine| check(&expected, *engine, onnx, &bounds.options, exact, &mut progress))
        .collect::<Result<_, _>>()?;
    let verdict = Verdict::worst(checks.iter().map(|check| check.verdict)).max(proof.verdict);
    let telling = telling_case(&proof, cases);
    let (mut culprits, mut tokens) = (Vec::new(), Vec::new());
    if let (Some(oracle), Some(case)) = (&oracle, telling) {
        if proof.verdict == Verdict::Fail {
            culprits = parted(original, oracle, case);
        }
        let at = cases.iter().position(|other| other.name == case.name).unwrap_or(0);
        tokens = errors_by_token(&truth, at, case, oracle, engines);
    }
    Ok(GraphReport {
        onnx: onnx.into(),
        verdict,
        proof,
        weights: None,
        checks,
        located: None,
        culprits,
        explanation: None,
        relations: Vec::new(),
        stress: Vec::new(),
        held: Vec::new(),
        tokens,
        precision: None,
        notes: Vec::new(),
    })
}

/// What the graph in f32 gives for each case, of the outputs that it gave in f64. Where it fails the proof has failed, too.
pub(crate) fn runs(
    graph: &dyn Engine,
    cases: &[Case],
    exact: &[NamedValues],
    mut progress: impl FnMut(&Case),
) -> Result<Vec<NamedValues>, ParityError> {
    let run = |(case, exact): (&Case, &NamedValues)| {
        progress(case);
        let names: Vec<&str> = exact.names().collect();
        Ok(graph.run_for(&fit_inputs(&case.inputs, graph.inputs())?, &names).unwrap_or_default())
    };
    cases.iter().zip(exact).map(run).collect()
}

/// The nodes that compute something else. A graph that cannot run the input has been judged already.
fn parted(original: &Original, oracle: &Oracle, case: &Case) -> Vec<Culprit> {
    parting::culprits(&original.double.oracle, oracle, case).unwrap_or_default()
}

/// The input on which values are looked at: a short one of those that fail, with the largest difference if that one is short; an input of several
/// tokens is preferred, since a softmax over one of them is 1 whatever its scores are.
fn telling_case<'a>(proof: &Proof, cases: &'a [Case]) -> Option<&'a Case> {
    let size = |case: &&Case| case.inputs.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
    let failing = proof.failing_inputs();
    let mut found: Vec<&Case> =
        cases.iter().filter(|case| failing.is_empty() || failing.contains(&case.name.as_str())).collect();
    found.sort_by_key(size);
    let short: Vec<&Case> = found.iter().copied().filter(|case| size(case) <= TELLING).collect();
    let worst = proof.outputs.iter().find_map(|output| output.worst_input.as_deref());
    let is_worst = |case: &&&Case| worst == Some(case.name.as_str()) && size(case) > 1;
    short.iter().find(is_worst).or(short.last()).or(found.first()).copied()
}

/// The errors by token of the first output that has a position for each, in f64 and on the first engine.
fn errors_by_token(
    truth: &Truth,
    at: usize,
    case: &Case,
    oracle: &Oracle,
    engines: &[&dyn Engine],
) -> Vec<TokenErrors> {
    let is_by_token = |spec: &&ValueSpec| {
        let second = spec.shape.as_ref().and_then(|dims| dims.get(1));
        matches!(second, Some(Dim::Symbol(name)) if name == "sequence")
    };
    let Some(spec) = truth.specs().iter().find(is_by_token) else { return Vec::new() };
    let Some(reference) = truth.outputs().get(at).and_then(|outputs| outputs.get(&spec.name)) else {
        return Vec::new();
    };
    let sides =
        [Some(("f64", oracle as &dyn Engine)), engines.first().map(|engine| (engine.name(), *engine))];
    let errors = |(name, engine): (&str, &dyn Engine)| {
        let inputs = fit_inputs(&case.inputs, engine.inputs()).ok()?;
        let found = engine.run_for(&inputs, &[&spec.name]).ok()?.remove(&spec.name)?;
        let mask = case.inputs.get("attention_mask");
        TokenErrors::between(&case.name, &spec.name, name, reference, &widened(&found), mask)
    };
    sides.into_iter().flatten().filter_map(errors).collect()
}

#[cfg(test)]
mod tests {
    use engine::DType;

    use super::*;

    #[test]
    fn the_axis_of_the_mask_is_the_one_of_positions() {
        let spec = |name: &str, dims: &[Dim]| ValueSpec {
            name: name.into(),
            dtype: DType::F32,
            shape: Some(dims.to_vec()),
            optional: false,
        };
        let symbol = |name: &str| Dim::Symbol(name.into());
        let second = |mask: Dim, output: &[Dim]| {
            let found = by_position(&spec("y", output), &[spec("attention_mask", &[Dim::Any, mask])]);
            found.shape.unwrap()[1] == symbol("sequence")
        };
        assert!(second(symbol("s1"), &[Dim::Any, symbol("s1")]));
        assert!(second(symbol("s1"), &[Dim::Any, symbol("s2"), Dim::Fixed(16)]));
        assert!(second(Dim::Fixed(8), &[Dim::Fixed(2), Dim::Fixed(8), Dim::Fixed(16)]));
        // pooler_output, of a width that is the length by chance; a row of features; as many labels.
        assert!(!second(Dim::Fixed(16), &[Dim::Fixed(2), Dim::Fixed(16)]));
        assert!(!second(symbol("s1"), &[Dim::Any, Dim::Fixed(16)]));
        assert!(!second(symbol("s1"), &[Dim::Any, Dim::Fixed(3), Dim::Fixed(16)]));
    }
}
