//! The one place that turns results into what a person reads.

use std::io::{self, Write};

use bert_pipeline::Similarity;
use engine::NamedValues;
use parity::Verdict;
use parity::report::render::{count, dimensions};
use parity::report::terminal::{BOLD, DIM, color, milliseconds, table};
use parity::report::{OutputReport, Timing};

/// An error message.
pub fn error(out: &mut impl Write, message: &str) -> io::Result<()> {
    let red = color(Verdict::Error);
    writeln!(out, "{red}error{red:#}: {message}")
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
