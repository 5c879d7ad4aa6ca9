//! The static audit of a graph's weights: every tensor of the checkpoint is traced to what carries it, before anything is run.
//!
//! Tensors are found **by their elements**: as they are, transposed, as rows of a table, as parts of a joined query, key and value, with a
//! scale folded in, cast, or dequantised; what fits none of these is held against what is nearest. Names only break ties, and one that
//! contradicts the elements is a fault. So is a tensor that stands at another's place, or the wrong way round. A flipped bit in an embedding
//! that no input touches is seen like any other.
//!
//! Everything else that is a float in the graph has an origin, or is listed as left over: the audit does not judge that, a run does.

mod carriers;
mod converted;
mod data;
mod flow;
mod layout;
pub(crate) mod moved;
mod origins;
mod places;
mod quantized;
mod search;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::HashSet;

use architecture::{BindError, Family, Task};
use checkpoint::Checkpoint;
use onnx_graph::Model;
use report::Verdict;
pub use report::{
    Audit, Cast, Constant, Expect, Finding, FindingKind, FirstDifference, Layout, Leftover, Origin, Trace,
};

use carriers::Carrier;
pub use converted::Converted;
use flow::{Flow, Step};
pub(crate) use origins::F16_CLAMPS;
use quantized::Grid;
use search::{Match, Search};
use weights::Weight;

/// Traces every tensor of the checkpoint, of the encoder and of the task's head, to what carries it in the graph.
///
/// # Errors
/// If the checkpoint does not fit its config.
pub fn audit(
    checkpoint: &Checkpoint,
    task: Task,
    family: &dyn Family,
    model: &Model,
    expect: Expect,
) -> Result<Audit, BindError> {
    Ok(audit_held(checkpoint, task, family, model, expect)?.0)
}

/// The same, with the elements of the tensors that the graph holds rounded or quantized as expected.
///
/// # Errors
/// If the checkpoint does not fit its config.
pub fn audit_held(
    checkpoint: &Checkpoint,
    task: Task,
    family: &dyn Family,
    model: &Model,
    expect: Expect,
) -> Result<(Audit, Converted), BindError> {
    let (weights, program) = weights::weights(checkpoint, task, family)?;
    let flow = Flow::new(model);
    let (carriers, quantization) = carriers::carriers(&flow, &weights);
    let head = program.head_size().unwrap_or(1) as f64;
    let factors = [-0.5, 0.5, -0.25, 0.25].map(|power| head.powf(power)).into();
    let mut search = Search::new(&weights, &carriers, factors, expect);
    search.exact();
    search.nearest();
    search.eliminate(&flow);
    let mut matches = search.matches;
    matches.sort_by_key(|found| (found.weight, found.carrier, found.placement.offset));

    let mut findings: Vec<Finding> =
        matches.iter().filter_map(|found| difference(found, &weights, &carriers)).collect();
    findings.extend(precision(&matches, &carriers, expect));
    findings.extend(mixed(&flow, &carriers, expect));
    findings.extend(matches.iter().filter_map(|found| lost(found, &weights, &carriers)));
    let found = places::Places { flow: &flow, weights: &weights, carriers: &carriers, matches: &matches };
    findings.extend(found.findings());

    let carrying: HashSet<usize> = matches.iter().map(|found| carriers[found.carrier].value).collect();
    let module_of = |step: &Step| module_of(&flow, step, &matches, &weights, &carriers);
    let origins = origins::origins(&flow, &program, &carrying, &quantization, &module_of);
    findings.extend(origins.findings);
    let traced: Vec<Trace> = matches.iter().map(|found| trace(found, &weights, &carriers)).collect();
    findings.extend(folded(&traced));
    findings.sort_by_key(|finding| !finding.fails);

    let missing = |used: bool| {
        let missing = weights.iter().enumerate().filter(|(at, weight)| {
            weight.is_used() == used
                // The file has no such tensor.
                && (used || !weight.tied)
                && matches
                    .iter()
                    .all(|found| found.weight != *at && found.plus.is_none_or(|(other, _)| other != *at))
        });
        missing.map(|(_, weight)| weight.name.clone()).collect::<Vec<_>>()
    };
    let (untraced, unused) = (missing(true), missing(false));
    let held = Converted::new(expect, &matches, &weights, &carriers);
    let verdict = if findings.iter().any(|finding| finding.fails) {
        Verdict::Fail
    } else if traced.is_empty() {
        Verdict::Inconclusive
    } else if traced.iter().all(|trace| trace.exact) {
        Verdict::Pass
    } else {
        Verdict::Rounding
    };
    let audit = Audit {
        verdict,
        traced,
        untraced,
        unused,
        constants: origins.constants,
        leftover: origins.leftover,
        findings,
    };
    Ok((audit, held))
}

