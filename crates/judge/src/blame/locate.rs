//! Where a graph parts from its checkpoint.
//!
//! The reference's modules are found among the graph's values *by value*, in f64, so that any exporter's graph gets module names, renamed,
//! simplified or fused as it may be; names only say where to look first. Up to the first fault all of them are there to the last bits.
//! A module that is not has a value of its own in the graph, which is wrong. It is the one that, if the reference's numbers are put in its place,
//! makes what comes after it right. They stay there, so that the next module is given what the reference gives it, and its error is its own.

mod hints;
mod table;
mod taps;

use std::collections::{HashMap, HashSet};

use architecture::{Op, Program};
use candle_blocks::ReferenceEngine;
use engine::{Engine, NamedValues, Value};
use onnx_eval::Oracle;
use report::{Located, ModuleError};

use self::hints::Hints;
use self::table::Table;
pub(crate) use self::taps::Kind;
use self::taps::{Tap, taps};
use super::graph::{Found, Graph, Tried, Values, most_right};
use super::layout::{Layout, Layouts, layouts};
use crate::ParityError;
use crate::compare::compare;
use crate::engines::stress::Norm;
use crate::inputs::{Case, fit_inputs};
use crate::subject::{HIDDEN, TOKENS};

/// How far a value may be from a module's output to hold it, relative to the largest element where that is above 1. What f64 alone does on the way
/// through a deep model is below 1e-13; one wrong bit in one f32 weight is 1e-9 and more in the module that has it.
const SAME: f64 = 1e-12;

/// How many values are tried in the place of a module that is not there. Each costs a run.
const TRIED: usize = 12;

/// How many multiplications all tries of [`Search::best`] together may take; see [`cost`]. After
/// that, what is likely is taken as it is: on a large model with everything wrong, each try takes
/// seconds, and the weights have told already. It is work that is counted and no time, so that
/// every machine names the same culprits; the oracle does some 5e8 in a second.
const WORK: u64 = 20_000_000_000;

/// A value that is this near to a module's output, in the mean and relative to it, is that module's, though it could not be seen that putting
/// the reference's numbers there helps: other modules do not come as near by chance.
const NEAR: f64 = 1e-2;

/// A value whose name says that it is the module's may be this far off.
const NEAR_IF_NAMED: f64 = 2.0;

/// What was found.
pub struct Findings {
    /// All modules.
    pub located: Located,
    /// Those that are wrong, in the order of execution.
    pub suspects: Vec<Suspect>,
    /// The reference's modules in f64, by path.
    pub taps: NamedValues,
    /// What lies where.
    pub(crate) carried: Vec<Carried>,
}

/// A tap that a value of the graph holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Carried {
    /// The step of the program whose output it is.
    pub step: usize,
    pub module: String,
    pub kind: Kind,
    pub value: String,
    /// Whether the value is in the module's own order.
    pub plain: bool,
    /// How many elements there are for a position.
    pub width: usize,
    /// The step whose output it is the LayerNorm of, if it is one.
    pub normalises: Option<usize>,
}

impl Findings {
    /// The modules, with how far an engine is off in its own precision, as far as it can be asked
    /// for the values that hold them.
    pub(crate) fn measured(mut self, engine: &dyn Engine, case: &Case) -> Located {
        for module in &mut self.located.modules {
            let is_it = |carried: &&Carried| {
                carried.module == module.module && carried.kind == Kind::Output && carried.plain
            };
            if let (Some(carried), Some(tap)) =
                (self.carried.iter().find(is_it), self.taps.get(&module.module))
            {
                module.single = single(engine, case, &carried.value, tap);
            }
        }
        self.located
    }

    /// The LayerNorms of which the graph has what they are given and what they give.
    pub(crate) fn norms(&self) -> impl Iterator<Item = Norm> {
        let plain = || self.carried.iter().filter(|carried| carried.plain);
        plain().filter_map(move |norm| {
            let given = plain().find(|given| Some(given.step) == norm.normalises)?;
            let (module, value) = (norm.module.clone(), norm.value.clone());
            Some(Norm { module, given: given.value.clone(), value, width: norm.width })
        })
    }
}

