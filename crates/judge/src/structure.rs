//! For every input: that a graph *is* its model, step by step, and not only on the inputs that were
//! run.
//!
//! Values of the graph are taken for what steps of the model give (`blame::locate` says which may
//! be), and the graph is walked once, without running it, from its inputs to its outputs. Each value
//! is then one of few kinds ([`kind::Kind`]):
//!
//! * it is made of the inputs alone, each element of one token: every row of every table is run once;
//! * it is a smooth function of values that were taken for steps before it, with no more curves than
//!   the steps between are written with: two smooth functions that agree on free values agree
//!   everywhere, so each is held against the reference's own formula on random values, under every
//!   mask of four tokens;
//! * or nobody knows, and the node that nobody knows is named.
//!
//! Nothing that comes from ids, types, places, masks or sizes reaches a smooth value in any other
//! way. The docs say from which premises: `docs/proof.md`.

mod kind;
mod operators;
mod replay;
mod walk;
mod witness;

use std::collections::BTreeSet;

use architecture::Op;
use candle_blocks::ReferenceEngine;
use engine::{Engine as _, ValueSpec};
use onnx_eval::Oracle;
use onnx_graph::Model;
use onnx_session::compiled::Known;

use self::kind::{Kind, Source};
use self::operators::Curves;
use self::replay::{Replay, ends_of};
use self::walk::{Anchors, Graph, Reason, Taken, Walked, allowed, walk};
use crate::blame::locate::Carried;
use crate::inputs::Case;
use crate::proof::Unexplained;
use crate::proof::further::Further;

/// A number that stands where a token is masked hides it, whatever the scores are, if it is no
/// larger: f32 has no score that makes up for it.
const HIDES: f64 = -1e30;

/// How often the graph is walked: after each walk what was wrongly taken for a step is left out.
const WALKS: usize = 4;

/// What a graph is held against.
pub(crate) struct Held<'a> {
    pub model: &'a Model,
    /// The graph in f64, as it was meant.
    pub oracle: &'a Oracle,
    /// The reference in f64.
    pub reference: &'a ReferenceEngine,
    /// What the graph gives beyond the reference's own outputs.
    pub further: Option<&'a Further>,
    /// What the reference gives, by the graph's names.
    pub specs: &'a [ValueSpec],
    /// Values of the graph that hold what steps give, on one input.
    pub carried: &'a [Carried],
    /// How far an element may be off, relative to the largest where that is above 1.
    pub tol: f64,
}

/// What the structure of a graph says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Structure {
    /// The outputs that are the model's for every input.
    pub proven: Vec<String>,
    /// What it takes to hold beside the premises.
    pub guards: Vec<String>,
    /// The nodes that no step of the model explains, and why.
    pub unexplained: Vec<Unexplained>,
    /// Inputs on which the graph may be another function.
    pub suspicious: Vec<Case>,
}

impl Structure {
    /// Looks at a graph that the proof holds for; nothing where it cannot be looked at.
    pub fn of(held: &Held) -> Option<Self> {
        let &Held { model, oracle, reference, further, specs, carried, tol } = held;
        let known = Known::of(model).ok()?;
        let program = reference.program();
        let inputs = oracle.inputs();
        let masks = (0..inputs.len()).filter(|&at| inputs[at].name == "attention_mask").map(Source::Input);
        let graph =
            Graph { nodes: oracle.nodes().collect(), inputs, known: &known, program, masks: masks.collect() };
        let replay = Replay::new(oracle, reference, further, specs, tol);
        let mut anchors = Anchors::default();
        // The positions are often there once for all rows.
        let is_position = |step: usize| matches!(program.steps[step].op, Op::Positions { .. });
        for place in carried.iter().filter(|place| place.plain || is_position(place.step)) {
            anchors.steps.insert(place.value.clone(), place.step);
        }
        let mut suspicious = Vec::new();
        for _ in 0..WALKS {
            let walked = walk(&graph, &anchors, &|value, atoms| replay.is_placeless(value, atoms));
            let of_inputs: Vec<&Taken> = walked.taken.iter().filter(|taken| taken.from.is_none()).collect();
            let tables = replay.of_inputs(&of_inputs)?;
            let ends = ends(&graph, &walked, specs);
            let from = ends.iter().map(|(name, from)| (name.as_str(), from.clone())).collect();
            let (wrong, right) = replay.forced_runs(&walked.taken, &walked.idle, &from)?;
            let off_tables = tables.iter().map(|(at, _)| of_inputs[*at].value.clone());
            let off = wrong.iter().map(|&at| walked.taken[at].value.clone()).chain(off_tables);
            let off: Vec<String> = off.collect();
            suspicious.extend(tables.into_iter().map(|(at, inputs)| {
                let name = format!("rows of what '{}' looks up", of_inputs[at].value);
                Case { name, inputs }
            }));
            if off.is_empty() {
                let unexplained = unexplained(&graph, &walked, specs, &right);
                if right.len() < specs_given(oracle, specs).count() {
                    suspicious.extend(witness::inputs(model, reference.inputs(), &program.limits()));
                }
                let guards = guards(&graph, &walked, &replay);
                return Some(Self { proven: right.into_iter().collect(), guards, unexplained, suspicious });
            }
            anchors.refuted.extend(off);
        }
        Some(Self { suspicious, ..Self::default() })
    }
}

