//! A graph before its checkpoint: the proof in f64, every engine in f32, and what they come to together.

use std::borrow::Cow;

use candle_core::{DType, Device};
use checkpoint::Checkpoint;
use engine::{Engine, NamedValues};
use onnx_eval::Oracle;
use onnx_graph::Model;

use crate::Verdict;
use crate::audit::{Audit, Expect, FindingKind, audit};
use crate::check::{Expected, Options, fit_inputs};
use crate::culprits::{Facts, culprits};
use crate::expect::{self, not_finite};
use crate::explain::{Weights, explain_whole};
use crate::locate::{Held, locate};
use crate::outputs::{Extended, Further};
use crate::proof::{
    Budget, DEFAULT_PROOF_TOL, Oracles, Proven, Runs, TELLING, Truth, exact_graph, telling_case,
};
use crate::relations::{self, Bound, Relation};
use crate::report::{EngineCheck, GraphReport};
use crate::suite::Case;
use crate::tokens::token_errors;
use crate::{ParityError, Reference, Subject};

/// Against what a graph is held.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The f32 tolerance and the outputs that are asked for.
    pub options: Options,
    /// How far both sides may be apart in f64, relative; see [`DEFAULT_PROOF_TOL`].
    pub proof_tol: f64,
    /// What the graph was converted to on purpose; see [`crate::expect`].
    pub expect: Expect,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { options: Options::default(), proof_tol: DEFAULT_PROOF_TOL, expect: Expect::Exact }
    }
}

/// A graph that is judged: on which engines, and by what bounds.
#[derive(Clone, Copy)]
pub(crate) struct Graph<'a> {
    pub onnx: &'a str,
    pub model: &'a Model,
    pub engines: &'a [&'a dyn Engine],
    pub bounds: &'a Bounds,
}

/// What a graph came to, and what else was learned on the way.
pub struct Judged {
    /// What there is to say.
    pub report: GraphReport,
    /// What rounding alone may do to each output; nothing where the oracle does not take the graph.
    pub budget: Option<Budget>,
    /// The modules that values of the graph hold.
    pub(crate) held: Vec<Held>,
}

/// What the checkpoint says: the model in f32, as it would be deployed, and in f64, as it is meant.
pub struct References {
    /// In f32.
    pub single: Reference,
    /// In f64.
    pub double: Reference,
    /// Where their weights are from.
    checkpoint: Checkpoint,
}

impl References {
    /// Loads the checkpoint in both, on the CPU.
    ///
    /// # Errors
    /// If a weight is missing or has the wrong shape.
    pub fn load(subject: &Subject) -> Result<Self, ParityError> {
        Self::load_on(subject, &Device::Cpu)
    }

    /// The same with the one in f32 on that device. The one in f64 judges, and stays on the CPU.
    ///
    /// # Errors
    /// As [`References::load`].
    pub fn load_on(subject: &Subject, device: &Device) -> Result<Self, ParityError> {
        Self::of(subject, subject.files().checkpoint()?, device)
    }

    /// The same with the weights of another checkpoint.
    pub(crate) fn of(
        subject: &Subject,
        checkpoint: Checkpoint,
        device: &Device,
    ) -> Result<Self, ParityError> {
        Ok(Self {
            single: subject.reference_of(&checkpoint, DType::F32, device)?,
            double: subject.reference_of(&checkpoint, DType::F64, &Device::Cpu)?,
            checkpoint,
        })
    }

    /// The model in f32 and in f64, with what [`Trial::further`] found.
    pub fn extended<'a>(&'a self, further: Option<&'a Further>) -> [Extended<'a>; 2] {
        [&self.single, &self.double].map(|side| Extended::new(&side.engine, further))
    }
}

/// The inputs of a trial with what the checkpoint makes of them, for as many graphs as take these inputs.
pub struct Trial<'a> {
    references: &'a References,
    cases: &'a [Case],
    expected: Expected<'a>,
    truth: Truth,
    /// What the checkpoint itself gives in f64, where the references are of a converted one.
    unconverted: Option<Truth>,
}

impl<'a> Trial<'a> {
    /// Runs the checkpoint on the cases, in f32 and in f64. `progress` is called twice for each case.
    ///
    /// # Errors
    /// If a case does not fit the model.
    pub fn new(
        references: &'a References,
        cases: &'a [Case],
        mut progress: impl FnMut(&Case),
    ) -> Result<Self, ParityError> {
        let expected = Expected::compute(&references.single.engine, cases, &mut progress)?;
        let truth = Truth::compute(&references.double.engine, cases, progress)?;
        Ok(Self { references, cases, expected, truth, unconverted: None })
    }