/// How far an engine's value is from a module's output, if it can be asked for it.
fn single(engine: &dyn Engine, case: &Case, value: &str, tap: &Value) -> Option<f64> {
    let inputs = fit_inputs(&case.inputs, engine.inputs()).ok()?;
    let found = engine.run_for(&inputs, &[value]).ok()?.remove(value)?;
    let positions: usize = tap.shape().iter().take(2).product();
    let mask =
        case.inputs.get("attention_mask").filter(|mask| tap.shape().len() == 3 && mask.len() == positions);
    let decides: Vec<bool> = mask.iter().flat_map(|mask| mask.to_f64()).map(|bit| bit != 0.0).collect();
    // In the module's shape: a graph may have all tokens on one axis.
    let found = Value::new(tap.shape(), found.to_f64()).ok()?;
    compare(tap, &found, &decides, 0.0).ok()?.deciding.max_abs()
}

/// A module that the graph computes otherwise.
#[derive(Debug, Clone)]
pub struct Suspect {
    /// Its path.
    pub module: String,
    /// What of it is wrong.
    pub(crate) kind: Kind,
    /// Its own error at positions that decide; nothing where it is not finite.
    pub max_abs: Option<f64>,
    /// The nodes that compute it.
    pub nodes: Vec<String>,
    /// What the graph makes of what the reference gives the module, in the module's own layout; nothing where no value shows it.
    pub found: Option<Value>,
}

/// Aligns a graph with its checkpoint on one input, and finds the modules that differ. `gives` says
/// whether the graph gives an output of the reference's, by whatever name.
///
/// # Errors
/// If the inputs do not fit one of the two, or the graph cannot run them.
pub fn locate(
    reference: &ReferenceEngine,
    oracle: &Oracle,
    case: &Case,
    gives: impl Fn(&str) -> bool,
) -> Result<Findings, ParityError> {
    let program = reference.program();
    let graph = Graph::new(oracle, &case.inputs)?;
    let heads = program.heads().unwrap_or(1);
    let make = |tap: &[usize], found: &[usize]| layouts(tap, found, heads);
    let (modules, taps) = taps(reference, &case.inputs, gives)?;
    let hints = Hints::new(&graph, program);
    let plain = graph.run(&NamedValues::new())?;
    let mut search = Search {
        places: vec![None; taps.len()],
        culprit: vec![None; taps.len()],
        program,
        graph: &graph,
        layouts: Layouts::new(&make),
        hints,
        substitutes: NamedValues::new(),
        values: plain,
        taps: &taps,
        work: WORK,
        cost: cost(program, case),
    };
    search.all()?;
    search.findings(case, modules)
}

/// About how many multiplications a run of a model takes: one for each weight of its linear layers,
/// at each position.
fn cost(program: &Program, case: &Case) -> u64 {
    let weights = program.steps.iter().filter_map(|step| match step.op {
        Op::Linear { weight, .. } => Some(program.tensors[weight].shape.iter().product::<usize>() as u64),
        _ => None,
    });
    let positions = case.inputs.get("input_ids").map_or(1, |ids| ids.len() as u64);
    weights.sum::<u64>().saturating_mul(positions)
}

/// The search through the taps in the order of execution.
struct Search<'a> {
    program: &'a Program,
    graph: &'a Graph<'a>,
    layouts: Layouts<'a>,
    hints: Hints,
    taps: &'a [Tap],
    /// Where each tap is in the graph, as far as it is known.
    places: Vec<Option<Place>>,
    /// The own error of those that are wrong.
    culprit: Vec<Option<f64>>,
    /// The reference's numbers in the place of what is wrong.
    substitutes: NamedValues,
    /// The graph's values with those.
    values: Values,
    /// How many multiplications may still be tried with.
    work: u64,
    /// How many a run takes.
    cost: u64,
}

/// A place in the graph that holds, or should hold, what a tap is.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    value: String,
    layout: Layout,
}

impl Place {
    /// What stands for its value so that it holds a tap.
    fn substitute(&self, tap: &Tap, values: &Values) -> Option<Value> {
        let found = values.get(&self.value)?;
        Value::new(found.shape.clone(), self.layout.scatter(&tap.data, &found.data)).ok()
    }
}

/// A value that may hold a tap, and does not hold the same numbers.
#[derive(Clone)]
struct Candidate {
    place: Place,
    max_abs: f64,
    /// The mean distance, relative to the tap.
    relative: f64,
    named: bool,
}

