//! Each normalisation alone, on rows that its kernel finds hard.
//!
//! A kernel that takes the variance for mean(x²) − mean(x)² is right on paper, and in f32 has no digit left where the mean is large beside the
//! deviation. A model's own inputs may never come near that, until one does. So the nodes of each LayerNorm are cut out of the graph, and run on
//! the engine with rows whose mean is [`RATIO`] times their deviation, and held against f64.

use std::collections::HashSet;

use engine::{DType, Engine, NamedValues, Value, ValueSpec};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::{Graph, Model, Node};
use report::Verdict;
pub use report::{STRESS_RATIO as RATIO, Stress};

use crate::compare::{compare, widened};

/// How far an engine may be off on such rows, relative to the largest value: `SLACK · √width · 2⁻²⁴ · RATIO`.
///
/// The mean of so many f32 numbers, added one after the other, is off by about √width · 2⁻²⁴ of itself, which is RATIO deviations; slack for an unlucky
/// order. A variance by way of mean(x²) is off by RATIO times as much.
pub const SLACK: f64 = 8.0;

/// How many rows are run.
const ROWS: usize = 4;

/// A LayerNorm of the graph: its module, the values that it is given and that it gives, and how
/// wide they are.
#[derive(Debug, Clone)]
pub struct Norm {
    pub(crate) module: String,
    pub(crate) given: String,
    pub(crate) value: String,
    pub(crate) width: usize,
}

/// What runs parts of a graph.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// What the engine runs: the graph itself, unless faults of engines are planted.
    pub deployed: &'a Model,
    /// The engine on a part of that; nothing if it does not take it.
    pub open: &'a dyn Fn(&Model) -> Option<Box<dyn Engine>>,
}

/// Runs every LayerNorm alone. What the engine does not take by itself is left out.
pub(crate) fn stress(norms: &[Norm], sound: &Model, part: &Part) -> Vec<Stress> {
    norms.iter().filter_map(|norm| one(norm, sound, part)).collect()
}

fn one(Norm { module, given, value, width }: &Norm, sound: &Model, part: &Part) -> Option<Stress> {
    let exact = Oracle::with(&cut(sound, given, value)?, Precision::F64, Limits::default()).ok()?;
    let engine = (part.open)(&cut(part.deployed, given, value)?)?;
    let inputs = NamedValues::from_iter([(given.to_string(), rows(*width)?)]);
    let truth = exact.run(&inputs).ok()?.remove(value)?;
    let found = engine.run(&inputs).ok().and_then(|mut outputs| outputs.remove(value));
    let distance =
        found.and_then(|found| compare(&truth, &widened(&found), &[], 0.0).ok()).map(|c| c.deciding);
    let max_abs = distance.as_ref().and_then(|distance| distance.max_abs());
    let largest = truth.to_f64().into_iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
    let bound = SLACK * (*width as f64).sqrt() * f64::from(f32::EPSILON) / 2.0 * RATIO * largest;
    let verdict = if max_abs.is_some_and(|max_abs| max_abs <= bound) { Verdict::Pass } else { Verdict::Fail };
    Some(Stress { engine: engine.name().into(), module: module.clone(), max_abs, bound, verdict })
}

/// Rows of deviation 1 around ± [`RATIO`]: the same on every machine.
fn rows(width: usize) -> Option<Value> {
    let row = |row: usize| {
        (0..width).map(move |at| {
            // A sequence without a pattern: the fractional parts of multiples of the golden ratio have deviation 1/√12.
            let fraction = (0.618_033_988_749_895 * (row * width + at + 1) as f64).fract();
            let mean = if row.is_multiple_of(2) { RATIO } else { -RATIO };
            (mean + (fraction - 0.5) * 12f64.sqrt()) as f32
        })
    };
    Value::new([1, ROWS, width], (0..ROWS).flat_map(row).collect::<Vec<f32>>()).ok()
}

/// The part of a graph between two values; nothing if the end depends on anything else that is no constant.
fn cut(model: &Model, from: &str, to: &str) -> Option<Model> {
    let mut wanted: HashSet<&str> = HashSet::from([to]);
    let mut nodes: Vec<Node> = Vec::new();
    for node in model.graph.nodes.iter().rev() {
        if node.outputs.iter().any(|output| output != from && wanted.contains(output.as_str())) {
            wanted.extend(node.inputs.iter().map(String::as_str).filter(|name| !name.is_empty()));
            nodes.push(node.clone());
        }
    }
    nodes.reverse();
    let is_input = |name: &str| model.graph.inputs.iter().any(|spec| spec.name == name);
    if !wanted.contains(from) || wanted.iter().any(|name| is_input(name)) {
        return None;
    }
    let spec = |name: &str| ValueSpec { name: name.into(), dtype: DType::F32, shape: None, optional: false };
    let initializers = model.graph.initializers.iter().filter(|(name, _)| wanted.contains(name.as_str()));
    let part = Model {
        graph: Graph {
            name: to.into(),
            inputs: vec![spec(from)],
            outputs: vec![spec(to)],
            initializers: initializers.map(|(name, tensor)| (name.clone(), tensor.clone())).collect(),
            nodes,
            ..Graph::default()
        },
        ir_version: model.ir_version,
        opsets: model.opsets.clone(),
        functions: model.functions.clone(),
        ..Model::default()
    };
    part.check().ok()?;
    Some(part)
}
