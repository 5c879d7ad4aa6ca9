//! What a check has found so far, graph by graph.

use std::path::Path;
use std::time::Duration;

use engine::{Engine, NamedValues};
use report::{
    Features, FolderDifference, GraphReport, InputSummary, Recorded, ReferenceSide, Report, Repro,
    TimingReport, TokenizerReport, Verdict,
};

use super::{Candidate, Check, describe, given};
use crate::bounds::Bounds;
use crate::compare::Answers;
use crate::engines::bench::{self, Limit};
use crate::engines::recorded::{self, Side};
use crate::inputs::{Case, fit_inputs};
use crate::repro::{self, Failed, Sides};
use crate::trial::Judged;
use crate::{ParityError, tensors, verdict};

/// What timing may take at the end of a check, which has warmed everything: it is there to give an
/// idea, `parity bench` measures.
const TIMING: Limit = Limit { warm_up: 0, rounds: 1, time: Duration::from_millis(500) };

/// What was found so far.
pub(super) struct Found<'a> {
    check: &'a Check,
    /// What the graphs are held against, as it was named.
    reference: &'a str,
    bounds: &'a Bounds,
    inputs: Vec<InputSummary>,
    graphs: Vec<GraphReport>,
    recorded: Vec<Recorded>,
    /// What was recorded elsewhere: read once, however many graphs it is for.
    expected: Option<NamedValues>,
    repro: Option<Repro>,
    /// Why nothing was written, though something fails.
    unwritten: Option<String>,
    features: Option<Features>,
    timing: Option<TimingReport>,
}

impl<'a> Found<'a> {
    pub fn new(check: &'a Check, reference: &'a str, bounds: &'a Bounds) -> Self {
        Self {
            check,
            reference,
            bounds,
            inputs: Vec::new(),
            graphs: Vec::new(),
            recorded: Vec::new(),
            expected: None,
            repro: None,
            unwritten: None,
            features: None,
            timing: None,
        }
    }