/// What JSON can hold.
fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

fn trace(found: &Match, weights: &[Weight], carriers: &[Carrier]) -> Trace {
    let (weight, carrier) = (&weights[found.weight], &carriers[found.carrier]);
    let distance = &found.distance;
    // A product with a power of two is exact.
    let altered = (found.factor.is_some() || found.plus.is_some()) && distance.max_abs != Some(0.0);
    let rounded = weight.rounded || carrier.rounded;
    Trace {
        tensor: weight.name.clone(),
        module: weight.module().to_string(),
        initializer: carrier.name.clone(),
        layout: found.layout,
        factor: found.factor,
        cast: found.cast,
        step: carrier.grid.as_ref().map(Grid::step),
        plus: found.plus.map(|(other, row)| (weights[other].name.clone(), row)),
        max_abs: distance.max_abs,
        max_ulp: distance.max_ulp,
        compared: distance.compared,
        differing: distance.differing,
        first_difference: distance.first.clone(),
        exact: distance.differing == 0 && distance.compared > 0 && !altered && !rounded,
        shared: found.shared,
    }
}

/// A tensor with elements that are not what they should be.
fn difference(found: &Match, weights: &[Weight], carriers: &[Carrier]) -> Option<Finding> {
    let (weight, carrier) = (&weights[found.weight], &carriers[found.carrier]);
    let first = found.distance.first.as_ref()?;
    let ulp = match first.ulp {
        Some(ulp) => format!("{ulp} ULP"),
        None => "not finite".into(),
    };
    let factor = match found.other_factor {
        Some(0.0) => "; all are 0".into(),
        Some(factor) => format!("; all are {} times the checkpoint's", shown_factor(factor)),
        None => String::new(),
    };
    let message = format!(
        "{} is carried by '{}' ({}), but {} of {} elements differ, first at {:?}: {} in the checkpoint, {} in the graph ({ulp}){factor}",
        weight.name,
        carrier.name,
        found.layout,
        found.distance.differing,
        found.distance.compared,
        first.index,
        first.checkpoint,
        first.graph
    );
    Some(Finding::fails(FindingKind::Difference, [weight.name.clone()], message))
}

/// A factor of f32 elements is known to six digits.
fn shown_factor(factor: f64) -> f64 {
    (factor * 1e6).round() / 1e6
}

/// Weights of a precision that nobody asked for: one finding for all of them.
fn precision(matches: &[Match], carriers: &[Carrier], expect: Expect) -> Vec<Finding> {
    let half = |carrier: &Carrier| matches!(carrier.dtype, engine::DType::F16 | engine::DType::BF16);
    let count =
        |is: &dyn Fn(&Carrier) -> bool| matches.iter().filter(|found| is(&carriers[found.carrier])).count();
    let bits = |carrier: &Carrier| carrier.grid.as_ref().map_or(32, Grid::bits);
    let (halves, bytes) = (count(&half), count(&|carrier| bits(carrier) == 8));
    let (fours, fewer) = (count(&|carrier| bits(carrier) == 4), count(&|carrier| bits(carrier) < 4));
    let fail = |what: &str, option: &str| {
        let message = format!("{what}; for a graph that was converted on purpose say --expect {option}");
        Finding { module: None, ..Finding::fails(FindingKind::Precision, [], message) }
    };
    let mut findings = Vec::new();
    if halves > 0 && expect != Expect::F16 {
        findings.push(fail(&format!("{halves} weights are of half precision"), "f16"));
    }
    // A graph of four bits often keeps some weights in eight.
    if bytes > 0 && !matches!(expect, Expect::Int8 | Expect::Int4) {
        findings.push(fail(&format!("{bytes} weights are quantized to eight bits"), "int8"));
    }
    if fours > 0 && expect != Expect::Int4 {
        findings.push(fail(&format!("{fours} weights are quantized to four bits"), "int4"));
    }
    if fewer > 0 {
        let message =
            format!("{fewer} weights are quantized to less than four bits, which no --expect allows");
        findings.push(Finding { module: None, ..Finding::fails(FindingKind::Precision, [], message) });
    }
    findings
}

