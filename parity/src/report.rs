//! What a check found, as data: the `parity-report/1` JSON, and what the terminal shows.

use serde::Serialize;

mod tokens;

pub use tokens::TokenErrors;

use crate::audit::Audit;
use crate::bench::Timing;
use crate::compare::{Comparison, Distance};
use crate::decide::Decisions;
use crate::expect::Conversion;
use crate::locate::Held;
use crate::proof::{Budget, Proof, ulp};
use crate::recorded::Recorded;
use crate::relations::Relation;
use crate::replay::Replay;
use crate::stress::Stress;
use crate::tokenizer_check::TokenizerReport;
use crate::verdict::Verdict;

/// The name and version of the JSON form. A field may be added under the same version; none changes its meaning or goes away.
pub const SCHEMA: &str = "parity-report/1";

/// Everything a check found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The worst verdict of all checks.
    pub verdict: Verdict,
    /// The checkpoint, as the user named it.
    pub model: String,
    /// The graph that was judged; the first, where there are several.
    pub onnx: Option<String>,
    /// Why the check could not be run, if the verdict is `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The largest |reference − candidate| that passes.
    pub atol: f64,
    /// What was run.
    pub inputs: Vec<InputSummary>,
    /// What was left out, renamed or converted on the way, for a person to read.
    pub notes: Vec<String>,
    /// One entry for each engine and graph.
    pub checks: Vec<EngineCheck>,
    /// What both sides are in f64: of the graph that comes off worst, where there are several.
    pub proof: Option<Proof>,
    /// What became of the checkpoint's tensors in this graph.
    pub weights: Option<Audit>,
    /// The modules that this graph computes otherwise, in the order of execution.
    pub culprits: Vec<Culprit>,
    /// What explains the whole, where no module does: exchanged inputs, exchanged or renamed outputs.
    pub explanation: Option<String>,
    /// The modules of the checkpoint, and the values of this graph that carry their outputs.
    pub located: Option<Located>,
    /// What must not change the answer, and whether it does.
    pub relations: Vec<Relation>,
    /// Each normalisation alone on each engine, on rows that its kernel finds hard.
    pub stress: Vec<Stress>,
    /// Where on its worst input this graph is off.
    pub tokens: Vec<TokenErrors>,
    /// What it costs that this graph was converted on purpose; left out of one that was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Conversion>,
    /// Whether the model's tokenizer.json and vocab.txt give the same ids; null where it does not have both.
    pub tokenizer: Option<TokenizerReport>,
    /// Everything about each graph, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub graphs: Vec<GraphReport>,
    /// Both sides against what was recorded elsewhere, in every precision and on every engine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recorded: Vec<Recorded>,
    /// The folder that replays what fails, if one was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repro: Option<Replay>,
    /// How long the engines took on one of the inputs.
    pub timing: Option<TimingReport>,
    /// The command line that made this report, quoted for a POSIX shell; null where a program did.
    pub command: Option<String>,
}

/// One set of inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InputSummary {
    /// Its name.
    pub name: String,
    /// Rows and tokens.
    pub shape: Vec<usize>,
    /// How many of the tokens are real.
    pub tokens: usize,
}

