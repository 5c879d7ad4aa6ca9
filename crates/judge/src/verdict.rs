//! What all that was found comes to.

use report::{
    EngineCheck, FolderDifference, GraphReport, Parts, Proof, Recorded, Relation, TokenizerReport, Verdict,
};

/// The verdict on a graph: the worst of its proof, its weights, its engines and whatever else was
/// tried. Without any engine nothing was compared in f32.
pub(crate) fn on_graph(proof: &Proof, parts: &Parts, checks: &[EngineCheck], overflows: bool) -> Verdict {
    let on_engines = Verdict::worst(checks.iter().map(|check| check.verdict));
    let overflow = if overflows { Verdict::Fail } else { Verdict::Pass };
    on_function(proof, parts).max(on_engines).max(overflow)
}

/// The verdict on a graph without that of its engines in f32: whether it is the right function.
pub(crate) fn on_function(proof: &Proof, parts: &Parts) -> Verdict {
    let weights = parts.weights.iter().map(|audit| audit.verdict);
    let stress = parts.stress.iter().map(|stress| stress.verdict);
    let violated = parts.relations.iter().filter(|relation| relation.is_violated());
    let relations = violated.map(|_: &Relation| Verdict::Fail);
    weights.chain(stress).chain(relations).fold(proof.verdict, Verdict::max)
}

/// The verdict of a whole check.
pub(crate) fn on_all(
    graphs: &[GraphReport],
    tokenizer: Option<&TokenizerReport>,
    folder: &[FolderDifference],
    recorded: &[Recorded],
) -> Verdict {
    let graphs = Verdict::worst(graphs.iter().map(|graph| graph.verdict));
    let tokenizer = tokenizer.map(|tokenizer| tokenizer.verdict);
    let folder = folder.iter().filter(|difference| difference.fails).map(|_| Verdict::Fail);
    tokenizer
        .into_iter()
        .chain(folder)
        .chain(recorded.iter().map(|side| side.verdict))
        .fold(graphs, Verdict::max)
}