impl Search<'_> {
    fn all(&mut self) -> Result<(), ParityError> {
        self.align();
        // Taps of the present stage that may be wrong, or may only not be visible.
        let mut pending: Vec<(usize, Candidate)> = Vec::new();
        let mut stage = 0;
        for index in 0..self.taps.len() {
            if self.taps[index].stage != stage {
                stage = self.taps[index].stage;
                pending.clear();
            }
            if self.places[index].is_some() || self.is_passed(index) {
                continue;
            }
            let candidates = self.candidates(index);
            if let Some(best) = self.best(index, &candidates)? {
                let together = self.together(index, &pending)?;
                pending.clear();
                if !together {
                    self.accept(index, &best)?;
                }
                continue;
            }
            let Some(likely) = candidates.into_iter().next() else { continue };
            if likely.relative <= NEAR {
                self.accept(index, &likely)?;
            } else if self.is_last(index) || likely.named && likely.relative <= NEAR_IF_NAMED {
                if self.ends_stage(index) {
                    self.accept(index, &likely)?;
                } else {
                    pending.push((index, likely));
                }
            }
        }
        Ok(())
    }

    /// Finds the taps that are there.
    fn align(&mut self) {
        let mut by_size: HashMap<usize, Vec<&str>> = HashMap::new();
        for name in &self.graph.names {
            if let Some(found) = float(&self.values, name) {
                by_size.entry(found.data.len()).or_default().push(name);
            }
        }
        for (index, tap) in self.taps.iter().enumerate() {
            if self.culprit[index].is_some() {
                continue;
            }
            let held = |place: &Place| {
                let found = self.values.get(&place.value);
                found.is_some_and(|found| tap.is(place.layout.elements(&found.data), SAME * tap.scale))
            };
            if self.places[index].as_ref().is_some_and(held) {
                continue;
            }
            let width = tap.shape.last().copied().unwrap_or(1);
            let sizes = [tap.data.len(), 3 * tap.data.len(), tap.data.len() / tap.shape[0].max(1), width];
            let mut tried = Vec::new();
            let found = sizes.iter().find_map(|size| {
                // Batch and width may make two of the sizes the same.
                if tried.contains(size) {
                    return None;
                }
                tried.push(*size);
                by_size.get(size)?.iter().find_map(|name| {
                    let found = self.values.get(*name)?;
                    let layouts = self.layouts.of(&tap.shape, &found.shape);
                    let layout = layouts
                        .iter()
                        .find(|layout| tap.is(layout.elements(&found.data), SAME * tap.scale))?;
                    Some(Place { value: name.to_string(), layout: layout.clone() })
                })
            });
            self.places[index] = found;
        }
    }

    fn distance(&self, tap: &Tap, place: &Place) -> Option<(f64, f64)> {
        Some(tap.distance(&place.layout.gather(&self.values.get(&place.value)?.data)))
    }

    /// Whether something that comes after it in its stage is right, or the end of its stage: then it is right, too, or makes no difference.
    fn is_passed(&self, index: usize) -> bool {
        let tap = &self.taps[index];
        let later = |(other, place): (&Tap, &Option<Place>)| {
            other.stage == tap.stage && tap.is_before(other) && place.is_some()
        };
        self.taps.iter().zip(&self.places).any(later)
    }

    fn ends_stage(&self, index: usize) -> bool {
        self.taps.get(index + 1).is_none_or(|next| next.stage != self.taps[index].stage)
    }

    fn is_last(&self, index: usize) -> bool {
        index + 1 == self.taps.len()
    }

    /// Values that may be a tap's, the likeliest first.
    fn candidates(&self, index: usize) -> Vec<Candidate> {
        let tap = &self.taps[index];
        let taken: Vec<&str> = self.places.iter().flatten().map(|place| place.value.as_str()).collect();
        let size = tap.mean_square().max(f64::MIN_POSITIVE);
        let mut candidates: Vec<Candidate> = Vec::new();
        for &name in &self.graph.names {
            let Some(found) = float(&self.values, name).filter(|_| !self.substitutes.contains(name)) else {
                continue;
            };
            // A fused projection holds three.
            let shared = found.data.len() > tap.data.len();
            if taken.contains(&name) && !shared {
                continue;
            }
            for layout in self.layouts.of(&tap.shape, &found.shape).iter() {
                let (max_abs, mean) = tap.distance(&layout.gather(&found.data));
                let relative = if mean.is_finite() { (mean / size).sqrt() } else { f64::INFINITY };
                let named = self.hints.says(name, tap) || self.is_output(name, tap);
                // A copy of an earlier value has nothing new to say but its name.
                let is_same = |other: &&mut Candidate| {
                    other.max_abs == max_abs && other.relative == relative && relative.is_finite()
                };
                match candidates.iter_mut().find(is_same) {
                    Some(copied) => copied.named |= named,
                    None => candidates.push(Candidate {
                        place: Place { value: name.to_string(), layout: layout.clone() },
                        max_abs,
                        relative,
                        named,
                    }),
                }
            }
        }
        let rank = |candidate: &Candidate| {
            // What has the module's name goes before what is a little nearer.
            if candidate.named { candidate.relative / 10.0 } else { candidate.relative }
        };
        candidates.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
        candidates.truncate(TRIED);
        candidates
    }

    /// Whether the value is the output that the tap must become.
    fn is_output(&self, name: &str, tap: &Tap) -> bool {
        // Also by sentence-transformers' name.
        let name = if name == TOKENS { HIDDEN } else { name };
        let output = self.program.outputs.iter().find(|output| output.name == name);
        output.is_some_and(|output| self.program.source(output.step) == tap.step)
    }

    /// How many later taps are right with these substitutes.
    fn right_after(&mut self, index: usize, substitutes: &NamedValues) -> Result<usize, ParityError> {
        self.work = self.work.saturating_sub(self.cost);
        let values = self.graph.run(substitutes)?;
        let tap = &self.taps[index];
        // The next stage is enough: what is wrong there hides what comes later.
        let later = self.taps.iter().filter(|other| tap.is_before(other) && other.stage <= tap.stage + 1);
        Ok(later.filter(|other| self.is_there(other, &values)).count())
    }

    fn is_there(&self, tap: &Tap, values: &Values) -> bool {
        self.graph.names.iter().any(|name| {
            let Some(found) = float(values, name) else { return false };
            let layouts = self.layouts.of(&tap.shape, &found.shape);
            layouts.iter().any(|layout| tap.is(layout.elements(&found.data), SAME * tap.scale))
        })
    }

    /// The value that makes most of what comes after right if the reference's numbers are put in its place.
    fn best(&mut self, index: usize, candidates: &[Candidate]) -> Result<Option<Candidate>, ParityError> {
        if candidates.is_empty() || self.work < self.cost {
            return Ok(None);
        }
        let as_it_is = self.right_after(index, &self.substitutes.clone())?;
        let tries = |candidate: &Candidate| {
            if self.work < self.cost {
                return Ok(Tried::Stop);
            }
            let Some(value) = candidate.place.substitute(&self.taps[index], &self.values) else {
                return Ok(Tried::Impossible);
            };
            let mut substitutes = self.substitutes.clone();
            substitutes.insert(candidate.place.value.clone(), value);
            self.right_after(index, &substitutes).map(Tried::Right)
        };
        most_right(candidates.iter().cloned(), as_it_is, tries, |_| false)
    }

    /// Whether several taps before, none of which helps alone, help together: then they are wrong, and this one is not.
    fn together(&mut self, index: usize, pending: &[(usize, Candidate)]) -> Result<bool, ParityError> {
        if pending.is_empty() {
            return Ok(false);
        }
        let mut substitutes = self.substitutes.clone();
        for (tap, candidate) in pending {
            if let Some(value) = candidate.place.substitute(&self.taps[*tap], &self.values) {
                substitutes.insert(candidate.place.value.clone(), value);
            }
        }
        let values = self.graph.run(&substitutes)?;
        if !self.is_there(&self.taps[index], &values) {
            return Ok(false);
        }
        for (tap, candidate) in pending {
            self.culprit[*tap] = Some(candidate.max_abs);
            self.places[*tap] = Some(candidate.place.clone());
        }
        self.substitutes = substitutes;
        self.values = values;
        self.align();
        Ok(true)
    }

    fn accept(&mut self, index: usize, candidate: &Candidate) -> Result<(), ParityError> {
        self.culprit[index] = Some(candidate.max_abs);
        self.places[index] = Some(candidate.place.clone());
        if let Some(value) = candidate.place.substitute(&self.taps[index], &self.values) {
            self.substitutes.insert(candidate.place.value.clone(), value);
            self.values = self.graph.run(&self.substitutes)?;
            self.align();
        }
        Ok(())
    }

    /// The substitutes of all that comes before a tap.
    fn substitutes_before(&self, index: usize) -> NamedValues {
        let before =
            self.taps[..index].iter().enumerate().filter(|(_, tap)| tap.is_before(&self.taps[index]));
        before
            .filter(|(at, _)| self.culprit[*at].is_some())
            .filter_map(|(at, _)| {
                let name = &self.places[at].as_ref()?.value;
                Some((name.clone(), self.substitutes.get(name)?.clone()))
            })
            .collect()
    }

    fn findings(self, case: &Case, modules: NamedValues) -> Result<Findings, ParityError> {
        let plain = self.graph.run(&NamedValues::new())?;
        let values: Vec<Option<&str>> =
            self.places.iter().map(|place| place.as_ref().map(|place| place.value.as_str())).collect();
        let nodes = nodes_between(self.graph, &values);
        let table = Table::new(self.program, self.taps);
        let mut errors: Vec<ModuleError> = Vec::new();
        let mut suspects: Vec<Suspect> = Vec::new();
        for (index, tap) in self.taps.iter().enumerate() {
            let finite = |x: f64| x.is_finite().then_some(x);
            let place = self.places[index].as_ref();
            let own = match self.culprit[index] {
                Some(own) => Some(own),
                None => place.and_then(|place| self.distance(tap, place)).map(|(max, _)| max),
            };
            let in_plain_run =
                |place: &Place| Some(tap.distance(&place.layout.gather(&plain.get(&place.value)?.data)).0);
            let error = ModuleError {
                module: tap.module.clone(),
                value: place.map(|place| place.value.clone()),
                nodes: nodes[index].clone(),
                own: own.and_then(finite),
                inherited: place.and_then(in_plain_run).and_then(finite),
                scale: tap.scale,
                single: None,
                culprit: self.culprit[index].is_some(),
                place: table.place(tap.step),
            };
            if error.culprit {
                let suspect = Suspect {
                    module: tap.module.clone(),
                    kind: tap.kind,
                    max_abs: error.own,
                    nodes: error.nodes.clone(),
                    found: self.found(index)?,
                };
                match suspects.iter_mut().find(|other| other.module == suspect.module) {
                    Some(other) => other.nodes.extend(suspect.nodes),
                    None => suspects.push(suspect),
                }
            }
            // What a module is given and what it gives are one line.
            if tap.kind == Kind::Output || error.culprit {
                match errors.iter_mut().find(|other| other.module == error.module) {
                    Some(other) => other.merge(error),
                    None => errors.push(error),
                }
            }
        }
        let located = Located { input: case.name.clone(), modules: errors };
        Ok(Findings { located, suspects, taps: modules, carried: self.carried() })
    }

    /// The taps that values of the graph hold.
    fn carried(&self) -> Vec<Carried> {
        let carried = self.taps.iter().zip(&self.places).filter_map(|(tap, place)| {
            let Place { value, layout } = place.as_ref()?;
            let plain = layout.is_plain();
            let width = tap.shape.last().copied().unwrap_or(0);
            let step = &self.program.steps[tap.step];
            let is_norm = matches!(step.op, Op::LayerNorm { .. });
            let normalises = step.inputs.first().and_then(|wire| wire.step()).filter(|_| is_norm);
            Some(Carried {
                step: tap.step,
                module: tap.module.clone(),
                kind: tap.kind,
                value: value.clone(),
                plain,
                width,
                normalises,
            })
        });
        carried.collect()
    }

    /// What the graph makes of the module if all before it is right.
    fn found(&self, index: usize) -> Result<Option<Value>, ParityError> {
        let tap = &self.taps[index];
        // Of a sum, and of the first token, what the module makes of it is what shows.
        let end = match tap.kind {
            Kind::Output => index,
            _ => {
                let end = self.program.module(&tap.module).map(|module| module.output);
                self.taps.iter().position(|other| Some(other.step) == end).unwrap_or(index)
            }
        };
        let Some(place) = &self.places[end] else { return Ok(None) };
        let values = self.graph.run(&self.substitutes_before(index))?;
        let Some(found) = values.get(&place.value) else { return Ok(None) };
        Ok(Value::new(self.taps[end].shape.clone(), place.layout.gather(&found.data)).ok())
    }
}

/// A float value of a run.
fn float<'a>(values: &'a Values, name: &str) -> Option<&'a Found> {
    values.get(name).filter(|found| found.is_float)
}

/// The nodes that compute each of some values from the others, in the order of execution. A node
/// that several need belongs to the first of them.
fn nodes_between(graph: &Graph, values: &[Option<&str>]) -> Vec<Vec<String>> {
    let ends: HashSet<&str> = values.iter().flatten().copied().collect();
    let mut taken: HashSet<&str> = HashSet::new();
    let own = |value: &Option<&str>| {
        let is_taken =
            |name: &str| graph.producer.get(name).is_some_and(|node| taken.contains(node.name.as_str()));
        let Some(value) = value.filter(|value| !is_taken(value)) else { return Vec::new() };
        let own = graph.nodes_before(value, |name| ends.contains(name) || is_taken(name));
        taken.extend(&own);
        own.into_iter().map(String::from).collect()
    };
    values.iter().map(own).collect()
}
