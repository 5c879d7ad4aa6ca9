//! The graph's side: its values in f64 on one input, with some of them taken from the reference.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use engine::{NamedValues, Value};
use onnx_eval::Oracle;
use onnx_graph::Node;

use super::layout::{Layout, layouts};
use super::taps::Tap;
use crate::ParityError;
use crate::check::fit_inputs;
use engine::Engine as _;

/// A value of the graph.
pub(crate) struct Found {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

/// All float values of one run.
pub(crate) struct Values(HashMap<String, Found>);

impl Values {
    pub fn get(&self, name: &str) -> Option<&Found> {
        self.0.get(name)
    }
}

/// A place in the graph that holds, or should hold, what a tap is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    pub value: String,
    pub layout: Layout,
}

/// The layouts that two shapes allow.
type Layouts = HashMap<[Vec<usize>; 2], Rc<[Layout]>>;

/// A graph on one input.
pub(crate) struct Replay<'a> {
    oracle: &'a Oracle,
    inputs: NamedValues,
    /// All values that an output depends on, in the order of execution. What is dead may be right, and says nothing.
    names: Vec<String>,
    heads: usize,
    /// By the shapes of tap and value.
    layouts: RefCell<Layouts>,
}

impl<'a> Replay<'a> {
    pub fn new(oracle: &'a Oracle, inputs: &NamedValues, heads: usize) -> Result<Self, ParityError> {
        let inputs = fit_inputs(inputs, oracle.inputs())?;
        Ok(Self {
            oracle,
            inputs,
            names: oracle.needed_values().map(String::from).collect(),
            heads,
            layouts: RefCell::default(),
        })
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.oracle.nodes()
    }

    /// The values with these in the place of what the graph computes.
    pub fn run(&self, substitutes: &NamedValues) -> Result<Values, ParityError> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let values = self.oracle.run_with(&self.inputs, &names, substitutes)?;
        let floats = values.iter().filter(|(_, value)| value.dtype().is_float());
        Ok(Values(
            floats
                .map(|(name, value)| {
                    (name.to_string(), Found { shape: value.shape().to_vec(), data: value.to_f64() })
                })
                .collect(),
        ))
    }

    /// The ways in which a value may hold a tap.
    pub fn layouts(&self, tap: &Tap, found: &Found) -> Rc<[Layout]> {
        let shapes = [tap.shape.clone(), found.shape.clone()];
        let make = || layouts(&tap.shape, &found.shape, self.heads).into();
        self.layouts.borrow_mut().entry(shapes).or_insert_with(make).clone()
    }

    /// What stands for a value so that it holds a tap.
    pub fn substitute(tap: &Tap, place: &Place, values: &Values) -> Option<Value> {
        let found = values.get(&place.value)?;
        Value::new(found.shape.clone(), place.layout.scatter(&tap.data, &found.data)).ok()
    }

    /// The outputs of the graph.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.oracle.outputs().iter().map(|spec| spec.name.as_str())
    }

    /// The nodes that compute each of some values from the others, in the order of execution. A node that several need belongs to the first of them.
    pub fn nodes_between(&self, values: &[Option<&str>]) -> Vec<Vec<String>> {
        let producer: HashMap<&str, &Node> = self
            .oracle
            .nodes()
            .flat_map(|node| node.outputs.iter().map(move |out| (out.as_str(), node)))
            .collect();
        let order: HashMap<&str, usize> =
            self.oracle.nodes().enumerate().map(|(index, node)| (node.name.as_str(), index)).collect();
        let ends: HashSet<&str> = values.iter().flatten().copied().collect();
        let mut taken: HashSet<&str> = HashSet::new();
        values
            .iter()
            .map(|value| {
                let mut own: Vec<&Node> = Vec::new();
                let mut wanted: Vec<&str> = value.iter().copied().collect();
                let mut first = true;
                while let Some(name) = wanted.pop() {
                    let is_end = !std::mem::take(&mut first) && ends.contains(name);
                    let Some(node) = producer.get(name).filter(|_| !is_end) else { continue };
                    if node.op != "Constant" && taken.insert(&node.name) {
                        own.push(node);
                        wanted.extend(node.inputs.iter().map(String::as_str).filter(|name| !name.is_empty()));
                    }
                }
                own.sort_by_key(|node| order.get(node.name.as_str()));
                own.into_iter().map(|node| node.name.clone()).collect()
            })
            .collect()
    }
}
