//! A graph before another graph: what an optimizer, a simplifier or a converter made of an export against that export.
//!
//! There is no checkpoint here. Both graphs run on the oracle in f64, with the same numbers for the
//! constants that a file can only hold as f32, and the proof is the one that a checkpoint gets:
//! every output within [`DEFAULT_PROOF_TOL`](crate::proof::DEFAULT_PROOF_TOL). In f32 each engine
//! that runs the second graph is held against the first on the oracle in f32, with the budget that
//! the first's own f32 leaves it. As they run on the same kernels, a fault of the oracle itself
//! would not show.

mod congruence;
mod constants;
mod folded;
mod inputs;
mod longest;
mod orders;
mod parting;

use std::collections::HashSet;

use engine::{Dim, Engine, EngineError, NamedValues, ValueSpec};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::Model;
use report::{GraphReport, Parts, Verdict};

use crate::blame::tokens::token_errors;
use crate::compare::Answers;
use crate::inputs::Case;
use crate::proof::{
    Leave, Numbers, Oracles, Promoted, Proof, Proven, Roundings, Runs, Scope, TELLING, promotions_to, refute,
    telling_case,
};
use crate::structure::branches;
use crate::trial::{Graph, Judged};
use crate::{ParityError, verdict};
use congruence::Congruence;
use folded::Pair;
pub use inputs::cases;

/// The first graph, made ready for comparison with the second.
pub struct Original {
    /// In f32, as it would be deployed.
    pub single: Side,
    /// In f64, as it is meant.
    pub double: Side,
    known: Numbers,
    model: Model,
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
    // Of several choices for a text each is a row, and no output has a position for each of their tokens.
    let mask =
        mask.and_then(|mask| mask.shape.as_ref()).filter(|dims| dims.len() == 2).and_then(|dims| dims.get(1));
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
        let in_f32 = |model: &Model| Oracle::with(model, Precision::F32, Limits::default());
        let single = in_f32(raw).map_err(refused)?;
        // Where the oracle does not take the second graph, there is nothing to hold against the
        // first.
        let other = exact(optimised, &known, None).and_then(|(double, _)| Ok((double, in_f32(optimised)?)));
        let other = other.as_ref().map(|(double, single)| Pair { double, single }).ok();
        let (double, _) = exact(raw, &known, other).map_err(refused)?;
        let (single, double) = (Side::new(single), Side::new(double));
        Ok(Self { single, double, known, model: raw.clone() })
    }

    /// What the second graph's f32 is left beside what the first loses.
    pub(crate) fn leave(&self) -> Leave {
        Leave { roundings: Roundings::of_graph(&self.model), is_converted: false }
    }

    /// The second graph in f64, with the same numbers for its constants, and what the first
    /// computes of its own where a constant is the f32 rounding of that.
    ///
    /// # Errors
    /// If the oracle does not know an operator of it.
    pub fn exact(&self, optimised: &Model) -> Result<(Oracle, Vec<Promoted>), ParityError> {
        let first = Pair { double: &self.double.oracle, single: &self.single.oracle };
        exact(optimised, &self.known, Some(first))
            .map_err(|source| ParityError::Oracle { onnx: "the graph".into(), source: Box::new(source) })
    }
}

fn exact(
    model: &Model,
    known: &Numbers,
    other: Option<Pair>,
) -> Result<(Oracle, Vec<Promoted>), onnx_eval::OracleError> {
    let oracle = Oracle::with(model, Precision::F64, Limits::default())?;
    let (mut promotions, mut promoted) = promotions_to(&oracle, known, &HashSet::new());
    if let Some(other) = other {
        other.promote(&oracle, &mut promotions, &mut promoted);
    }
    Ok((oracle.promoting(promotions), promoted))
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
    graph: Graph,
    cases: &[Case],
    mut progress: impl FnMut(&Case),
) -> Result<Judged, ParityError> {
    let Graph { onnx, engines, bounds, .. } = graph;
    let expected = Answers::of(&original.single, cases, &mut progress)?;
    let truth = Answers::of(&original.double, cases, &mut progress)?;
    let double = original.exact(graph.model).map_err(|refused| refused.to_string());
    let oracles =
        double.and_then(|double| Oracles::new(graph.model, double).map_err(|refused| refused.to_string()));
    let leave = original.leave();
    let Proven { mut proof, runs } =
        Proven::of(oracles, &expected, &truth, bounds.proof_tol, leave, &mut progress)?;
    let checks = graph.checks(&expected, &truth, runs.as_ref(), progress)?;
    let mut parts = Parts { unheld: graph.unheld(&expected), ..Parts::default() };
    let mut witnesses = Vec::new();
    if let Some(Runs { oracles, .. }) = &runs
        && proof.verdict == Verdict::Pass
    {
        witnesses = for_every_input(original, graph, &oracles.double, &truth, &mut proof)?;
    }
    if let (Some(Runs { oracles, .. }), Some(case)) = (&runs, telling_case(&proof, cases)) {
        if proof.verdict == Verdict::Fail {
            // A graph that cannot run the input has been judged already.
            parts.culprits =
                parting::culprits(&original.double.oracle, &oracles.double, case).unwrap_or_default();
        }
        parts.tokens = token_errors(case, &truth, &oracles.double, engines.first().copied());
    }
    let verdict = verdict::on_graph(&proof, &parts, &checks, false);
    let report = GraphReport { onnx: onnx.into(), verdict, proof, checks, parts, notes: Vec::new() };
    Ok(Judged { report, budget: runs.map(|runs| runs.budget), witnesses })
}

/// Whether both graphs are the same for every input, operator by operator; else inputs on which
/// they are not, if the graph's own constants lead to some.
fn for_every_input(
    original: &Original,
    Graph { model, only_given, .. }: Graph,
    double: &Oracle,
    truth: &Answers,
    proof: &mut Proof,
) -> Result<Vec<Case>, ParityError> {
    // A graph that the oracle takes is known to this, too, or nothing is said of it.
    let [raw, other] =
        [&original.model, model].map(|side| branches::folded(side).unwrap_or_else(|| side.clone()));
    let Ok(found) = Congruence::of(&raw, &other) else { return Ok(Vec::new()) };
    if proof.outputs.iter().all(|output| found.outputs.contains(&output.name)) {
        proof.scope = Scope::EveryInput;
        return Ok(Vec::new());
    }
    proof.unexplained.extend(found.first);
    if only_given {
        return Ok(Vec::new());
    }
    let mut suspicious: Vec<Case> =
        found.rows.iter().filter_map(|(input, rows)| with_rows(truth.cases(), input, rows)).collect();
    suspicious.extend(inputs::witnesses(&original.model, model));
    // An input that the first graph does not take says nothing of the second.
    let Ok(truth) = Answers::of(&original.double, &suspicious, |_| ()) else { return Ok(Vec::new()) };
    let failing = refute(proof, &truth, double)?;
    suspicious.retain(|case| failing.contains(&case.name));
    Ok(suspicious)
}

/// An input of the suite in which these rows are looked up.
fn with_rows(cases: &[Case], input: &str, rows: &[i64]) -> Option<Case> {
    let size = |case: &&Case| case.inputs.get(input).map_or(0, engine::Value::len);
    let case = cases.iter().filter(|case| size(case) <= TELLING).max_by_key(size)?;
    let value = case.inputs.get(input)?;
    let elements: Vec<i64> = rows.iter().copied().cycle().take(value.len()).collect();
    let mut inputs = case.inputs.clone();
    inputs.insert(input, engine::Value::new(value.shape(), elements).ok()?);
    Some(Case { name: format!("rows that '{input}' looks up, which differ"), inputs })
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
