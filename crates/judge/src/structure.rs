//! For every input: that a graph *is* its model, step by step, and not only on the inputs that were
//! run.
//!
//! Values of the graph are taken for what steps of the model give (`blame::locate` says which may
//! be), and the graph is walked once, without running it, from its inputs to its outputs. Each
//! value is then one of few kinds (`kind::Kind`):
//!
//! * it is made of the inputs alone, each element of one token: every row of every table is run
//!   once;
//! * it is a smooth function of values that were taken for steps before it, in which no more is
//!   done than the formulas of the steps between need (`operators::Work`): two such functions that
//!   agree on free values agree everywhere, so each is held against the reference's own formula on
//!   random values, under every mask of four tokens;
//! * or nobody knows, and the node that nobody knows is named.
//!
//! Nothing that comes from ids, types, places, masks or sizes reaches a smooth value in any other
//! way. `docs/proof.md` says from which premises, and what is trusted.

mod between;
pub(crate) mod branches;
mod kind;
mod local;
mod operators;
mod replay;
mod scores;
mod walk;
pub(crate) mod witness;

use std::collections::BTreeSet;

use architecture::Op;
use candle_blocks::ReferenceEngine;
use engine::{Engine as _, ValueSpec};
use onnx_eval::Oracle;
use onnx_graph::Model;
use onnx_session::compiled::{Dim, Known};

use self::kind::{Kind, Source};
use self::operators::Work;
use self::replay::Replay;
pub(crate) use self::replay::ends_of;
use self::walk::{Anchors, Graph, Reason, Taken, Walked, walk};
use crate::blame::locate::Carried;
use crate::inputs::Case;
use crate::proof::Unexplained;
use crate::proof::further::Further;

/// A number that stands where a token is masked hides it, whatever the scores are, if it is no
/// larger: f32 has no score that makes up for it.
const HIDES: f64 = -1e30;

/// How often the graph is walked at most: after each walk what was wrongly taken for a step is left
/// out, and few guesses are wrong.
const WALKS: usize = 64;

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
    /// Looks at a graph that the proof holds for.
    pub fn of(held: &Held) -> Self {
        let structure = Known::of(held.model).ok().and_then(|known| Self::walked(held, &known));
        let mut structure = structure.unwrap_or_else(|| {
            let node = held.specs.first().map(|spec| spec.name.clone()).unwrap_or_default();
            let why = "a part of the graph does not run by itself, on an input that it declares".into();
            Self { unexplained: vec![Unexplained { node, why }], ..Self::default() }
        });
        if !structure.unexplained.is_empty() {
            let reference = held.reference;
            let more = witness::inputs(held.model, reference.inputs(), &reference.program().limits());
            structure.suspicious.extend(more);
        }
        structure
    }

    fn walked(held: &Held, known: &Known) -> Option<Self> {
        let &Held { oracle, reference, specs, carried, .. } = held;
        let program = reference.program();
        let (inputs, outputs) = (oracle.inputs(), oracle.outputs());
        let masks = (0..inputs.len()).filter(|&at| inputs[at].name == "attention_mask").map(Source::Input);
        let (nodes, masks) = (oracle.nodes().collect(), masks.collect());
        let graph = Graph { nodes, inputs, outputs, known, program, masks };
        let replay = Replay::new(held);
        let given: Vec<&ValueSpec> =
            specs.iter().filter(|spec| outputs.iter().any(|own| own.name == spec.name)).collect();
        let mut anchors = Anchors::default();
        // The positions are often there once for all rows.
        let is_position = |step: usize| matches!(program.steps[step].op, Op::Positions { padding: None, .. });
        for place in carried.iter().filter(|place| place.plain || is_position(place.step)) {
            anchors.steps.insert(place.value.clone(), place.step);
        }
        let mut suspicious = Vec::new();
        for _ in 0..WALKS {
            let walked = walk(&graph, &anchors, &replay);
            let mut off: Vec<String> = replay.misfits(&walked.taken)?;
            let of_inputs: Vec<&Taken> = walked
                .taken
                .iter()
                .filter(|taken| taken.from.is_none() && !off.contains(&taken.value))
                .collect();
            for (at, inputs) in replay.of_inputs(&of_inputs)? {
                let value = &of_inputs[at].value;
                off.push(value.clone());
                suspicious.push(Case { name: format!("rows of what '{value}' looks up"), inputs });
            }
            let ends = ends(&graph, &walked, &given);
            let mut right = BTreeSet::new();
            if off.is_empty() {
                let from = ends.iter().map(|(name, from)| (name.as_str(), from.clone())).collect();
                let (wrong, agreed) = replay.forced_runs(&walked.taken, &walked.idle, &from)?;
                off.extend(wrong.iter().map(|&at| walked.taken[at].value.clone()));
                right = agreed;
            }
            if off.is_empty() {
                let mut unexplained = unexplained(&graph, &walked, &given, &ends, &right);
                unexplained.extend(cut_short(&graph));
                let guards = guards(&graph, &walked, &replay, reference);
                return Some(Self { proven: right.into_iter().collect(), guards, unexplained, suspicious });
            }
            anchors.refuted.extend(off);
        }
        None
    }
}

