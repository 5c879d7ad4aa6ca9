//! What became of the checkpoint's tensors.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::read::or_nan;

/// What a graph's weights are expected to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// The checkpoint's own.
    #[default]
    Exact,
    /// Rounded to f16 or bf16 on purpose.
    F16,
    /// Quantized to eight bits on purpose.
    Int8,
    /// Quantized to four bits on purpose, some of it perhaps to eight.
    Int4,
}

/// What became of the checkpoint's tensors, and where the graph's constants come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Audit {
    /// `pass` if every tensor that was found is exact and stands where it belongs; `rounding` if
    /// exporters folded factors or sums into some, correctly rounded to f32; `inconclusive` if none
    /// was found.
    pub verdict: Verdict,
    /// Every tensor that was found, in the order of execution; one that the graph holds twice is
    /// there twice.
    pub traced: Vec<Trace>,
    /// Tensors of the model that nothing in the graph carries. No fault by itself: a graph without
    /// `pooler_output` has no pooler.
    pub untraced: Vec<String>,
    /// Tensors of the checkpoint that the model of the task does not use and the graph does not
    /// hold: those of other heads.
    pub unused: Vec<String>,
    /// Constants and float attributes with an origin.
    pub constants: Vec<Constant>,
    /// Floats in the graph without one.
    pub leftover: Vec<Leftover>,
    /// What is wrong, worst first, and what is worth knowing.
    pub findings: Vec<Finding>,
}

/// A tensor of the checkpoint, and what carries it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trace {
    /// Its name, without the prefix `bert.`.
    pub tensor: String,
    /// The path of its module.
    pub module: String,
    /// The name of the initializer, or of a `Constant` node's output; within a function after the
    /// path of calls.
    pub initializer: String,
    /// How it lies there.
    pub layout: Layout,
    /// The factor that was folded into it, such as 1/√d.
    pub factor: Option<f64>,
    /// The precision it was rounded to.
    pub cast: Option<Cast>,
    /// The largest quantization step, if it was quantized.
    pub step: Option<f32>,
    /// The tensor and its row that were added to each row.
    pub plus: Option<(String, usize)>,
    /// The largest distance from the checkpoint's element (times `factor`); `None` if one is not
    /// finite.
    pub max_abs: Option<f64>,
    /// The same, in f32 values between both.
    pub max_ulp: Option<u64>,
    /// How many elements were compared.
    pub compared: usize,
    /// How many are not what they should be: for a cast or quantized tensor those that are not
    /// correctly rounded.
    pub differing: usize,
    /// The first of these.
    pub first_difference: Option<FirstDifference>,
    /// Whether every element is the checkpoint's, or was correctly cast or quantized as expected.
    pub exact: bool,
    /// Whether other tensors of the checkpoint have the same elements, and nothing tells them apart
    /// here.
    pub shared: bool,
}

/// A constant of the graph, or a float attribute, that is no weight.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Constant {
    /// The name of the value, or `node.attribute`.
    pub name: String,
    /// Its value, or the first of its values; `None` if that is not finite.
    pub value: Option<f64>,
    /// What it is.
    pub origin: Origin,
}

/// Floats of the graph whose origin is not known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leftover {
    /// The name of the value, or `node.attribute`.
    pub name: String,
    /// The type of its elements.
    pub dtype: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The least element; `None` if it is not finite.
    pub least: Option<f64>,
    /// The greatest.
    pub greatest: Option<f64>,
    /// The operator of the first node that uses it.
    pub used_by: Option<String>,
}

