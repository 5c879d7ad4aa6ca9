//! A graph before its checkpoint: the proof in f64, every engine in f32, and what they come to together.

use std::borrow::Cow;

use candle_core::DType;
use checkpoint::Checkpoint;
use engine::{Engine, NamedValues};
use onnx_eval::{Limits, Oracle};
use onnx_graph::Model;

use crate::against::runs;
use crate::audit::{Audit, Expect, FindingKind, audit};
use crate::check::{Exact, Expected, Options, check, fit_inputs};
use crate::culprits::{Facts, culprits};
use crate::expect::{self, Conversion, not_finite};
use crate::explain::{Weights, explain_whole};
use crate::locate::locate;
use crate::outputs::{self, Further};
use crate::proof::ProofOutput;
use crate::proof::{Budget, DEFAULT_PROOF_TOL, Promoted, Proof, Truth, exact_graph, prove, widened};
use crate::relations::{self, Bound, Relation};
use crate::report::{EngineCheck, GraphReport, TokenErrors};
use crate::suite::Case;
use crate::verdict::Verdict;
use crate::{ParityError, Reference, Subject};

/// How many tokens the input may have on which modules are looked at, if there is one so small: every value of the graph is kept.
const TELLING: usize = 256;

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
    /// Loads the checkpoint in both.
    ///
    /// # Errors
    /// If a weight is missing or has the wrong shape.
    pub fn load(subject: &Subject) -> Result<Self, ParityError> {
        Self::of(subject, subject.files().checkpoint()?)
    }

    /// The same with the weights of another checkpoint.
    pub(crate) fn of(subject: &Subject, checkpoint: Checkpoint) -> Result<Self, ParityError> {
        let reference = |dtype| subject.reference_of(&checkpoint, dtype);
        Ok(Self { single: reference(DType::F32)?, double: reference(DType::F64)?, checkpoint })
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
        match Further::of(model, &[], subject.files(), self.cases, &self.truth) {
            Some(further) => Cow::Owned(further.truth(&self.truth, self.cases)),
            None => Cow::Borrowed(&self.truth),
        }
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
    ) -> Result<GraphReport, ParityError> {
        if bounds.expect != Expect::Exact {
            let (weights, references) = expect::converted(subject, model, bounds.expect)?;
            let mut trial = Trial::new(&references, self.cases, &mut progress)?;
            trial.unconverted = Some(self.truth.clone());
            return trial.judge_with(subject, onnx, model, weights, engines, bounds, progress);
        }
        let weights = self.audit(subject, model)?;
        self.judge_with(subject, onnx, model, weights, engines, bounds, progress)
    }

    /// The same with an audit that has been made.
    #[expect(clippy::too_many_arguments, reason = "those of `judge`, and what it makes first")]
    pub(crate) fn judge_with(
        &self,
        subject: &Subject,
        onnx: &str,
        model: &Model,
        weights: Audit,
        engines: &[&dyn Engine],
        bounds: &Bounds,
        progress: impl FnMut(&Case),
    ) -> Result<GraphReport, ParityError> {
        let Some(further) = Further::of(model, engines, subject.files(), self.cases, &self.truth) else {
            return self.judge_outputs(subject, onnx, model, weights, engines, bounds, progress);
        };
        let trial = Trial {
            expected: further.expected(&self.expected),
            truth: further.truth(&self.truth, self.cases),
            unconverted: self.unconverted.as_ref().map(|truth| further.truth(truth, self.cases)),
            references: self.references,
            cases: self.cases,
        };
        let bounds = Bounds { options: further.options(&bounds.options), ..bounds.clone() };
        let mut report = trial.judge_outputs(subject, onnx, model, weights, engines, &bounds, progress)?;
        further.explain(&mut report);
        Ok(report)
    }

    /// The same for the outputs that the reference has.
    #[expect(clippy::too_many_arguments, reason = "those of `judge_with`")]
    fn judge_outputs(
        &self,
        subject: &Subject,
        onnx: &str,
        model: &Model,
        weights: Audit,
        engines: &[&dyn Engine],
        bounds: &Bounds,
        mut progress: impl FnMut(&Case),
    ) -> Result<GraphReport, ParityError> {
        let Bounds { options, proof_tol, expect } = bounds;
        let options = &Options { half: *expect == Expect::F16, ..options.clone() };
        let (proof, budget, sides) = match exact(subject, model, *expect, &weights) {
            Err(refused) => (Proof::impossible(refused, *proof_tol), None, None),
            Ok(sides) => {
                let (mut proof, exact) =
                    prove(&self.truth, &sides.double, self.cases, *proof_tol, &mut progress)?;
                proof.promoted = sides.promoted.clone();
                let runs = runs(&sides.single, self.cases, &exact, &mut progress)?;
                let budget = Budget::measure(&self.truth, &self.expected, &exact, &runs);
                (proof, Some(budget), Some((sides, exact, runs)))
            }
        };
        let exact = budget.as_ref().map(|budget| Exact { truth: &self.truth, budget });
        let checks: Vec<EngineCheck> = engines
            .iter()
            .map(|engine| check(&self.expected, *engine, onnx, options, exact, &mut progress))
            .collect::<Result<_, _>>()?;
        let verdicts = checks.iter().map(|check| check.verdict);
        let verdict = Verdict::worst(verdicts).max(proof.verdict).max(weights.verdict);
        // What to say if the conversion was meant.
        let hints = weights.findings.iter().filter(|finding| finding.kind == FindingKind::Precision);
        let hints = hints.map(ToString::to_string).chain(expect::in_vain(*expect, &weights));
        let notes = hints.map(|hint| format!("{onnx}: {hint}")).collect();
        let mut report = GraphReport {
            onnx: onnx.into(),
            verdict,
            proof,
            weights: Some(weights),
            checks,
            located: None,
            culprits: Vec::new(),
            explanation: None,
            relations: Vec::new(),
            stress: Vec::new(),
            held: Vec::new(),
            tokens: Vec::new(),
            notes,
            precision: None,
        };
        if let (Some((Sides { double, .. }, ..)), Some(budget)) = (&sides, &budget) {
            self.look_closer(subject, double, engines, (*proof_tol, budget), &mut report)?;
        }
        if let (Some(meant), Some((Sides { double, single, .. }, exact, runs))) = (&self.unconverted, &sides)
        {
            report.precision = Some(Conversion::measure(*expect, meant, self.cases, runs, engines)?);
            if let Some(found) = not_finite((double, exact), (single, runs), &self.truth, self.cases) {
                report.verdict = report.verdict.max(Verdict::Fail);
                found.tell(&mut report);
            }
        }
        Ok(report)
    }

    pub(crate) fn audit(&self, subject: &Subject, model: &Model) -> Result<Audit, ParityError> {
        audit(&subject.files().checkpoint()?, subject.config(), model, Expect::Exact)
            .map_err(|source| ParityError::Weights { model: subject.name().into(), source: Box::new(source) })
    }

    /// Where it parts, why, and what else shows on a single input.
    fn look_closer(
        &self,
        subject: &Subject,
        oracle: &Oracle,
        engines: &[&dyn Engine],
        (proof_tol, budget): (f64, &Budget),
        report: &mut GraphReport,
    ) -> Result<(), ParityError> {
        let reference = &self.references.double.engine;
        let Some(case) = self.telling_case(&report.proof) else { return Ok(()) };
        // Where the graph cannot run the input, there is nothing to look at.
        let mut findings = locate(reference, oracle, case).ok();
        let wrong = report.proof.verdict == Verdict::Fail;
        // What nothing is held against may be what is missing, under another name.
        let known = |name: &str| self.truth.specs().iter().any(|spec| spec.name == name);
        let unknown = oracle.outputs().iter().any(|spec| !known(&spec.name));
        if wrong || unknown || report.proof.outputs.is_empty() {
            report.explanation = self.explain_whole(oracle, case);
        }
        let weights = Weights::new(&self.references.checkpoint, subject.config()).ok();
        let paths = reference.model().module_paths();
        // In a graph that is proven, and has the right weights, nobody is to blame.
        let blame = wrong || report.weights.as_ref().is_none_or(|audit| audit.verdict == Verdict::Fail);
        let all = culprits(&Facts {
            config: subject.config(),
            weights: weights.as_ref(),
            paths: &paths,
            audit: report.weights.as_ref(),
            findings: findings.as_ref(),
            case: Some(case),
        });
        report.culprits = if blame { all } else { Vec::new() };
        if let (Some(findings), [engine, ..]) = (&mut findings, engines) {
            findings.measure(*engine, case);
        }
        if let Some(findings) = findings {
            report.held = findings.held;
            report.located = Some(findings.located);
        }
        if !wrong {
            match self.relations(oracle, engines, (proof_tol, budget), &report.checks) {
                Ok(relations) => report.relations = relations,
                // What has been judged stands.
                Err(error) => report.notes.push(format!("what must change nothing was not tried: {error}")),
            }
            if report.relations.iter().any(Relation::is_violated) {
                report.verdict = report.verdict.max(Verdict::Fail);
            }
        }
        report.tokens = self.tokens(oracle, engines, case);
        Ok(())
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

    /// The errors by token, in f64 and on the first engine.
    fn tokens(&self, oracle: &Oracle, engines: &[&dyn Engine], case: &Case) -> Vec<TokenErrors> {
        let Some(at) = self.cases.iter().position(|other| other.name == case.name) else { return Vec::new() };
        let has = |name: &&str| oracle.outputs().iter().any(|spec| spec.name == *name);
        let Some(hidden) = [outputs::HIDDEN, outputs::TOKENS].into_iter().find(has) else {
            return Vec::new();
        };
        let Some(truth) = self.truth.outputs().get(at).and_then(|outputs| outputs.get(hidden)) else {
            return Vec::new();
        };
        let sides = [Some(oracle as &dyn Engine), engines.first().copied()];
        let run = |engine: &dyn Engine| {
            engine.run_for(&fit_inputs(&case.inputs, engine.inputs()).ok()?, &[hidden]).ok()?.remove(hidden)
        };
        let names =
            ["f64".to_string(), engines.first().map(|engine| engine.name().to_string()).unwrap_or_default()];
        sides
            .into_iter()
            .zip(names)
            .filter_map(|(engine, name)| {
                let found = widened(&run(engine?)?);
                TokenErrors::between(
                    &case.name,
                    hidden,
                    &name,
                    truth,
                    &found,
                    case.inputs.get("attention_mask"),
                )
            })
            .collect()
    }

    /// The input on which modules are looked at: of those on which the proof fails the one with the largest difference, but not a long one if a
    /// short one will do; a small one with several rows where it holds.
    fn telling_case(&self, proof: &Proof) -> Option<&Case> {
        let positions = |case: &Case| case.inputs.get("input_ids").map_or(0, |ids| ids.len());
        let failing = proof.failing_inputs();
        let mut cases: Vec<&Case> = self
            .cases
            .iter()
            .filter(|case| failing.is_empty() || failing.contains(&case.name.as_str()))
            .collect();
        cases.sort_by_key(|case| positions(case));
        let short: Vec<&Case> = cases.iter().copied().filter(|case| positions(case) <= TELLING).collect();
        let off = |output: &&ProofOutput| output.max_rel.unwrap_or(f64::INFINITY);
        let beyond = proof.outputs.iter().filter(|output| output.verdict == Verdict::Fail);
        let worst =
            beyond.max_by(|a, b| off(a).total_cmp(&off(b))).and_then(|output| output.worst_input.as_deref());
        let is_worst = |case: &&&Case| worst == Some(case.name.as_str());
        short.iter().find(is_worst).or(short.last()).or(cases.first()).copied()
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
fn exact(subject: &Subject, model: &Model, expect: Expect, audit: &Audit) -> Result<Sides, String> {
    let (double, promoted) = match expect {
        Expect::Exact => exact_graph(model, subject.config()).map_err(|error| error.to_string())?,
        _ => expect::exact_graph(model, subject.config(), expect, audit)?,
    };
    let single = Oracle::with(model, onnx_eval::Precision::F32, Limits::default());
    Ok(Sides { double, promoted, single: single.map_err(|error| error.to_string())? })
}

/// The oracle on a graph, in f64 as it was meant, and in f32 as it is.
struct Sides {
    double: Oracle,
    promoted: Vec<Promoted>,
    single: Oracle,
}