/// Everything found about one graph.
#[derive(Debug, Clone, Serialize)]
pub struct GraphReport {
    /// The graph.
    pub onnx: String,
    /// The worst of what follows.
    pub verdict: Verdict,
    /// Both sides in f64.
    pub proof: Proof,
    /// What became of the checkpoint's tensors.
    pub weights: Option<Audit>,
    /// Each engine in f32.
    pub checks: Vec<EngineCheck>,
    /// The modules of the checkpoint, and the values of the graph that carry their outputs.
    pub located: Option<Located>,
    /// The modules that compute something else, in the order of execution.
    pub culprits: Vec<Culprit>,
    /// What explains the whole, where no module does: exchanged inputs, exchanged or renamed outputs.
    pub explanation: Option<String>,
    /// What must not change the answer, and whether it does.
    pub relations: Vec<Relation>,
    /// Where on its worst input the graph is off.
    pub tokens: Vec<TokenErrors>,
    /// Each normalisation alone on each engine, on rows that its kernel finds hard.
    pub stress: Vec<Stress>,
    #[serde(skip)]
    pub(crate) held: Vec<Held>,
    /// What rounding alone may do to each output; nothing where the oracle does not take the graph.
    #[serde(skip)]
    pub budget: Option<Budget>,
    /// What it costs that the graph was converted on purpose; left out of one that was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Conversion>,
    /// What was taken for what, for a person to read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl GraphReport {
    /// What was judged of a graph, before anybody looks where and why.
    pub(crate) fn new(onnx: &str, proof: Proof, weights: Option<Audit>, checks: Vec<EngineCheck>) -> Self {
        let verdicts = checks.iter().map(|check| check.verdict);
        let audited = weights.as_ref().map_or(Verdict::Pass, |audit| audit.verdict);
        Self {
            onnx: onnx.into(),
            verdict: Verdict::worst(verdicts).max(proof.verdict).max(audited),
            proof,
            weights,
            checks,
            located: None,
            culprits: Vec::new(),
            explanation: None,
            relations: Vec::new(),
            tokens: Vec::new(),
            stress: Vec::new(),
            held: Vec::new(),
            budget: None,
            precision: None,
            notes: Vec::new(),
        }
    }
}

/// A module that the graph computes otherwise than the checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Culprit {
    /// Its path in the checkpoint, the deepest that is known: `encoder.layer.2.intermediate`.
    pub module: String,
    /// Its own error in f64, when it is given what the reference gives it; null where no value shows it, or one is not finite.
    pub max_abs: Option<f64>,
    /// The nodes of the graph that compute it, in the order of execution.
    pub nodes: Vec<String>,
    /// What would explain it: `gelu = tanh: 3.1e-4 → 2e-13`.
    pub explanation: Option<String>,
}

/// Where the graph parts from the checkpoint, on one input.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Located {
    /// The input.
    pub input: String,
    /// Every module, in the order of execution.
    pub modules: Vec<ModuleError>,
}

/// One module: its output in the checkpoint against the value of the graph that carries it, in f64.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleError {
    /// Its path in the checkpoint.
    pub module: String,
    /// The graph's value that carries its output; null where none does, as within a fused operator.
    pub value: Option<String>,
    /// The nodes that compute it from what other modules give, in the order of execution.
    pub nodes: Vec<String>,
    /// Its error when it is given what the reference gives it.
    pub own: Option<f64>,
    /// Its error in the plain run: its own, and that of all before it.
    pub inherited: Option<f64>,
    /// The largest |value| of the reference.
    pub scale: f64,
    /// The error of the f32 engine here, where it can be asked for the value.
    pub single: Option<f64>,
    /// Whether it is one of the culprits.
    pub culprit: bool,
}

/// One graph on one engine against the reference.
#[derive(Debug, Clone, Serialize)]
pub struct EngineCheck {
    /// The engine that ran the graph.
    pub engine: String,
    /// The graph.
    pub onnx: String,
    /// What it computed in.
    pub dtype: String,
    /// The worst verdict of its outputs.
    pub verdict: Verdict,
    /// Why the engine did not take the graph, or failed on an input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Outputs of the reference that the graph does not have, and the other way round.
    pub not_compared: Vec<String>,
    /// The outputs that both have.
    pub outputs: Vec<OutputReport>,
}

