//! What a check found: the `parity-report/1` JSON.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

use crate::read::or_nan;
use crate::{
    Audit, Conversion, Culprit, EngineCheck, FolderDifference, Located, Proof, Recorded, Relation, Scope,
    Stress, TokenErrors, TokenizerReport, Verdict,
};

/// The name and version of the JSON form. A field may be added under the same version; none changes
/// its meaning or goes away.
pub const SCHEMA: &str = "parity-report/1";

/// Everything a check found.
///
/// Its [`Parts`], which can be named as if they were fields of its own, are those of the graph that
/// comes off worst.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: Cow<'static, str>,
    /// The worst verdict of all checks.
    pub verdict: Verdict,
    /// The checkpoint, as the user named it.
    pub model: String,
    /// What that is, and how it was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<ReferenceSide>,
    /// The graph that was judged; the first, where there are several.
    pub onnx: Option<String>,
    /// Whether this tool wrote the graph itself, of the checkpoint: then engines are tested, and no
    /// export.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exported: bool,
    /// Why the check could not be run, if the verdict is `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The largest |reference − candidate| that passes.
    #[serde(deserialize_with = "or_nan")]
    pub atol: f64,
    /// What was run.
    #[serde(default)]
    pub inputs: Vec<InputSummary>,
    /// What was left out, renamed or converted on the way, for a person to read.
    #[serde(default)]
    pub notes: Vec<String>,
    /// One entry for each engine and graph.
    #[serde(default)]
    pub checks: Vec<EngineCheck>,
    /// What both sides are in f64: of the graph that comes off worst, where there are several.
    pub proof: Option<Proof>,
    /// What else there is to say about that graph.
    #[serde(flatten)]
    pub parts: Parts,
    /// Whether the model's tokenizer.json and vocab.txt give the same ids; null where it does not
    /// have both.
    pub tokenizer: Option<TokenizerReport>,
    /// What the files beside an exported graph say otherwise than the checkpoint's: labels, ids,
    /// pooling, prompts, lengths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folder: Vec<FolderDifference>,
    /// Everything about each graph, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub graphs: Vec<GraphReport>,
    /// Both sides against what was recorded elsewhere, in every precision and on every engine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recorded: Vec<Recorded>,
    /// The folder that replays what fails, if one was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repro: Option<Repro>,
    /// What the model's outputs look like, and are good for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<Features>,
    /// How long the engines took on one of the inputs.
    pub timing: Option<TimingReport>,
    /// The command line that made this report, quoted for a POSIX shell; null where a program did.
    pub command: Option<String>,
}

/// Everything found about one graph. Its [`Parts`] can be named as if they were fields of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GraphReport {
    /// The graph.
    pub onnx: String,
    /// The worst of what follows.
    pub verdict: Verdict,
    /// Both sides in f64.
    pub proof: Proof,
    /// Each engine in f32.
    pub checks: Vec<EngineCheck>,
    /// What else there is to say.
    #[serde(flatten)]
    pub parts: Parts,
    /// What was taken for what, for a person to read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What is found about a graph beside its proof and its engines. In JSON these are fields of what
/// they are part of.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Parts {
    /// What became of the checkpoint's tensors.
    pub weights: Option<Audit>,
    /// The modules that compute something else, in the order of execution.
    pub culprits: Vec<Culprit>,
    /// What explains the whole, where no module does: exchanged inputs, exchanged or renamed
    /// outputs.
    pub explanation: Option<String>,
    /// The graph's outputs that nothing was held against.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unheld: Vec<String>,
    /// The modules of the checkpoint, and the values of the graph that carry their outputs.
    pub located: Option<Located>,
    /// What must not change the answer, and whether it does.
    pub relations: Vec<Relation>,
    /// Each normalisation alone on each engine, on rows that its kernel finds hard.
    pub stress: Vec<Stress>,
    /// Where on its worst input the graph is off.
    pub tokens: Vec<TokenErrors>,
    /// What it costs that the graph was converted on purpose; left out of one that was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Conversion>,
}

