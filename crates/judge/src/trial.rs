//! A graph before its checkpoint: the proof in f64, every engine in f32, and what they come to
//! together.

use std::borrow::Cow;
use std::collections::BTreeSet;

use architecture::Op;
use engine::Engine;
use onnx_graph::Model;
use report::{EngineCheck, Expect, FindingKind, GraphReport, Parts, Relation, Verdict};

use crate::audit::{Audit, audit, moved};
use crate::blame::locate::Carried;
use crate::blame::{self, Blame, Evidence, before};
use crate::bounds::Bounds;
use crate::compare::Answers;
use crate::engines::relations::{self, Bound};
use crate::engines::stress::{self, Part};
use crate::engines::{Exact, check, refused};
use crate::inputs::Case;
use crate::proof::convert::{self, NotFinite, not_finite};
use crate::proof::further::Further;
use crate::proof::{
    Budget, Leave, Oracles, Proof, ProofOutput, Proven, Roundings, Runs, Scope, TELLING, carrying,
    exact_graph_with, refute, telling_case,
};
use crate::structure::{self, Held, Structure, branches};
use crate::subject::References;
use crate::{ParityError, Subject, verdict};

/// A graph that is judged: on which engines, and by what bounds.
#[derive(Clone, Copy)]
pub struct Graph<'a> {
    /// The name it goes by in a report.
    pub onnx: &'a str,
    /// The graph.
    pub model: &'a Model,
    /// What has taken it.
    pub engines: &'a [&'a dyn Engine],
    /// What passes.
    pub bounds: &'a Bounds,
    /// What runs parts of it, so that each LayerNorm can be put under stress; nothing where that is
    /// not wanted.
    pub parts: &'a [Part<'a>],
    /// Why no engine takes it, if none does.
    pub refused: Option<&'a str>,
    /// Whether no input is made beside those of the trial.
    pub only_given: bool,
}

impl<'a> Graph<'a> {
    /// A graph on engines that have taken it, none of which is put under stress.
    pub fn new(onnx: &'a str, model: &'a Model, engines: &'a [&'a dyn Engine], bounds: &'a Bounds) -> Self {
        Self { onnx, model, engines, bounds, parts: &[], refused: None, only_given: false }
    }

    /// The outputs that nothing is held against: the graph's own that the reference does not have,
    /// unless others were asked for.
    pub(crate) fn unheld(&self, expected: &Answers) -> Vec<String> {
        let is_held = |name: &String| expected.specs().iter().any(|spec| spec.name == *name);
        let own = self.model.graph.outputs.iter().map(|spec| spec.name.clone());
        own.filter(|name| self.bounds.outputs.is_empty() && !is_held(name)).collect()
    }

    /// Each engine in f32 against the reference; or that none takes the graph. `progress` is called
    /// once for each case and engine.
    pub(crate) fn checks(
        &self,
        expected: &Answers,
        truth: &Answers,
        runs: Option<&Runs>,
        mut progress: impl FnMut(&Case),
    ) -> Result<Vec<EngineCheck>, ParityError> {
        let exact = runs.map(|runs| Exact { truth, budget: &runs.budget });
        let on =
            |engine: &&dyn Engine| check(expected, *engine, self.onnx, self.bounds, exact, &mut progress);
        let refused = self.refused.map(|why| Ok(refused(self.onnx, why)));
        self.engines.iter().map(on).chain(refused).collect()
    }
}

/// What a graph came to.
pub struct Judged {
    /// What there is to say.
    pub report: GraphReport,
    /// What rounding alone may do to each output; nothing where the oracle does not take the graph.
    pub budget: Option<Budget>,
    /// Inputs beside those of the trial on which the graph is another function. A trial with them
    /// shows where.
    pub witnesses: Vec<Case>,
}

/// The inputs of a trial with what the checkpoint makes of them, for as many graphs as take these
/// inputs.
#[derive(Clone)]
pub struct Trial<'a> {
    subject: &'a Subject,
    references: &'a References,
    expected: Answers<'a>,
    truth: Answers<'a>,
    /// What the checkpoint itself gives in f64, where the references are of a converted one.
    unconverted: Option<(&'a References, Answers<'a>)>,
}

/// The tensors that were moved, in words; each by itself is a finding.
fn moved_tensors(weights: &Audit) -> Option<String> {
    /// How many are named.
    const NAMED: usize = 3;
    let findings = weights.findings.iter().filter(|finding| finding.kind == FindingKind::Moved);
    let tensors: BTreeSet<&str> =
        findings.flat_map(|finding| finding.tensors.iter().map(String::as_str)).collect();
    let named: Vec<&str> = tensors.iter().copied().take(NAMED).collect();
    let more = match tensors.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!named.is_empty()).then(|| {
        format!(
            "not held as the checkpoint has them, which changes nothing, as what was moved is undone \
             elsewhere: {}{more}",
            named.join(", ")
        )
    })
}