/// One output, over all inputs. `max_abs` and the like cover deciding positions alone; they are null if a value is not finite.
#[derive(Debug, Clone, Serialize)]
pub struct OutputReport {
    /// Its name.
    pub name: String,
    /// Its shape for the input where it is furthest off.
    pub shape: Vec<usize>,
    /// The largest |reference − candidate|.
    pub max_abs: Option<f64>,
    /// That, over the largest |reference|.
    pub max_rel: Option<f64>,
    /// The largest distance in units of the last place of the output's dtype: large next to zero, where values lie dense.
    pub max_ulp: Option<u64>,
    /// The mean |reference − candidate|.
    pub mean_abs: Option<f64>,
    /// The cosine of the angle between both, as vectors.
    pub cosine: Option<f64>,
    /// The distance of the element that is furthest off, in the same units.
    pub worst_ulp: Option<u64>,
    /// The input with the largest difference.
    pub worst_input: Option<String>,
    /// The element there.
    pub worst_index: Option<Vec<usize>>,
    /// The reference's value of it; null if it is not finite.
    pub reference: Option<f64>,
    /// The candidate's value of it; null if it is not finite.
    pub candidate: Option<f64>,
    /// How many elements were compared.
    pub compared: usize,
    /// How many are further off than `atol`.
    pub beyond_atol: usize,
    /// How many are NaN or infinite.
    pub non_finite: NonFinite,
    /// How far the engine may be from the reference by rounding alone; null where there is no proof to measure it by.
    pub budget: Option<f64>,
    /// How far each side is from the reference in f64; null where that was not run.
    pub truth: Option<FromTruth>,
    /// Shape or dtype that differ, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<String>,
    /// What this output comes to.
    pub verdict: Verdict,
    /// What is chosen by it; left out where nothing is, as by hidden states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decisions: Option<Decisions>,
    /// The positions that do not decide.
    pub padding: Padding,
}

/// How far both f32 sides are from the truth, which is the reference in f64.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FromTruth {
    /// The largest |reference − truth|; null if a value is not finite.
    pub reference: Option<f64>,
    /// That, in units of the last place of the truth in f32, where it is largest.
    pub reference_ulp: Option<f64>,
    /// The largest |candidate − truth|; null if a value is not finite.
    pub candidate: Option<f64>,
    /// That, in units of the last place of the truth in f32, where it is largest.
    pub candidate_ulp: Option<f64>,
}

impl FromTruth {
    /// From the distances of both sides.
    pub fn new(reference: &Distance, candidate: &Distance) -> Self {
        let ulps = |side: &Distance| Some(side.max_abs()? / ulp(side.worst()?.reference));
        Self {
            reference: reference.max_abs(),
            reference_ulp: ulps(reference),
            candidate: candidate.max_abs(),
            candidate_ulp: ulps(candidate),
        }
    }
}

/// Counts of values that are NaN or infinite.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NonFinite {
    /// On the reference's side.
    pub reference: usize,
    /// On the candidate's side.
    pub candidate: usize,
}

/// Positions that the attention mask leaves out.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Padding {
    /// The largest difference there.
    pub max_abs: Option<f64>,
    /// How many elements there are.
    pub compared: usize,
}

/// How long both paths took.
#[derive(Debug, Clone, Serialize)]
pub struct TimingReport {
    /// The input that was timed.
    pub input: String,
    /// One entry for each engine.
    pub results: Vec<Timing>,
}

impl Report {
    /// The report on some graphs.
    pub fn of(
        model: &str,
        atol: f64,
        inputs: Vec<InputSummary>,
        mut notes: Vec<String>,
        graphs: Vec<GraphReport>,
        timing: Option<TimingReport>,
    ) -> Self {
        notes.extend(graphs.iter().flat_map(|graph| graph.notes.clone()));
        // The first of those that come off worst.
        let worst = graphs.iter().rev().max_by_key(|graph| graph.verdict).cloned();
        Self {
            schema: SCHEMA,
            verdict: Verdict::worst(graphs.iter().map(|graph| graph.verdict)),
            model: model.into(),
            onnx: graphs.first().map(|graph| graph.onnx.clone()),
            error: None,
            atol,
            inputs,
            notes,
            checks: graphs.iter().flat_map(|graph| graph.checks.clone()).collect(),
            culprits: worst.as_ref().map(|graph| graph.culprits.clone()).unwrap_or_default(),
            explanation: worst.as_ref().and_then(|graph| graph.explanation.clone()),
            located: worst.as_ref().and_then(|graph| graph.located.clone()),
            weights: worst.as_ref().and_then(|graph| graph.weights.clone()),
            relations: worst.as_ref().map(|graph| graph.relations.clone()).unwrap_or_default(),
            stress: worst.as_ref().map(|graph| graph.stress.clone()).unwrap_or_default(),
            tokens: worst.as_ref().map(|graph| graph.tokens.clone()).unwrap_or_default(),
            precision: worst.as_ref().and_then(|graph| graph.precision.clone()),
            proof: worst.map(|graph| graph.proof),
            tokenizer: None,
            graphs: if graphs.len() > 1 { graphs } else { Vec::new() },
            recorded: Vec::new(),
            repro: None,
            timing,
            command: None,
        }
    }