/// What holds only for usual inputs: defaults of inputs, and masks that hide nothing from large
/// scores.
fn guards(graph: &Graph, walked: &Walked, replay: &Replay) -> Vec<String> {
    let given = graph.inputs.iter().filter(|spec| graph.known.is_constant(&spec.name)).count();
    let mut guards = Vec::new();
    if given > 0 {
        guards.push(format!("{given} inputs that have a default are left at it"));
    }
    if let Some((node, floor)) = walked.floors.first() {
        guards.push(format!(
            "no vector is shorter than {floor:e}, below which '{node}' does not let its length fall"
        ));
    }
    let added = walked.masks.iter().filter_map(|value| Some((value.clone(), replay.least(value)?)));
    let filled = walked.fills.iter().map(|(node, fill)| (node.clone(), f64::from(*fill)));
    let mut weak: Vec<(String, f64)> = added.chain(filled).filter(|(_, x)| *x < 0.0 && *x > HIDES).collect();
    weak.sort_by(|a, b| b.1.total_cmp(&a.1));
    if let Some((place, number)) = weak.first() {
        let all = weak.len();
        guards.push(format!(
            "a masked token has the score {number} added or in its place (at '{place}', {all} in all): no score is so \
             large that it makes up for that, which was measured and is not proven"
        ));
    }
    guards
}

/// The outputs that both sides give.
fn specs_given<'a>(oracle: &Oracle, specs: &'a [ValueSpec]) -> impl Iterator<Item = &'a ValueSpec> {
    let has = |name: &str| oracle.outputs().iter().any(|spec| spec.name == name);
    specs.iter().filter(move |spec| has(&spec.name))
}

/// The outputs that may be what the model gives, each with the steps whose values it is made of.
fn ends(graph: &Graph, walked: &Walked, specs: &[ValueSpec]) -> Vec<(String, BTreeSet<usize>)> {
    let of = |spec: &ValueSpec| {
        let name = &spec.name;
        if let Some(taken) = walked.taken.iter().find(|taken| taken.value == *name) {
            return Some((name.clone(), taken.from.clone().unwrap_or_default()));
        }
        let Kind::Smooth(reached) = walked.kinds.get(name)? else { return None };
        // Of what the model itself gives, nothing more is made.
        let more = match graph.program.outputs.iter().any(|output| output.name == *name) {
            true => Curves::default(),
            false => Curves::OUTPUT,
        };
        let allowed =
            |from: &BTreeSet<usize>| allowed(graph.program, &ends_of(graph.program, name), from).and(more);
        Some((name.clone(), walked.between(graph, name, reached, allowed)?))
    };
    specs.iter().filter_map(of).collect()
}

/// The nodes that stand between an output and its proof because nobody knows what they do.
fn unexplained(
    graph: &Graph,
    walked: &Walked,
    specs: &[ValueSpec],
    right: &BTreeSet<String>,
) -> Vec<Unexplained> {
    let mut all: Vec<Unexplained> = Vec::new();
    for spec in specs.iter().filter(|spec| !right.contains(&spec.name)) {
        let known = |reason: usize| walked.reasons.get(reason).cloned();
        let reason = match walked.kinds.get(&spec.name) {
            Some(Kind::Unexplained(reason)) => known(*reason),
            Some(Kind::Smooth(reached)) => {
                let entered = |source: &Source| known(*walked.entered.get(source)?);
                reached.difference(&graph.masks).find_map(entered).or_else(|| {
                    let node = walked.bend(graph, &spec.name, &ends_of(graph.program, &spec.name))?;
                    let why = format!("({}) bends where no step of the model does", node.op);
                    Some(Reason { node: node.name.clone(), why })
                })
            }
            _ => None,
        };
        if let Some(Reason { node, why }) = reason
            && all.iter().all(|other| other.node != node)
        {
            all.push(Unexplained { node, why });
        }
    }
    all
}
