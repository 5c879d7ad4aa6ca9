//! A graph on one input in f64, and what it becomes if values of another side are put in the place
//! of its own.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use engine::{Engine as _, EngineError, NamedValues, Value};
use onnx_eval::Oracle;
use onnx_graph::Node;

use crate::ParityError;
use crate::inputs::fit_inputs;

/// A value of one run.
pub(crate) struct Found {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
    pub is_float: bool,
    sums: OnceCell<Sums>,
}

/// What is the same in every order of a value's elements.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    /// The largest element, or 1.
    pub scale: f64,
    /// Their sum, and that of their squares.
    pub print: [f64; 2],
    /// Whether not all elements are the same. Those that are say nothing: zeros are everywhere.
    pub varies: bool,
}

impl Found {
    fn new(value: &Value) -> Self {
        let (shape, is_float) = (value.shape().to_vec(), value.dtype().is_float());
        Self { shape, data: value.to_f64(), is_float, sums: OnceCell::new() }
    }

    pub fn sums(&self) -> Sums {
        let data = || self.data.iter();
        *self.sums.get_or_init(|| Sums {
            scale: data().fold(1.0, |scale: f64, x| scale.max(x.abs())),
            print: [data().sum(), data().map(|x| x * x).sum()],
            varies: data().any(|x| Some(x) != self.data.first()),
        })
    }

    pub fn tells(&self) -> bool {
        self.is_float && self.sums().varies
    }
}

/// The values of one run, by name.
pub(crate) type Values = HashMap<String, Found>;

/// A graph on one input.
pub(crate) struct Graph<'a> {
    oracle: &'a Oracle,
    inputs: NamedValues,
    /// All values that an output depends on, in the order of execution. What is dead may be right,
    /// and says nothing.
    pub names: Vec<&'a str>,
    pub nodes: Vec<&'a Node>,
    pub producer: HashMap<&'a str, &'a Node>,
}

impl<'a> Graph<'a> {
    pub fn new(oracle: &'a Oracle, inputs: &NamedValues) -> Result<Self, ParityError> {
        let nodes: Vec<&Node> = oracle.nodes().collect();
        let outputs = |node: &'a Node| node.outputs.iter().map(move |output| (output.as_str(), node));
        Ok(Self {
            oracle,
            inputs: fit_inputs(inputs, oracle.inputs())?,
            names: oracle.needed_values().collect(),
            producer: nodes.iter().flat_map(|node| outputs(node)).collect(),
            nodes,
        })
    }

    /// The values with these in the place of what the graph computes.
    pub fn run(&self, substitutes: &NamedValues) -> Result<Values, EngineError> {
        let values = self.oracle.run_with(&self.inputs, &self.names, substitutes)?;
        Ok(values.iter().map(|(name, value)| (name.to_string(), Found::new(value))).collect())
    }

    /// The outputs of the graph.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.oracle.outputs().iter().map(|spec| spec.name.as_str())
    }

    /// The nodes that compute a value from those that `ends`, in the order of execution.
    pub fn nodes_before(&self, value: &str, ends: impl Fn(&str) -> bool) -> Vec<&'a str> {
        let mut found: HashSet<&str> = HashSet::new();
        let mut wanted = vec![value];
        while let Some(name) = wanted.pop() {
            let Some(node) = self.producer.get(name) else { continue };
            if node.op != "Constant" && found.insert(&node.name) {
                let inputs = node.inputs.iter().map(String::as_str);
                wanted.extend(inputs.filter(|name| !name.is_empty() && !ends(name)));
            }
        }
        let nodes = self.nodes.iter().map(|node| node.name.as_str());
        nodes.filter(|name| found.contains(name)).collect()
    }
}

/// What came of a try.
pub(crate) enum Tried {
    /// So many values are right.
    Right(usize),
    /// It cannot be tried.
    Impossible,
    /// No more may be tried.
    Stop,
}

/// Of several candidates, whose values are put in one place, the one that makes most values right;
/// none that leaves as few right as they are. One that is `enough` is taken without a look at
/// others.
pub(crate) fn most_right<C, E>(
    candidates: impl IntoIterator<Item = C>,
    as_it_is: usize,
    mut tries: impl FnMut(&C) -> Result<Tried, E>,
    enough: impl Fn(&C) -> bool,
) -> Result<Option<C>, E> {
    let (mut most, mut best) = (as_it_is, None);
    for candidate in candidates {
        match tries(&candidate)? {
            Tried::Stop => break,
            Tried::Right(right) if right > most => {
                most = right;
                let enough = enough(&candidate);
                best = Some(candidate);
                if enough {
                    break;
                }
            }
            Tried::Right(_) | Tried::Impossible => {}
        }
    }
    Ok(best)
}
