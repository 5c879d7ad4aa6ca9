//! The steps of the model between two values: what they do, and how far they see.

use std::collections::BTreeSet;

use architecture::{Op, Program};
use onnx_graph::shape::volume;
use onnx_session::compiled::{Dim, Known};

use super::kind::Source;
use super::operators::Work;
use super::walk::Graph;

/// What these steps do, made of those.
pub(super) fn allowed(graph: &Graph, steps: &[usize], from: &BTreeSet<usize>) -> Work {
    let (program, shapes) = (graph.program, graph.program.shapes());
    // How many tokens there are, and in a text, in a graph of one shape; elsewhere 1.
    let tokens = volume(graph.ids()).map_or(1, |all| all.factor());
    let length = graph.ids().last().map_or(1, Dim::factor);
    let mut work = Work::NONE;
    for step in between(program, steps, from) {
        let width = tokens * shapes[step].width.unwrap_or(1);
        work = work.and(match &program.steps[step].op {
            Op::LayerNorm { .. } => Work { width, ..Work::NORM },
            Op::Attention { heads } => {
                Work { width: width.max(tokens * length * heads), choices: 1, ..Work::ATTENTION }
            }
            Op::Activation { function, .. } => Work { width, ..Work::of(*function) },
            Op::Rotate { .. } => Work { width, ..Work::ROTATION },
            Op::Product => Work { width, ..Work::PLAIN },
            Op::Mean => Work { width, ..Work::MEAN },
            _ => Work { width: 0, ..Work::NONE },
        });
    }
    work
}

/// Whether nothing but masks reaches what these steps give, and windows that are as wide as those
/// of the model's attentions.
///
/// Free values show no window that is wider than the texts that are run: so what hides must be
/// one, in a graph that takes longer texts.
pub(super) fn sees_as_far(
    graph: &Graph,
    reached: &BTreeSet<Source>,
    steps: &[usize],
    from: &BTreeSet<usize>,
) -> bool {
    let program = graph.program;
    let between = between(program, steps, from);
    let windows: BTreeSet<Option<usize>> = between
        .iter()
        .filter(|step| matches!(program.steps[**step].op, Op::Attention { .. }))
        .filter_map(|&step| match program.steps[program.steps[step].inputs.get(3)?.step()?].op {
            Op::Mask { window } => Some(window),
            _ => None,
        })
        .collect();
    let mut others = reached.difference(&graph.masks);
    let length = graph.ids().last().filter(|dim| Known::is_fixed(dim)).map(Dim::factor);
    let mut windows = windows.into_iter();
    match (windows.next(), windows.next()) {
        (None | Some(None), None) => others.next().is_none(),
        (Some(Some(window)), None) => match (others.next(), others.next()) {
            (Some(found), None) => *found == Source::Window(window),
            // A text that is all within it needs none.
            (None, _) => length.is_some_and(|length| length <= window + 1),
            _ => false,
        },
        // Which attention has which is not known.
        _ => false,
    }
}

/// The steps that these are made by, up to those.
pub(super) fn between(program: &Program, steps: &[usize], from: &BTreeSet<usize>) -> BTreeSet<usize> {
    let (mut seen, mut open) = (BTreeSet::new(), steps.to_vec());
    while let Some(step) = open.pop() {
        if !from.contains(&step) && seen.insert(step) {
            open.extend(program.steps[step].inputs.iter().filter_map(|wire| wire.step()));
        }
    }
    seen
}
