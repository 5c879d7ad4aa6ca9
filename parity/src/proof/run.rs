//! A graph on both oracles, and what follows from the two runs.

use engine::{Engine, NamedValues};
use onnx_eval::{Limits, Oracle, OracleError, Precision};
use onnx_graph::Model;

use super::{Budget, Promoted, Proof, Truth, prove};
use crate::ParityError;
use crate::check::{Exact, Expected, Options, check, fit_inputs};
use crate::report::EngineCheck;
use crate::suite::Case;

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
    pub runs: Option<Runs>,
    expected: &'a Expected<'a>,
    truth: &'a Truth,
}

/// What a graph gives for each case on both oracles.
pub(crate) struct Runs {
    pub oracles: Oracles,
    pub exact: Vec<NamedValues>,
    pub rounded: Vec<NamedValues>,
    pub budget: Budget,
}

impl<'a> Proven<'a> {
    /// Runs a graph in f64 and in f32. `progress` is called twice for each case.
    ///
    /// # Errors
    /// If the inputs do not fit the graph.
    pub fn of(
        oracles: Result<Oracles, String>,
        (expected, truth): (&'a Expected<'a>, &'a Truth),
        cases: &[Case],
        proof_tol: f64,
        mut progress: impl FnMut(&Case),
    ) -> Result<Self, ParityError> {
        let oracles = match oracles {
            Ok(oracles) => oracles,
            Err(refused) => {
                let proof = Proof::impossible(refused, proof_tol);
                return Ok(Self { proof, runs: None, expected, truth });
            }
        };
        let (mut proof, exact) = prove(truth, &oracles.double, cases, proof_tol, &mut progress)?;
        proof.promoted = oracles.promoted.clone();
        let rounded = runs(&oracles.single, cases, &exact, progress)?;
        let budget = Budget::measure(truth, expected, &exact, &rounded);
        Ok(Self { proof, runs: Some(Runs { oracles, exact, rounded, budget }), expected, truth })
    }

    /// Holds each engine against the reference in f32. `progress` is called once for each case and engine.
    ///
    /// # Errors
    /// If the inputs do not fit the graph.
    pub fn checks(
        &self,
        engines: &[&dyn Engine],
        onnx: &str,
        options: &Options,
        mut progress: impl FnMut(&Case),
    ) -> Result<Vec<EngineCheck>, ParityError> {
        let exact = self.runs.as_ref().map(|runs| Exact { truth: self.truth, budget: &runs.budget });
        engines
            .iter()
            .map(|engine| check(self.expected, *engine, onnx, options, exact, &mut progress))
            .collect()
    }
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