/// What is cut from constants that are too short for some inputs.
fn cut_short(graph: &Graph) -> Option<Unexplained> {
    let positions = graph.program.limits().positions;
    let is_short = |(dim, most): &&(Dim, usize)| !graph.counts_tokens(dim) || *most < positions;
    let (_, most) = graph.known.limits().iter().find(is_short)?;
    let node = graph.nodes.iter().find(|node| node.op == "Slice").map(|node| node.name.clone());
    Some(Unexplained {
        node: node.unwrap_or_default(),
        why: format!("(Slice) some input's dimension may be {most} at most, and the model's may be more"),
    })
}

/// What holds only for usual inputs: defaults of inputs, and masks that hide nothing from large
/// scores.
fn guards(graph: &Graph, walked: &Walked, replay: &Replay, reference: &ReferenceEngine) -> Vec<String> {
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
    if !weak.is_empty() {
        // The masked one is so much less than the least of the others.
        let least = scores::largest(reference).map(|largest| -2.0 * largest - scores::NOTHING);
        weak.retain(|(_, number)| least.is_none_or(|least| *number > least));
    }
    weak.sort_by(|a, b| b.1.total_cmp(&a.1));
    if let Some((place, number)) = weak.first() {
        let all = weak.len();
        guards.push(format!(
            "no score is so large that it makes up for the {number} that hides a masked token (at '{place}', {all} \
             in all); that was measured, and is not proven"
        ));
    }
    guards
}

/// The outputs that may be what the model gives, each with the steps whose values it is made of.
fn ends(graph: &Graph, walked: &Walked, given: &[&ValueSpec]) -> Vec<(String, BTreeSet<usize>)> {
    let widths = graph.program.shapes().into_iter().filter_map(|shape| shape.width);
    let widest = widths.max().unwrap_or(1);
    let of = |spec: &&ValueSpec| {
        let name = &spec.name;
        if let Some(taken) = walked.taken.iter().find(|taken| taken.value == *name) {
            return Some((name.clone(), taken.from.clone().unwrap_or_default()));
        }
        let Kind::Smooth(reached) = walked.kinds.get(name)? else { return None };
        // Of what the model itself gives, nothing more is made.
        let more = match graph.program.outputs.iter().any(|output| output.name == *name) {
            true => Work::NONE,
            false => Work { width: widest, ..Work::OUTPUT },
        };
        let steps = ends_of(graph.program, name);
        Some((name.clone(), walked.between(graph, name, reached, (&steps, more))?))
    };
    given.iter().filter_map(of).collect()
}

/// The nodes that stand between an output and its proof because nobody knows what they do.
fn unexplained(
    graph: &Graph,
    walked: &Walked,
    given: &[&ValueSpec],
    ends: &[(String, BTreeSet<usize>)],
    right: &BTreeSet<String>,
) -> Vec<Unexplained> {
    let mut all: Vec<Unexplained> = Vec::new();
    for spec in given.iter().filter(|spec| !right.contains(&spec.name)) {
        let known = |reason: usize| walked.reasons.get(reason).cloned();
        let name = &spec.name;
        let reason = match walked.kinds.get(name) {
            Some(Kind::Unexplained(reason)) => known(*reason),
            Some(Kind::Smooth(reached)) => {
                let entered = |source: &Source| known(*walked.entered.get(source)?);
                reached.difference(&graph.masks).find_map(entered).or_else(|| {
                    let node = walked.bend(graph, name, &ends_of(graph.program, name))?;
                    let why = format!("({}) bends where no step of the model does", node.op);
                    Some(Reason { node: node.name.clone(), why })
                })
            }
            _ => None,
        };
        let Reason { node, why } = reason.unwrap_or_else(|| {
            let node = graph.nodes.iter().find(|node| node.outputs.contains(name));
            let why = match ends.iter().any(|(end, _)| end == name) {
                true => "what is before it gives something else on free values",
                false => "what is before it does more than the model's steps",
            };
            let (node, op) = node.map_or((name, "no node"), |node| (&node.name, &node.op));
            Reason { node: node.clone(), why: format!("({op}) {why}") }
        });
        if all.iter().all(|other| other.node != node) {
            all.push(Unexplained { node, why });
        }
    }
    all
}
