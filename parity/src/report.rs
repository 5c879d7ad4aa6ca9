//! What a check found, as data: the `parity-report/1` JSON, and what the terminal shows.

use serde::Serialize;

use crate::bench::Timing;
use crate::compare::Comparison;
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
    /// How long the engines took on one of the inputs.
    pub timing: Option<TimingReport>,
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
    /// The rounding that f32 has a right to; not known yet, so null.
    pub budget: Option<f64>,
    /// Shape or dtype that differ, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<String>,
    /// What this output comes to.
    pub verdict: Verdict,
    /// The positions that do not decide.
    pub padding: Padding,
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
    ) -> Self {
        let (deciding, padding) = (&comparison.deciding, &comparison.padding);
        let worst = deciding.worst();
        let finite = |x: f64| x.is_finite().then_some(x);
        let [reference, candidate] = deciding.non_finite();
        let verdict = if mismatch.is_some() || deciding.beyond() > 0 {
            Verdict::Fail
        } else if deciding.max_abs().is_none() {
            Verdict::Inconclusive
        } else {
            Verdict::Pass
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
            budget: None,
            mismatch,
            verdict,
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