impl<'a> Trial<'a> {
    /// Runs the checkpoint on the cases, in f32 and in f64. `progress` is called twice for each
    /// case.
    ///
    /// # Errors
    /// If a case does not fit the model.
    pub fn new(
        subject: &'a Subject,
        references: &'a References,
        cases: &'a [Case],
        mut progress: impl FnMut(&Case),
    ) -> Result<Self, ParityError> {
        let expected = Answers::of(&references.single.engine, cases, &mut progress)?;
        let truth = Answers::of(&references.double.engine, cases, progress)?;
        Ok(Self { subject, references, expected, truth, unconverted: None })
    }

    /// The checkpoint in f32.
    pub fn expected(&self) -> &Answers<'a> {
        &self.expected
    }

    /// The checkpoint in f64.
    pub fn truth(&self) -> &Answers<'a> {
        &self.truth
    }

    /// The checkpoint in f64, by the names that the graph has for its outputs.
    pub(crate) fn truth_as(&self, model: &Model) -> Result<Cow<'_, Answers<'a>>, ParityError> {
        Ok(match self.further(model, &[]) {
            Some(further) => Cow::Owned(further.answers(&self.references.double.engine, &self.truth)?),
            None => Cow::Borrowed(&self.truth),
        })
    }

    /// What a graph gives beyond the model's own outputs, such as a `sentence_embedding`, or gives
    /// by other names; nothing if it has none of those. See
    /// [`Extended`](crate::proof::further::Extended).
    pub fn further(&self, model: &Model, engines: &[&dyn Engine]) -> Option<Further> {
        let reference = &self.references.double.engine;
        Further::of(model, engines, self.subject.files(), reference, &self.truth)
    }

    /// Holds a graph against the checkpoint. `progress` is called twice for each case, and once
    /// more for each engine; and twice more for a graph that was converted on purpose, as its
    /// checkpoint runs, too.
    ///
    /// # Errors
    /// If the inputs do not fit the graph.
    pub fn judge(&self, graph: Graph, mut progress: impl FnMut(&Case)) -> Result<Judged, ParityError> {
        let expect = graph.bounds.expect;
        if expect == Expect::Exact {
            return self.judge_audited(graph, self.audit(graph.model)?, progress);
        }
        let (weights, references) = convert::converted(self.subject, graph.model, expect)?;
        let mut trial = Trial::new(self.subject, &references, self.truth.cases(), &mut progress)?;
        trial.unconverted = Some((self.references, self.truth.clone()));
        trial.judge_audited(graph, weights, progress)
    }

    /// What a graph's f32 is left beside what the checkpoint loses.
    pub(crate) fn leave(&self, bounds: &Bounds) -> Leave {
        Leave {
            roundings: Roundings::of_program(self.subject.program()),
            is_converted: bounds.expect != Expect::Exact,
        }
    }

    pub(crate) fn audit(&self, model: &Model) -> Result<Audit, ParityError> {
        let subject = self.subject;
        audit(&subject.files().checkpoint()?, subject.task(), subject.family(), model, Expect::Exact)
            .map_err(|source| subject.unfit(source))
    }

    /// Judges a graph whose audit has been made.
    pub(crate) fn judge_audited(
        &self,
        graph: Graph,
        weights: Audit,
        progress: impl FnMut(&Case),
    ) -> Result<Judged, ParityError> {
        let Some(further) = self.further(graph.model, graph.engines) else {
            return self.judge_outputs(graph, None, weights, progress);
        };
        let References { single, double, .. } = self.references;
        let unconverted = self.unconverted.as_ref().map(|(references, answers)| {
            Ok::<_, ParityError>((*references, further.answers(&references.double.engine, answers)?))
        });
        let trial = Trial {
            expected: further.answers(&single.engine, &self.expected)?,
            truth: further.answers(&double.engine, &self.truth)?,
            unconverted: unconverted.transpose()?,
            ..*self
        };
        let bounds = &further.bounds(graph.bounds);
        trial.judge_outputs(Graph { bounds, ..graph }, Some(&further), weights, progress)
    }

    /// Judges a graph by outputs that the reference has, under the same names: both sides in f64,
    /// engines, blame, and the report on it.
    fn judge_outputs(
        &self,
        graph: Graph,
        further: Option<&Further>,
        mut weights: Audit,
        mut progress: impl FnMut(&Case),
    ) -> Result<Judged, ParityError> {
        let Graph { onnx, engines, bounds, .. } = graph;
        let (expected, truth) = (&self.expected, &self.truth);
        let oracles = self.oracles(graph, &weights);
        let leave = self.leave(bounds);
        let Proven { mut proof, runs } =
            Proven::of(oracles, expected, truth, bounds.proof_tol, leave, &mut progress)?;
        let checks = graph.checks(expected, truth, runs.as_ref(), progress)?;

        // What to say if the conversion was meant.
        let hints = weights.findings.iter().filter(|finding| finding.kind == FindingKind::Precision);
        let hints = hints.map(ToString::to_string).chain(convert::in_vain(bounds.expect, &weights));
        let mut notes: Vec<String> = hints.collect();
        let (mut parts, mut overflow, mut witnesses) = (Parts::default(), None, Vec::new());
        if let Some(runs) = &runs {
            let mut precision = None;
            if let Some((_, meant)) = &self.unconverted {
                let Oracles { double, single, .. } = &runs.oracles;
                precision = Some(convert::measure(bounds.expect, meant, &runs.rounded, engines)?);
                overflow = not_finite((double, &runs.exact), (single, &runs.rounded), truth);
            }
            let mut relations = Vec::new();
            if proof.verdict != Verdict::Fail {
                // Where they cannot be tried, what has been judged stands.
                relations = self.relations(runs, graph, &checks).unwrap_or_else(|error| {
                    notes.push(format!("what must change nothing was not tried: {error}"));
                    Vec::new()
                });
            }
            let (looked, carried) = self.look_closer(runs, graph, &proof, &weights, overflow.as_ref());
            parts = Parts { precision, relations, ..looked };
            notes.extend(self.unstressed(graph, &parts));
            if proof.verdict == Verdict::Pass && bounds.expect == Expect::Exact {
                witnesses = self.for_every_input(runs, graph, further, (&carried, &weights), &mut proof)?;
                if proof.scope == Scope::EveryInput {
                    self.excuse(&mut weights, graph.model, further, &proof)?;
                    if weights.verdict != Verdict::Fail {
                        // Nobody is to blame for what was only moved.
                        parts.culprits.clear();
                    }
                    notes.extend(moved_tensors(&weights));
                }
            }
        }
        parts.weights = Some(weights);
        parts.unheld = graph.unheld(expected);
        if let Some(further) = further {
            notes.extend(further.notes());
            // What is wrong before may be why: a mask that is ignored everywhere is ignored here,
            // too.
            match further.explanation() {
                Some(explanation) if parts.culprits.is_empty() => {
                    parts.explanation = Some(before(explanation, parts.explanation.take()));
                }
                explanation => notes.extend(explanation),
            }
        }
        let verdict = verdict::on_graph(&proof, &parts, &checks, overflow.is_some());
        let notes = notes.into_iter().map(|note| format!("{onnx}: {note}")).collect();
        let report = GraphReport { onnx: onnx.into(), verdict, proof, checks, parts, notes };
        Ok(Judged { report, budget: runs.map(|runs| runs.budget), witnesses })
    }

    /// Whether what holds on the inputs that were run holds for every input, by the structure of
    /// the graph. What it says goes into the proof. Gives inputs on which it does not hold.
    fn for_every_input(
        &self,
        runs: &Runs,
        Graph { model, bounds, only_given, .. }: Graph,
        further: Option<&Further>,
        (carried, weights): (&[Carried], &Audit),
        proof: &mut Proof,
    ) -> Result<Vec<Case>, ParityError> {
        let (oracle, reference) = (&runs.oracles.double, &self.references.double.engine);
        let folded = branches::folded(model).and_then(|model| {
            let exact = exact_graph_with(&model, self.subject.program(), &carrying(weights));
            Some((model, exact.ok()?.0))
        });
        let (model, oracle) = folded.as_ref().map_or((model, oracle), |(model, oracle)| (model, oracle));
        let specs = self.truth.specs();
        let tol = bounds.proof_tol;
        let held = Held { model, oracle, reference, further, specs, carried, tol };
        let Structure { proven, guards, unexplained, mut suspicious } = Structure::of(&held);
        let is_proven = |output: &ProofOutput| proven.contains(&output.name);
        let is_explained = unexplained.is_empty() && !proof.outputs.is_empty();
        if is_explained && proof.outputs.iter().all(is_proven) {
            proof.scope = Scope::EveryInput;
            proof.guards = guards;
        }
        if suspicious.is_empty() || only_given {
            proof.note_unexplained(unexplained);
            return Ok(Vec::new());
        }
        let mut truth = Answers::of(reference, &suspicious, |_| ())?;
        if let Some(further) = further {
            truth = further.answers(reference, &truth)?;
        }
        let failing = refute(proof, &truth, oracle)?;
        suspicious.retain(|case| failing.contains(&case.name));
        if suspicious.is_empty() {
            proof.note_unexplained(unexplained);
        }
        Ok(suspicious)
    }

    /// The LayerNorms that could not be put under stress, in words.
    fn unstressed(&self, graph: Graph, parts: &Parts) -> Option<String> {
        let program = self.subject.program();
        let norms =
            program.steps.iter().enumerate().filter(|(_, step)| matches!(step.op, Op::LayerNorm { .. }));
        let is_stressed = |module: &&str| parts.stress.iter().any(|stress| stress.module == *module);
        let (stressed, left): (Vec<&str>, Vec<&str>) =
            norms.map(|(step, _)| program.place(step)).partition(is_stressed);
        let first = left.first().filter(|_| !graph.parts.is_empty())?;
        let (count, all) = (left.len(), stressed.len() + left.len());
        Some(format!(
            "{count} of {all} LayerNorms were not put under stress, as they could not be cut out of the graph \
             and run by themselves: {first} is the first"
        ))
    }

    /// Excuses weights that were only moved, in a graph that is proven for every input.
    fn excuse(
        &self,
        weights: &mut Audit,
        model: &Model,
        further: Option<&Further>,
        proof: &Proof,
    ) -> Result<(), ParityError> {
        let subject = self.subject;
        let program = subject.program();
        let steps = |name: &str| {
            let known = further.and_then(|further| further.steps(program, name));
            known.unwrap_or_else(|| structure::ends_of(program, name))
        };
        let ends: Vec<usize> = proof.outputs.iter().flat_map(|output| steps(&output.name)).collect();
        let tensors = program.needed(&ends).into_iter().flat_map(|step| program.steps[step].op.tensors());
        let needed = tensors.map(|(_, id)| program.tensors[id].name.as_str()).collect();
        let checkpoint = subject.files().checkpoint()?;
        moved::excuse(weights, &checkpoint, subject.task(), subject.family(), model, &needed)
            .map_err(|source| subject.unfit(source))
    }

    /// What shows on a single input: who is to blame, where in a text, and each LayerNorm alone.
    fn look_closer(
        &self,
        runs: &Runs,
        graph: Graph,
        proof: &Proof,
        weights: &Audit,
        overflow: Option<&NotFinite>,
    ) -> (Parts, Vec<Carried>) {
        let Some(case) = telling_case(proof, self.truth.cases()) else { return Default::default() };
        let (oracle, engine) = (&runs.oracles.double, graph.engines.first().copied());
        let integers = matches!(graph.bounds.expect, Expect::Int8 | Expect::Int4);
        let lost = match proof.verdict {
            Verdict::Fail if integers => convert::lost(graph.model, oracle, case),
            _ => Vec::new(),
        };
        let Blame { culprits, explanation, located, norms, carried } = blame::blame(&Evidence {
            subject: self.subject,
            references: self.references,
            truth: &self.truth,
            oracle,
            proof,
            audit: weights,
            overflow,
            lost: &lost,
            engine,
            case,
        });
        let stress = |part: &Part| stress::stress(&norms, graph.model, part);
        let parts = Parts {
            culprits,
            explanation,
            located,
            tokens: blame::tokens::token_errors(case, &self.truth, oracle, engine),
            stress: graph.parts.iter().flat_map(stress).collect(),
            ..Parts::default()
        };
        (parts, carried)
    }

    /// What must not change the answer: of both sides in f64, and of the first engine, unless it
    /// failed, within what rounding explains.
    fn relations(
        &self,
        Runs { oracles, budget, .. }: &Runs,
        Graph { engines, bounds, .. }: Graph,
        checks: &[EngineCheck],
    ) -> Result<Vec<Relation>, ParityError> {
        let Some(case) = self.batch_case() else { return Ok(Vec::new()) };
        let exact = Bound::Relative(bounds.proof_tol);
        let mut all = relations::judge(&oracles.double, "graph in f64", case, exact)?;
        all.extend(relations::judge(&self.references.double.engine, "reference in f64", case, exact)?);
        if let ([engine, ..], [check, ..]) = (engines, checks)
            && check.failure.is_none()
        {
            let side = format!("{} in {}", check.engine, check.dtype);
            all.extend(relations::judge_converted(*engine, &side, case, budget)?);
        }
        Ok(all)
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
        self.truth.cases().iter().max_by_key(rank)
    }

    /// The graph on both oracles; or why one does not take it.
    fn oracles(&self, Graph { model, bounds, .. }: Graph, audit: &Audit) -> Result<Oracles, String> {
        let program = self.subject.program();
        let double = match bounds.expect {
            Expect::Exact => {
                exact_graph_with(model, program, &carrying(audit)).map_err(|error| error.to_string())?
            }
            expect => convert::exact_graph(model, program, expect, audit)?,
        };
        Oracles::new(model, double).map_err(|error| error.to_string())
    }
}