/// A conversion that loses more than this part of a tensor, as the root of the mean square of what
/// is lost over that of the tensor, leaves too little of it. Of normally distributed numbers a
/// single bit loses 0.6, and the four bits of the coarsest conversion that `--expect` knows 0.1.
const LOST: f64 = 0.5;

/// Quantized or cast weights of which the conversion leaves next to nothing.
fn lost(found: &Match, weights: &[Weight], carriers: &[Carrier]) -> Option<Finding> {
    let (weight, carrier) = (&weights[found.weight], &carriers[found.carrier]);
    if carrier.grid.is_none() && found.cast.is_none() {
        return None;
    }
    let (mut off, mut all) = (0f64, 0f64);
    for (w, g) in found.placement.pairs() {
        let (meant, held) = (f64::from(*weight.elements.get(w)?), f64::from(*carrier.elements.get(g)?));
        off += (meant - held) * (meant - held);
        all += meant * meant;
    }
    let part = (off / all).sqrt();
    if part.is_nan() || part <= LOST {
        return None;
    }
    let message = format!(
        "the conversion loses {:.0} % of {} ('{}', as the root of the mean square): its steps are too large, \
         so convert it again with a scale that fits its elements, or leave it as it is",
        100.0 * part,
        weight.name,
        carrier.name
    );
    Some(Finding::fails(FindingKind::Precision, [weight.name.clone()], message))
}

/// Parts of a graph in the other half precision, which has other digits and another range.
fn mixed(flow: &Flow, carriers: &[Carrier], expect: Expect) -> Option<Finding> {
    /// How ONNX numbers it.
    const BFLOAT16: i64 = 16;
    let has = |dtype: engine::DType| carriers.iter().any(|carrier| carrier.dtype == dtype);
    if expect != Expect::F16 || !has(engine::DType::F16) {
        return None;
    }
    let is_cast =
        |step: &&Step| step.node.op == "Cast" && step.node.int("to").ok().flatten() == Some(BFLOAT16);
    let node = flow.steps.iter().find(is_cast).map(|step| format!("node '{}' casts to it", step.node.name));
    let held = carriers.iter().find(|carrier| carrier.dtype == engine::DType::BF16);
    let held = held.map(|carrier| format!("'{}' is of it", carrier.name));
    let message = format!(
        "a part of the graph is of bf16, which has three binary digits less than the f16 of the rest: {}; convert \
         it as a whole to one of both",
        node.or(held)?
    );
    Some(Finding { module: None, ..Finding::fails(FindingKind::Precision, [], message) })
}

/// Notes on what was folded into tensors.
fn folded(traced: &[Trace]) -> Vec<Finding> {
    traced
        .iter()
        .filter(|trace| !trace.exact && trace.differing == 0)
        .map(|trace| {
            let with = match (&trace.factor, &trace.plus) {
                (Some(factor), _) => format!("times {factor}"),
                (_, Some((other, row))) => format!("plus row {row} of {other}"),
                _ => "rounded to f32".into(),
            };
            let message = format!("'{}' is {} {with}, correctly rounded", trace.initializer, trace.tensor);
            Finding {
                tensors: vec![trace.tensor.clone()],
                module: Some(trace.module.clone()),
                ..Finding::note(FindingKind::Folded, message)
            }
        })
        .collect()
}

/// The layer norm that a node belongs to: that of the weight it takes, or that of the weights next to what it gives.
fn module_of(
    flow: &Flow,
    step: &Step,
    matches: &[Match],
    weights: &[Weight],
    carriers: &[Carrier],
) -> Option<String> {
    /// As many nodes lie between eps and the gain: root, division, casts.
    const FARTHEST: usize = 6;
    let mut step = step;
    for _ in 0..FARTHEST {
        let index = flow.steps.iter().position(|other| std::ptr::eq(other, step))?;
        let norm = matches.iter().find(|found| {
            let part = weights[found.weight].part;
            part.is_some_and(|part| part.block == weights::Block::LayerNorm && !part.is_bias)
                && !found.shared
                && carriers[found.carrier].uses.iter().any(|at| at.step == index)
        });
        if let Some(found) = norm {
            return Some(weights[found.weight].module().to_string());
        }
        let output = step.outputs.iter().flatten().next()?;
        let &(next, _) = flow.consumers[*output].first()?;
        step = &flow.steps[next];
    }
    None
}
