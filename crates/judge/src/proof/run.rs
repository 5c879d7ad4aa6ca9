//! A graph on both oracles, and what follows from the two runs.

use engine::Engine;
use onnx_eval::{Limits, Oracle, OracleError, Precision};
use onnx_graph::Model;

use super::{Budget, Leave, Promoted, Proof, prove};
use crate::ParityError;
use crate::compare::{Answers, OnFailure};
use crate::inputs::Case;

/// A graph on the oracle: in f64 as it was meant, and in f32 as it is.
pub(crate) struct Oracles {
    pub double: Oracle,
    /// The constants of it that were promoted.
    pub promoted: Vec<Promoted>,
    pub single: Oracle,
}

impl Oracles {
    /// The graph in f32, beside what it is in f64.
    pub fn new(model: &Model, (double, promoted): (Oracle, Vec<Promoted>)) -> Result<Self, OracleError> {
        let single = Oracle::with(model, Precision::F32, Limits::default())?;
        Ok(Self { double, promoted, single })
    }
}

/// The proof, and the runs that it was made by; none where the oracle does not take the graph.
pub(crate) struct Proven<'a> {
    pub proof: Proof,
    pub runs: Option<Runs<'a>>,
}

/// What a graph gives for each case on both oracles.
pub(crate) struct Runs<'a> {
    pub oracles: Oracles,
    pub exact: Answers<'a>,
    pub rounded: Answers<'a>,
    pub budget: Budget,
}

impl<'a> Proven<'a> {
    /// Runs a graph in f64 and in f32. `progress` is called twice for each case.
    ///
    /// # Errors
    /// If the inputs do not fit the graph.
    pub fn of(
        oracles: Result<Oracles, String>,
        expected: &Answers<'a>,
        truth: &Answers<'a>,
        proof_tol: f64,
        leave: Leave,
        mut progress: impl FnMut(&Case),
    ) -> Result<Self, ParityError> {
        let oracles = match oracles {
            Ok(oracles) => oracles,
            Err(refused) => return Ok(Self { proof: Proof::impossible(refused, proof_tol), runs: None }),
        };
        let (mut proof, exact) = prove(truth, &oracles.double, proof_tol, &mut progress)?;
        proof.promoted = oracles.promoted.clone();
        let rounded = rounded(&oracles.single, &exact, progress)?;
        let budget = Budget::measure(truth, expected, [&exact, &rounded], leave);
        Ok(Self { proof, runs: Some(Runs { oracles, exact, rounded, budget }) })
    }
}

/// What the graph in f32 gives for each case, of the outputs that it gave in f64. Where it fails
/// the proof has failed, too.
pub(crate) fn rounded<'a>(
    graph: &dyn Engine,
    exact: &Answers<'a>,
    progress: impl FnMut(&Case),
) -> Result<Answers<'a>, ParityError> {
    let Some((_, first)) = exact.iter().next() else { return Ok(exact.clone()) };
    let names: Vec<&str> = first.names().collect();
    let cases = &exact.cases()[..exact.iter().len()];
    Answers::run(graph, cases, &names, OnFailure::Skip, progress)
}