    /// The inputs.
    pub fn cases(&self) -> &'a [Case] {
        self.cases
    }

    /// The checkpoint in f32.
    pub fn expected(&self) -> &Expected<'a> {
        &self.expected
    }

    /// The checkpoint in f64.
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// The checkpoint in f64, by the names that the graph has for its outputs.
    pub(crate) fn truth_as(&self, subject: &Subject, model: &Model) -> Cow<'_, Truth> {
        match self.further(subject, model, &[]) {
            Some(further) => Cow::Owned(further.truth(&self.truth, self.cases)),
            None => Cow::Borrowed(&self.truth),
        }
    }

    /// What a graph gives beyond the model's own outputs, such as a `sentence_embedding`; nothing if it has none of those. See [`References::extended`].
    pub fn further(&self, subject: &Subject, model: &Model, engines: &[&dyn Engine]) -> Option<Further> {
        Further::of(model, engines, subject.files(), self.cases, &self.truth)
    }

    /// Holds a graph, on engines that have taken it, against the checkpoint. `progress` is called twice for each case, and once more for each engine;
    /// and twice more for a graph that was converted on purpose, as its checkpoint runs, too.
    ///
    /// # Errors
    /// If the inputs do not fit the graph.
    pub fn judge(
        &self,
        subject: &Subject,
        onnx: &str,
        model: &Model,
        engines: &[&dyn Engine],
        bounds: &Bounds,
        mut progress: impl FnMut(&Case),
    ) -> Result<Judged, ParityError> {
        let graph = Graph { onnx, model, engines, bounds };
        if bounds.expect != Expect::Exact {
            let (weights, references) = expect::converted(subject, model, bounds.expect)?;
            let mut trial = Trial::new(&references, self.cases, &mut progress)?;
            trial.unconverted = Some(self.truth.clone());
            return trial.judge_audited(subject, graph, weights, progress);
        }
        let weights = self.audit(subject, model)?;
        self.judge_audited(subject, graph, weights, progress)
    }

    /// The same with an audit that has been made.
    pub(crate) fn judge_audited(
        &self,
        subject: &Subject,
        graph: Graph,
        weights: Audit,
        progress: impl FnMut(&Case),
    ) -> Result<Judged, ParityError> {
        let Graph { model, engines, bounds, .. } = graph;
        let Some(further) = self.further(subject, model, engines) else {
            return self.judge_outputs(subject, graph, weights, progress);
        };
        let trial = Trial {
            expected: further.expected(&self.expected),
            truth: further.truth(&self.truth, self.cases),
            unconverted: self.unconverted.as_ref().map(|truth| further.truth(truth, self.cases)),
            references: self.references,
            cases: self.cases,
        };
        let bounds = &Bounds { options: further.options(&bounds.options), ..bounds.clone() };
        let mut judged = trial.judge_outputs(subject, Graph { bounds, ..graph }, weights, progress)?;
        further.explain(&mut judged.report);
        Ok(judged)
    }

    /// The same for the outputs that the reference has.
    fn judge_outputs(
        &self,
        subject: &Subject,
        graph: Graph,
        weights: Audit,
        mut progress: impl FnMut(&Case),
    ) -> Result<Judged, ParityError> {
        let Graph { onnx, model, engines, bounds } = graph;
        let Bounds { options, proof_tol, expect } = bounds;
        let options = &Options { half: *expect == Expect::F16, ..options.clone() };
        let oracles = oracles(subject, model, *expect, &weights);
        let sides = (&self.expected, &self.truth);
        let proven = Proven::of(oracles, sides, self.cases, *proof_tol, &mut progress)?;
        let checks = proven.checks(engines, onnx, options, progress)?;
        // What to say if the conversion was meant.
        let hints = weights.findings.iter().filter(|finding| finding.kind == FindingKind::Precision);
        let hints = hints.map(ToString::to_string).chain(expect::in_vain(*expect, &weights));
        let notes = hints.map(|hint| format!("{onnx}: {hint}")).collect();
        let Proven { proof, runs, .. } = proven;
        let mut report = GraphReport { notes, ..GraphReport::new(onnx, proof, Some(weights), checks) };
        let Some(runs) = runs else { return Ok(Judged { report, budget: None, held: Vec::new() }) };
        let held = self.look_closer(subject, &runs, graph, &mut report)?;
        if let Some(meant) = &self.unconverted {
            let Runs { oracles: Oracles { double, single, .. }, exact, rounded, .. } = &runs;
            report.precision = Some(expect::measure(*expect, meant, self.cases, rounded, engines)?);
            if let Some(found) = not_finite((double, exact), (single, rounded), &self.truth, self.cases) {
                report.verdict = report.verdict.max(Verdict::Fail);
                found.tell(&mut report);
            }
        }
        Ok(Judged { report, budget: Some(runs.budget), held })
    }

    pub(crate) fn audit(&self, subject: &Subject, model: &Model) -> Result<Audit, ParityError> {
        audit(&subject.files().checkpoint()?, subject.task(), subject.family(), model, Expect::Exact)
            .map_err(|source| subject.unfit(source))
    }

    /// Where it parts, why, and what else shows on a single input. The modules that values of the
    /// graph hold are returned.
    fn look_closer(
        &self,
        subject: &Subject,
        Runs { oracles: Oracles { double: oracle, .. }, budget, .. }: &Runs,
        Graph { engines, bounds, .. }: Graph,
        report: &mut GraphReport,
    ) -> Result<Vec<Held>, ParityError> {
        let reference = &self.references.double.engine;
        let Some(case) = telling_case(&report.proof, self.cases) else { return Ok(Vec::new()) };
        // Where the graph cannot run the input, there is nothing to look at.
        let mut findings = locate(reference, oracle, case).ok();
        let wrong = report.proof.verdict == Verdict::Fail;
        // What nothing is held against may be what is missing, under another name.
        let known = |name: &str| self.truth.specs().iter().any(|spec| spec.name == name);
        let unknown = oracle.outputs().iter().any(|spec| !known(&spec.name));
        if wrong || unknown || report.proof.outputs.is_empty() {
            report.explanation = self.explain_whole(oracle, case);
        }
        // In a graph that is proven, and has the right weights, nobody is to blame.
        if wrong || report.weights.as_ref().is_none_or(|audit| audit.verdict == Verdict::Fail) {
            report.culprits = culprits(&Facts {
                program: reference.program(),
                family: subject.family(),
                weights: Weights::new(&self.references.checkpoint, subject.task(), subject.family())
                    .ok()
                    .as_ref(),
                audit: report.weights.as_ref(),
                findings: findings.as_ref(),
                inputs: &case.inputs,
            });
        }
        if let (Some(findings), [engine, ..]) = (&mut findings, engines) {
            findings.measure(*engine, case);
        }
        let (held, located) = findings.map(|findings| (findings.held, findings.located)).unzip();
        report.located = located;
        if !wrong {
            match self.relations(oracle, engines, (bounds.proof_tol, budget), &report.checks) {
                Ok(relations) => report.relations = relations,
                // What has been judged stands.
                Err(error) => report.notes.push(format!("what must change nothing was not tried: {error}")),
            }
            if report.relations.iter().any(Relation::is_violated) {
                report.verdict = report.verdict.max(Verdict::Fail);
            }
        }
        let exact = ("f64", oracle as &dyn Engine);
        let first = engines.first().map(|&engine| (engine.name(), engine));
        let sides: Vec<_> = [exact].into_iter().chain(first).collect();
        report.tokens = token_errors(case, (self.cases, &self.truth), &sides);
        Ok(held.unwrap_or_default())
    }

    /// What must not change the answer: of both sides in f64, and of the first engine, unless it failed, within what rounding explains.
    fn relations(
        &self,
        oracle: &Oracle,
        engines: &[&dyn Engine],
        (proof_tol, budget): (f64, &Budget),
        checks: &[EngineCheck],
    ) -> Result<Vec<Relation>, ParityError> {
        let Some(case) = self.batch_case() else { return Ok(Vec::new()) };
        let exact = Bound::Relative(proof_tol);
        let mut all = relations::judge(oracle, "graph in f64", case, exact)?;
        all.extend(relations::judge(&self.references.double.engine, "reference in f64", case, exact)?);
        if let ([engine, ..], [check, ..]) = (engines, checks)
            && check.failure.is_none()
        {
            let side = format!("{} in {}", check.engine, check.dtype);
            all.extend(relations::judge(*engine, &side, case, Bound::Budget(budget))?);
        }
        Ok(all)
    }

    fn explain_whole(&self, oracle: &Oracle, case: &Case) -> Option<String> {
        let at = self.cases.iter().position(|other| other.name == case.name)?;
        let mut run = |inputs: &NamedValues| oracle.run(&fit_inputs(inputs, oracle.inputs()).ok()?).ok();
        explain_whole(&case.inputs, self.truth.outputs().get(at)?, &mut run)
            .map(|explanation| explanation.to_string())
    }

    /// The largest of the short inputs with several rows, or else of the short ones.
    fn batch_case(&self) -> Option<&Case> {
        let ids =
            |case: &Case| case.inputs.get("input_ids").map(|ids| (ids.len(), ids.shape().first().copied()));
        let rank = |case: &&Case| match ids(case) {
            Some((tokens, Some(rows))) => {
                (tokens <= TELLING, rows > 1, if tokens <= TELLING { tokens } else { usize::MAX - tokens })
            }
            _ => (false, false, 0),
        };
        self.cases.iter().max_by_key(rank)
    }
}

/// The graph on both oracles; or why one does not take it.
fn oracles(subject: &Subject, model: &Model, expect: Expect, audit: &Audit) -> Result<Oracles, String> {
    let double = match expect {
        Expect::Exact => exact_graph(model, subject.program()).map_err(|error| error.to_string())?,
        _ => expect::exact_graph(model, subject.program(), expect, audit)?,
    };
    Oracles::new(model, double).map_err(|error| error.to_string())
}