/// Something that is wrong, or worth knowing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// Whether it fails the audit.
    pub fails: bool,
    /// The tensors of the checkpoint that are concerned.
    pub tensors: Vec<String>,
    /// The module that is concerned, where there is one.
    pub module: Option<String>,
    /// A sentence.
    pub message: String,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// Elements are not the checkpoint's.
    Difference,
    /// Weights are of another precision, and nobody asked for that.
    Precision,
    /// A name says one tensor, the elements are those of another.
    Name,
    /// A matrix is the wrong way round for the node that uses it.
    Orientation,
    /// A tensor is used where one of another module belongs.
    Order,
    /// A query is used as key, or the like.
    Role,
    /// An eps is not that of config.json.
    Eps,
    /// What masked scores become.
    Mask,
    /// A factor was folded into a tensor.
    Folded,
    /// Elements stand elsewhere than in the checkpoint, which is undone elsewhere.
    Moved,
    /// Elements that an output needs were not found.
    Untraced,
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}

impl Finding {
    /// Something that fails the audit; the module is that of the first tensor.
    pub fn fails(kind: FindingKind, tensors: impl IntoIterator<Item = String>, message: String) -> Self {
        let tensors: Vec<String> = tensors.into_iter().collect();
        let module = |tensor: &String| tensor.rsplit_once('.').map_or(&**tensor, |(module, _)| module).into();
        Self { kind, fails: true, module: tensors.first().map(module), tensors, message }
    }

    /// Something that is worth knowing.
    pub fn note(kind: FindingKind, message: String) -> Self {
        Self { kind, fails: false, tensors: Vec::new(), module: None, message }
    }
}

impl Audit {
    /// How many tensors of the checkpoint were found.
    pub fn tensors(&self) -> usize {
        self.traced.iter().map(|trace| &trace.tensor).collect::<BTreeSet<_>>().len()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// How a tensor of the checkpoint lies in one of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Element by element, if need be under another shape.
    Same,
    /// `[in, out]` instead of `[out, in]`.
    Transposed,
    /// Some rows of an embedding table, `first` to `last`.
    Rows {
        /// The first row.
        first: usize,
        /// The last row.
        last: usize,
    },
    /// One part of several that were joined, as in a query, key and value in one.
    Part {
        /// Which part it is, from 0.
        part: usize,
        /// How many there are.
        of: usize,
        /// Whether the part is transposed.
        transposed: bool,
    },
}

impl Layout {
    /// Whether the rows of a dense layer's weight have become columns.
    pub fn is_transposed(self) -> bool {
        matches!(self, Layout::Transposed | Layout::Part { transposed: true, .. })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Layout::Same => write!(f, "as it is"),
            Layout::Transposed => write!(f, "transposed"),
            Layout::Rows { first, last } if first == last => write!(f, "row {first}"),
            Layout::Rows { first, last } => write!(f, "rows {first} to {last}"),
            Layout::Part { part, of, transposed } => {
                let transposed = if transposed { ", transposed" } else { "" };
                write!(f, "part {} of {of}{transposed}", part.saturating_add(1))
            }
        }
    }
}

/// A precision that weights are rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cast {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
}

/// The first element that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FirstDifference {
    /// Its index into the checkpoint's tensor.
    pub index: Vec<usize>,
    /// What the checkpoint has there; `null` in JSON if it is not finite.
    #[serde(deserialize_with = "or_nan")]
    pub checkpoint: f32,
    /// What the graph has.
    #[serde(deserialize_with = "or_nan")]
    pub graph: f32,
    /// How many f32 values lie between both; `None` if one is NaN.
    pub ulp: Option<u64>,
}

/// Where a constant of the graph comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// What a layer norm adds to the variance.
    LayerNormEps,
    /// √d, 1/√d, or a root of these, with d the size of a head.
    AttentionScale,
    /// What the scores of masked tokens become.
    Mask,
    /// A constant of the activation: √2, √(2/π), 0.044715, 1.702 and so on.
    Activation,
    /// 0, 1, 2, … or a half.
    Number,
    /// A step or zero point of quantized values.
    Quantization,
    /// A bound that keeps a division finite, as in a pooled embedding's length.
    Bound,
    /// A switch of an operator that is off, such as a soft cap of 0.
    Neutral,
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}