    /// The folder for a replay, if this graph is the first that fails.
    fn replay_in(&self, judged: &Judged) -> Option<&'a Path> {
        let fails = judged.report.verdict == Verdict::Fail;
        self.check.repro.as_deref().filter(|_| fails && self.repro.is_none())
    }

    /// Whether the graph in f64 is needed once more.
    pub fn needs_exact(&self, judged: &Judged) -> bool {
        self.check.expected.is_some() || self.replay_in(judged).is_some()
    }

    /// Takes in a graph that was judged, and what it was judged on; see [`Found::needs_exact`].
    pub fn add(
        &mut self,
        candidate: &Candidate,
        judged: Judged,
        sides: Sides,
        cases: &[Case],
    ) -> Result<(), ParityError> {
        for input in cases.iter().map(describe::input) {
            if !self.inputs.contains(&input) {
                self.inputs.push(input);
            }
        }
        self.hold_to_record(candidate, &judged, sides, cases)?;
        if let Some(dir) = self.replay_in(&judged) {
            let command = self.check.command.as_deref().unwrap_or_default();
            let (model, report, bounds) = (&candidate.model, &judged.report, self.bounds);
            match repro::write(dir, Failed { model, report, sides, cases, bounds }, command) {
                Ok(written) => self.repro = Some(written),
                // The verdict stands, whatever keeps the folder from being written.
                Err(error) => self.unwritten = Some(error.to_string()),
            }
        }
        let mut report = judged.report;
        report.checks.iter_mut().for_each(|check| check.graph = Some(describe::graph(&candidate.model)));
        self.graphs.push(report);
        Ok(())
    }

    /// Holds all sides to what was recorded elsewhere, if that was given.
    fn hold_to_record(
        &mut self,
        candidate: &Candidate,
        judged: &Judged,
        sides: Sides,
        cases: &[Case],
    ) -> Result<(), ParityError> {
        let (Some(path), [case]) = (&self.check.expected, cases) else { return Ok(()) };
        let specs = sides.single.outputs();
        let expected = match self.expected.take() {
            Some(expected) => expected,
            None => tensors::read_outputs(path, specs)?,
        };
        let reference = [sides.single, sides.double].map(|engine| Side { name: self.reference, engine });
        let of_graph = sides.exact.map(|exact| exact as &dyn Engine).into_iter();
        let of_graph = of_graph.chain(sides.engines.iter().copied());
        let of_graph: Vec<Side> = of_graph.map(|engine| Side { name: &candidate.onnx, engine }).collect();
        // An output that no side has is a slip of the pen: leaving it out in silence would compare
        // less than was meant.
        let outputs = reference.iter().chain(&of_graph).flat_map(|side| side.engine.outputs());
        if let Some((name, known)) = given::unknown(&expected, outputs) {
            return Err(ParityError::UnknownOutput { name, known });
        }
        // Of several graphs, the reference is the same.
        let first = self.recorded.is_empty();
        let budget = |output: &str| judged.budget.as_ref()?.of(output);
        for side in reference.into_iter().filter(|_| first).chain(of_graph) {
            let atol = self.bounds.atol;
            self.recorded.push(recorded::judge(case, &expected, side, specs, atol, budget)?);
        }
        self.expected = Some(expected);
        Ok(())
    }

    /// Times the reference and the engines of the first graph that has some, on the sentences, or
    /// whatever comes first.
    pub fn time(
        &mut self,
        reference: &dyn Engine,
        engines: &[&dyn Engine],
        cases: &[Case],
    ) -> Result<(), ParityError> {
        let case = cases.iter().find(|case| case.name == "sentences").or(cases.first());
        let Some(case) = case.filter(|_| self.timing.is_none() && !engines.is_empty()) else { return Ok(()) };
        let sides: Vec<&dyn Engine> = [reference].iter().chain(engines).copied().collect();
        let inputs: Vec<NamedValues> =
            sides.iter().map(|side| fit_inputs(&case.inputs, side.inputs())).collect::<Result<_, _>>()?;
        let engines: Vec<(&dyn Engine, &NamedValues)> = sides.into_iter().zip(&inputs).collect();
        // A graph that failed on this input has been judged already.
        let results = bench::interleave(&engines, TIMING, |_| ()).ok();
        self.timing = results.map(|results| TimingReport { input: case.name.clone(), results });
        Ok(())
    }

    /// Keeps what the reference's outputs look like on the first graph's inputs.
    pub fn show(&mut self, expected: &Answers) {
        if self.features.is_none() {
            self.features = describe::features(expected);
        }
    }

    /// The report on all of it.
    pub fn report(
        self,
        reference: ReferenceSide,
        mut notes: Vec<String>,
        tokenizer: Option<TokenizerReport>,
        folder: Vec<FolderDifference>,
    ) -> Report {
        let Self { check, graphs, recorded, .. } = self;
        let atol = self.bounds.atol;
        notes.extend(graphs.iter().flat_map(|graph| graph.notes.clone()));
        notes.extend(recorded.iter().flat_map(|side| side.complaints(atol)));
        if let Some(dir) = check.repro.as_ref().map(|dir| dir.display()) {
            notes.push(match (&self.repro, self.unwritten) {
                (Some(Repro { input, shape, precision, .. }), _) => {
                    format!("{dir} replays what fails, in {precision}, on '{input}' made small: {shape:?}")
                }
                (None, Some(why)) => format!("{dir} was not written: {why}"),
                (None, None) => format!("{dir} was not written: no graph fails"),
            });
        }
        // The first of those that come off worst.
        let worst = graphs.iter().rev().max_by_key(|graph| graph.verdict).cloned();
        let (proof, parts) = worst.map(|graph| (graph.proof, graph.parts)).unzip();
        Report {
            verdict: verdict::on_all(&graphs, tokenizer.as_ref(), &folder, &recorded),
            reference: Some(reference),
            onnx: graphs.first().map(|graph| graph.onnx.clone()),
            inputs: self.inputs,
            notes,
            checks: graphs.iter().flat_map(|graph| graph.checks.clone()).collect(),
            proof,
            parts: parts.unwrap_or_default(),
            tokenizer,
            folder,
            graphs: if graphs.len() > 1 { graphs } else { Vec::new() },
            recorded,
            repro: self.repro,
            features: self.features,
            timing: self.timing,
            command: check.command.clone(),
            ..Report::empty(self.reference, atol)
        }
    }
}
