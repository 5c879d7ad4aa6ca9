//! The one place that turns results into what a person reads.

use std::io::{self, Write};

use bert_pipeline::{Similarity, cosine_similarity};
use engine::{NamedValues, Value};
use onnx_graph::Model;
use parity::check::Expected;
use parity::report::render::{count, dimensions};
use parity::report::terminal::{BOLD, DIM, color, milliseconds, table};
use parity::report::{self, Feature, Features, OutputReport, Similar, Timing};
use parity::suite::SENTENCES;
use parity::{Subject, Verdict};

/// An error message.
pub fn error(out: &mut impl Write, message: &str) -> io::Result<()> {
    let red = color(Verdict::Error);
    writeln!(out, "{red}error{red:#}: {message}")
}

/// What the reference is, in words.
pub fn reference(subject: &Subject) -> String {
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

/// What a graph is, in words.
pub fn graph(model: &Model) -> String {
    let opset = model.opset("").map_or_else(String::new, |opset| format!("opset {opset}, "));
    let producer = [model.producer.as_str(), model.producer_version.as_str()].join(" ");
    let by = if producer.trim().is_empty() { "" } else { ", by " };
    format!("{opset}{}{by}{}", count(model.graph.nodes.len(), "node"), producer.trim())
}

/// What the reference's outputs look like and are good for: those of the first case, or of the
/// sentences where they were run.
pub fn features(expected: &Expected) -> Option<Features> {
    const SHOWN: usize = 3;
    let sentences = expected.iter().find(|(case, _)| case.name == "sentences");
    let (case, outputs) = sentences.or_else(|| expected.iter().next())?;
    let finite = |x: f64| x.is_finite().then_some(x);
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
        Some(report::Similarity { text: text.into(), to: vec![similar(b, near)?, similar(c, far)?] })
    });
    Some(Features { outputs: outputs.iter().map(output).collect(), similarity })
}

/// The mean vector of each row's real tokens.
fn mean_rows(hidden: &Value, mask: &Value) -> Option<Vec<Vec<f32>>> {
    let device = candle_core::Device::Cpu;
    let (hidden, mask) = (hidden.to_tensor(&device).ok()?, mask.to_tensor(&device).ok()?);
    bert_pipeline::Pooling::Mean.pool(&hidden, &mask, None).ok()?.to_vec2().ok()
}

/// Times of engines, and how they compare with the first.
pub fn timings(out: &mut impl Write, inputs: &str, timings: &[Timing]) -> io::Result<()> {
    let threads = timings.first().map_or(0, |timing| timing.threads);
    writeln!(out, "{BOLD}{inputs}{BOLD:#}, {}", count(threads, "thread"))?;
    let row = |timing: &Timing| {
        let first = timings.first().map_or(timing.median_ms, |first| first.median_ms);
        vec![
            timing.engine.clone(),
            milliseconds(timing.median_ms),
            milliseconds(timing.p90_ms),
            timing.runs.to_string(),
            format!("{:.2}×", first / timing.median_ms),
        ]
    };
    table(out, &["engine", "median", "p90", "runs", "speed"], 1..5, timings.iter().map(row))
}

/// Vectors of texts: their first numbers, and how near each text is to the first.
pub fn embeddings(
    out: &mut impl Write,
    how: &str,
    similarity: Similarity,
    texts: &[String],
    embeddings: &[Vec<f32>],
) -> io::Result<()> {
    const SHOWN: usize = 4;
    let dimension = embeddings.first().map_or(0, Vec::len);
    writeln!(
        out,
        "{BOLD}{} vectors of {dimension} numbers{BOLD:#} ({how}; --json FILE writes them)",
        texts.len()
    )?;
    let row = |(text, embedding): (&String, &Vec<f32>)| {
        let numbers: Vec<String> = embedding.iter().take(SHOWN).map(|x| format!("{x:.4}")).collect();
        let near = embeddings.first().and_then(|first| similarity.between(first, embedding).ok());
        vec![
            shortened(text),
            format!("{} …", numbers.join(" ")),
            near.map_or("–".into(), |near| format!("{near:.4}")),
        ]
    };
    let near = match similarity {
        Similarity::Euclidean | Similarity::Manhattan => format!("−{similarity} distance to the first"),
        _ => format!("{similarity} with the first"),
    };
    table(out, &["text", "vector", &near], 2..3, texts.iter().zip(embeddings).map(row))
}

/// What was computed and where it went.
pub fn outputs(out: &mut impl Write, engine: &str, outputs: &NamedValues, path: &str) -> io::Result<()> {
    for (name, value) in outputs.iter() {
        writeln!(out, "{name} {} {}", value.dtype(), dimensions(value.shape()))?;
    }
    writeln!(out, "{DIM}computed by {engine}, written to {path}{DIM:#}")
}

/// How an output compares with what was expected of it.
pub fn expectation(out: &mut impl Write, report: &OutputReport, atol: f64) -> io::Result<()> {
    let style = color(report.verdict);
    writeln!(out, "{style}{}{style:#}  {}", report.verdict, report.sentence(atol))
}

fn shortened(text: &str) -> String {
    const WIDTH: usize = 48;
    if text.chars().count() <= WIDTH {
        return text.into();
    }
    text.chars().take(WIDTH - 1).chain(['…']).collect()
}
