//! What was run, in words and numbers for a person.

use bert_pipeline::cosine_similarity;
use engine::Value;
use onnx_graph::Model;
use report::render::count;
use report::{Feature, Features, InputSummary, Similar, Similarity};

use crate::Subject;
use crate::compare::{Answers, finite};
use crate::inputs::{Case, SENTENCES};

/// What the reference is.
pub(super) fn reference(subject: &Subject) -> String {
    let program = subject.program();
    let width = program.outputs.first().and_then(|output| program.shapes()[output.step].width);
    let activation = program.activation().map_or_else(String::new, |function| format!("{function}, "));
    format!(
        "natively on candle in f32 ({}, hidden size {}, {}, {activation}vocabulary {})",
        count(program.layers(), "layer"),
        width.unwrap_or_default(),
        count(program.heads().unwrap_or_default(), "head"),
        subject.limits().vocabulary
    )
}

/// What a graph is.
pub(super) fn graph(model: &Model) -> String {
    let opset = model.opset("").map_or_else(String::new, |opset| format!("opset {opset}, "));
    let producer = [model.producer.as_str(), model.producer_version.as_str()].join(" ");
    let by = if producer.trim().is_empty() { "" } else { ", by " };
    format!("{opset}{}{by}{}", count(model.graph.nodes.len(), "node"), producer.trim())
}

/// What an input is.
pub(super) fn input(case: &Case) -> InputSummary {
    let shape = case.inputs.get("input_ids").map(|ids| ids.shape().to_vec()).unwrap_or_default();
    let mask = case.inputs.get("attention_mask").and_then(|mask| mask.as_slice::<i64>().ok());
    let tokens = mask.map_or(shape.iter().product(), |mask| mask.iter().filter(|&&bit| bit != 0).count());
    InputSummary { name: case.name.clone(), shape, tokens }
}

/// What the reference's outputs look like and are good for: those of the first case, or of the
/// sentences where they were run.
pub(super) fn features(expected: &Answers) -> Option<Features> {
    const SHOWN: usize = 3;
    let sentences = expected.iter().find(|(case, _)| case.name == "sentences");
    let (case, outputs) = sentences.or_else(|| expected.iter().next())?;
    let output = |(name, value): (&str, &Value)| Feature {
        name: name.into(),
        shape: value.shape().to_vec(),
        first: value.to_f64().into_iter().take(SHOWN).map(finite).collect(),
    };
    let similarity = sentences.and_then(|_| {
        let rows = mean_rows(outputs.get("last_hidden_state")?, case.inputs.get("attention_mask")?)?;
        let [a, b, c, ..] = rows.as_slice() else { return None };
        let [text, near, far, _] = SENTENCES;
        let similar = |row: &[f32], text: &str| {
            let cosine = cosine_similarity(a, row).ok()?;
            Some(Similar { text: text.into(), cosine: cosine.is_finite().then_some(cosine) })
        };
        Some(Similarity { text: text.into(), to: vec![similar(b, near)?, similar(c, far)?] })
    });
    Some(Features { outputs: outputs.iter().map(output).collect(), similarity })
}

/// The mean vector of each row's real tokens.
fn mean_rows(hidden: &Value, mask: &Value) -> Option<Vec<Vec<f32>>> {
    let device = candle_core::Device::Cpu;
    let (hidden, mask) = (hidden.to_tensor(&device).ok()?, mask.to_tensor(&device).ok()?);
    bert_pipeline::Pooling::Mean.pool(&hidden, &mask, None).ok()?.to_vec2().ok()
}