    /// The same held against what was recorded, which may make it worse.
    #[must_use]
    pub fn with_recorded(mut self, recorded: Vec<Recorded>) -> Self {
        self.verdict = recorded.iter().map(|side| side.verdict).fold(self.verdict, Verdict::max);
        self.notes.extend(recorded.iter().flat_map(|side| side.complaints(self.atol)));
        Self { recorded, ..self }
    }

    /// The same with what the tokenizers came to, which may make it worse.
    #[must_use]
    pub fn with_tokenizer(self, tokenizer: Option<TokenizerReport>) -> Self {
        let verdict =
            self.verdict.max(tokenizer.as_ref().map_or(self.verdict, |tokenizer| tokenizer.verdict));
        Self { verdict, tokenizer, ..self }
    }
}

impl EngineCheck {
    /// A sentence for everything that kept this check from passing.
    pub fn complaints(&self, atol: f64) -> Vec<String> {
        let outputs = self.outputs.iter().filter(|output| output.verdict != Verdict::Pass);
        outputs
            .map(|output| output.sentence(atol))
            .chain(self.failure.clone())
            .chain(self.not_compared.iter().cloned())
            .collect()
    }
}

impl OutputReport {
    /// Sums up what the runs of one output came to: how it compares, the input on which it is worst, and how its shape or dtype differs.
    pub fn new(
        name: &str,
        comparison: &Comparison,
        worst_input: Option<String>,
        mismatch: Option<String>,
        budget: Option<f64>,
        truth: Option<FromTruth>,
    ) -> Self {
        let (deciding, padding) = (&comparison.deciding, &comparison.padding);
        let worst = deciding.worst();
        let finite = |x: f64| x.is_finite().then_some(x);
        let [reference, candidate] = deciding.non_finite();
        let within_budget =
            || deciding.max_abs().zip(budget).is_some_and(|(max_abs, budget)| max_abs <= budget);
        let verdict = if mismatch.is_some() {
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
        Self {
            name: name.into(),
            shape: worst.map(|worst| worst.shape.clone()).unwrap_or_default(),
            max_abs: deciding.max_abs(),
            max_rel: deciding.max_rel(),
            max_ulp: deciding.max_ulp(),
            mean_abs: deciding.mean_abs(),
            cosine: deciding.cosine(),
            worst_ulp: deciding.max_abs().and(worst).map(|worst| worst.ulp),
            worst_input,
            worst_index: worst.map(|worst| worst.index.clone()),
            reference: worst.and_then(|worst| finite(worst.reference)),
            candidate: worst.and_then(|worst| finite(worst.candidate)),
            compared: deciding.compared(),
            beyond_atol: deciding.beyond(),
            non_finite: NonFinite { reference, candidate },
            budget,
            truth,
            mismatch,
            verdict,
            decisions: None,
            padding: Padding { max_abs: padding.max_abs(), compared: padding.compared() },
        }
    }

    /// The output in one sentence: how far off, where, and what stands there.
    pub fn sentence(&self, atol: f64) -> String {
        if let Some(mismatch) = &self.mismatch {
            return format!("{}: {mismatch}", self.name);
        }
        let input = self.worst_input.as_ref().map(|input| format!(" of input '{input}'")).unwrap_or_default();
        let index = self.worst_index.as_deref().unwrap_or_default();
        let (NonFinite { reference, candidate }, value) =
            (self.non_finite, |x: Option<f64>| x.map_or("not finite".into(), |x| format!("{x:.9}")));
        let values = format!(
            "at {index:?}{input}: reference {}, graph {}",
            value(self.reference),
            value(self.candidate)
        );
        match self.max_abs {
            _ if self.compared == 0 => format!("{}: nothing was compared", self.name),
            None => format!(
                "{}: {reference} values of the reference and {candidate} of the graph are not finite; {values}",
                self.name
            ),
            Some(max_abs) => format!(
                "{}: {max_abs:.2e} off, {} of {} values beyond {atol:e}; {values}",
                self.name, self.beyond_atol, self.compared
            ),
        }
    }
}