impl Report {
    /// Whether every graph is proven for every input.
    pub fn is_for_every_input(&self) -> bool {
        let is_proven = |proof: Option<&Proof>| proof.is_some_and(|proof| proof.scope == Scope::EveryInput);
        match &self.graphs[..] {
            [] => is_proven(self.proof.as_ref()),
            graphs => graphs.iter().all(|graph| is_proven(Some(&graph.proof))),
        }
    }
}

impl Deref for Report {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl DerefMut for Report {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.parts
    }
}

impl Deref for GraphReport {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl DerefMut for GraphReport {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.parts
    }
}

impl Parts {
    /// A module's error in the plain run.
    pub(crate) fn inherited(&self, module: &str) -> Option<f64> {
        self.located.as_ref()?.modules.iter().find(|error| error.module == module)?.inherited
    }
}

/// What a graph is held against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceSide {
    /// What it is.
    pub kind: ReferenceKind,
    /// How it was run, in words: `natively on candle in f32 (2 layers, …)`.
    pub text: String,
}

/// What a graph can be held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReferenceKind {
    /// A checkpoint.
    Checkpoint,
    /// Another graph, which it was made of.
    Graph,
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}

/// One set of inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSummary {
    /// Its name.
    pub name: String,
    /// Rows and tokens.
    pub shape: Vec<usize>,
    /// How many of the tokens are real.
    pub tokens: usize,
}

/// What the reference's outputs look like on one input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Features {
    /// Each of them.
    pub outputs: Vec<Feature>,
    /// How near texts are by the mean over their tokens; left out where no texts were run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<Similarity>,
}

/// One output of the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its first values; null if one is not finite.
    pub first: Vec<Option<f64>>,
}

/// How near a text is to others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Similarity {
    /// The text.
    pub text: String,
    /// The others.
    pub to: Vec<Similar>,
}

/// How near another text is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Similar {
    /// The other text.
    pub text: String,
    /// The cosine of the angle between the vectors of both; null if it is not finite.
    pub cosine: Option<f32>,
}

/// The folder that was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Repro {
    /// Where.
    pub dir: String,
    /// The input that it was made of.
    pub input: String,
    /// The shape of what is left of it.
    pub shape: Vec<usize>,
    /// In which precision the replay runs the graph: `f64` where the proof fails, else `f32`.
    pub precision: Cow<'static, str>,
    /// What the replay allows, absolute.
    #[serde(deserialize_with = "or_nan")]
    pub atol: f64,
}

/// How long both paths took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TimingReport {
    /// The input that was timed.
    pub input: String,
    /// One entry for each engine.
    pub results: Vec<Timing>,
}

/// What one engine took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The engine.
    pub engine: String,
    /// The threads it could use.
    pub threads: usize,
    /// Half of the runs took no longer, in milliseconds.
    #[serde(deserialize_with = "or_nan")]
    pub median_ms: f64,
    /// Nine tenths of the runs took no longer, in milliseconds.
    #[serde(deserialize_with = "or_nan")]
    pub p90_ms: f64,
    /// How many runs were timed.
    pub runs: usize,
}

impl Report {
    /// The report of a check that could not be run.
    pub fn failed(model: &str, onnx: Option<String>, atol: f64, error: String) -> Self {
        Self { verdict: Verdict::Error, onnx, error: Some(error), ..Self::empty(model, atol) }
    }

    /// A report on nothing: to be filled.
    pub fn empty(model: &str, atol: f64) -> Self {
        Self {
            schema: SCHEMA.into(),
            verdict: Verdict::Inconclusive,
            model: model.into(),
            reference: None,
            onnx: None,
            exported: false,
            error: None,
            atol,
            inputs: Vec::new(),
            notes: Vec::new(),
            checks: Vec::new(),
            proof: None,
            parts: Parts::default(),
            tokenizer: None,
            folder: Vec::new(),
            graphs: Vec::new(),
            recorded: Vec::new(),
            repro: None,
            features: None,
            timing: None,
            command: None,
        }
    }
}
