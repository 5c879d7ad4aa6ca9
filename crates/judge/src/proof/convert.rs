//! Graphs that were converted on purpose, to half precision or to eight or four bits.
//!
//! Such a graph is held against the checkpoint *as the conversion has left it*: each tensor that the audit finds rounded or quantized takes the
//! graph's elements, where those are correct. The proof is then as sharp as ever, since neither side rounds anything else: the graph runs in
//! [`Precision::Exact`], its activations unquantized. What the conversion costs — the weights, and every value that the graph rounds on
//! the way — is measured against the checkpoint itself, and told apart: [`Conversion`].

mod floats;
mod lost;
mod overflow;

use architecture::{BindError, Family, Program, Task, bind};
use candle_core::Device;
use checkpoint::{Checkpoint, TensorEntry};
use engine::{DType, Engine, ValueSpec};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::Model;
pub use report::{Conversion, Loss};

use crate::audit::{Audit, Converted, Expect, Origin, audit_held};
use crate::compare::{Answers, OnFailure, Tally};
use crate::proof::{Promoted, carrying, half_promotions, promotions};
use crate::subject::References;
use crate::{ParityError, Subject};
pub(crate) use lost::{Lost, lost};
pub(crate) use overflow::{NotFinite, not_finite};

/// The checkpoint as a conversion has left it, and what the audit found on the way.
pub(crate) fn converted(
    subject: &Subject,
    model: &Model,
    expect: Expect,
) -> Result<(Audit, References), ParityError> {
    let unfit = |source: BindError| subject.unfit(source);
    let checkpoint = subject.files().checkpoint()?;
    let (audit, held) =
        audit_held(&checkpoint, subject.task(), subject.family(), model, expect).map_err(unfit)?;
    let entries = entries(&checkpoint, subject.task(), subject.family(), &held).map_err(unfit)?;
    Ok((audit, References::of(subject, checkpoint.replacing(entries), &Device::Cpu)?))
}

/// The converted tensors as entries of a checkpoint.
fn entries(
    checkpoint: &Checkpoint,
    task: Task,
    family: &dyn Family,
    held: &Converted,
) -> Result<Vec<TensorEntry>, BindError> {
    let bound = bind(checkpoint, family, task)?;
    let entry = |(name, entry): (&str, &TensorEntry)| {
        let elements = held.get(name)?;
        let (dtype, bytes): (_, Vec<u8>) = if elements.iter().all(|&x| f64::from(x as f32) == x) {
            (DType::F32, elements.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect())
        } else {
            (DType::F64, elements.iter().flat_map(|x| x.to_le_bytes()).collect())
        };
        Some(TensorEntry { dtype, bytes: bytes.into(), offset: None, ..entry.clone() })
    };
    Ok(bound.named().filter_map(entry).collect())
}

/// The graph with its weights as they are, and nothing else rounded, with the constants that were promoted for that; or why there is none.
pub(crate) fn exact_graph(
    model: &Model,
    program: &Program,
    expect: Expect,
    audit: &Audit,
) -> Result<(Oracle, Vec<Promoted>), String> {
    let floats = match expect {
        Expect::Int8 | Expect::Int4 => {
            Some(floats::in_floats(model).map_err(|error| error.to_string())?.model)
        }
        _ => None,
    };
    let model = floats.as_ref().unwrap_or(model);
    // A graph of integers has no business with half precision.
    let precision = if expect == Expect::F16 { Precision::Exact } else { Precision::F64 };
    let oracle = Oracle::with(model, precision, Limits::default()).map_err(|error| error.to_string())?;
    let eps: Vec<&str> = audit
        .constants
        .iter()
        .filter(|constant| constant.origin == Origin::LayerNormEps)
        .map(|constant| constant.name.as_str())
        .collect();
    let (promotions, promoted) = match expect {
        Expect::F16 => half_promotions(&oracle, program, &carrying(audit), &eps),
        _ => promotions(&oracle, program, &carrying(audit)),
    };
    Ok((oracle.promoting(promotions), promoted))
}

/// That nothing of the graph was converted, though it was said to be.
pub(crate) fn in_vain(expect: Expect, audit: &Audit) -> Option<String> {
    let mut traced = audit.traced.iter();
    match expect {
        Expect::Exact => None,
        Expect::F16 if traced.any(|trace| trace.cast.is_some()) => None,
        Expect::Int8 | Expect::Int4 if traced.any(|trace| trace.step.is_some()) => None,
        Expect::F16 => Some("no weight is of half precision: --expect f16 made no difference".into()),
        Expect::Int8 => Some("no weight is of eight bits: --expect int8 made no difference".into()),
        Expect::Int4 => Some("no weight is of four bits: --expect int4 made no difference".into()),
    }
}

/// Measures what a conversion costs. `meant` is what the checkpoint itself gives, and `rounded`
/// what the oracle gives where it rounds as the graph says.
///
/// # Errors
/// If the inputs do not fit an engine.
pub(crate) fn measure(
    expect: Expect,
    meant: &Answers,
    rounded: &Answers,
    engines: &[&dyn Engine],
) -> Result<Conversion, ParityError> {
    let mut loss = losses("oracle", meant, rounded);
    for engine in engines.iter().filter(|engine| engine.name() != "oracle") {
        let names: Vec<&str> = engine.outputs().iter().map(|spec| spec.name.as_str()).collect();
        // An engine that fails on an input has failed the check.
        let found = Answers::run(*engine, meant.cases(), &names, OnFailure::Skip, |_| ())?;
        loss.extend(losses(engine.name(), meant, &found));
    }
    Ok(Conversion { expect, loss })
}

/// Shapes that differ have failed the proof.
fn losses(engine: &str, meant: &Answers, found: &Answers) -> Vec<Loss> {
    let loss = |spec: &ValueSpec| {
        let Tally { total, worst_input, .. } = Tally::in_f64(spec, meant, found, 0.0);
        let total = total.deciding;
        (total.compared() > 0).then(|| Loss {
            engine: engine.into(),
            output: spec.name.clone(),
            max_abs: total.max_abs(),
            max_rel: total.max_rel(),
            mean_abs: total.mean_abs(),
            cosine: total.cosine(),
            worst_input,
            compared: total.compared(),
        })
    };
    meant.specs().iter().filter_map(loss).collect()
}
