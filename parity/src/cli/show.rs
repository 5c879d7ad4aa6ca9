//! The one place that turns results into what a person reads.

use std::io::{self, Write};
use std::ops::Range;

use anstyle::{AnsiColor, Style};
use bert_pipeline::{Similarity, cosine_similarity};
use comfy_table::{CellAlignment, Table, TableStyle};
use engine::{NamedValues, Value};
use onnx_graph::Model;
use parity::bench::Timing;
use parity::check::Expected;
use parity::proof::{Proof, ProofOutput};
use parity::recorded::Recorded;
use parity::render::headline;
use parity::report::{EngineCheck, FromTruth, InputSummary, OutputReport, Report, TimingReport};
use parity::suite::SENTENCES;
use parity::{Subject, Verdict};

use super::terminal::{Paint, inert};
use super::{show_modules, show_precision};

pub const BOLD: Paint = Paint::new(Style::new().bold());
pub const DIM: Paint = Paint::new(Style::new().dimmed());

pub fn color(verdict: Verdict) -> Paint {
    let color = match verdict {
        Verdict::Pass | Verdict::Rounding => AnsiColor::Green,
        Verdict::Inconclusive => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    Paint::new(color.on_default().bold())
}

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

/// A report, and what is only shown.
pub struct Shown<'a> {
    pub report: &'a Report,
    pub reference: String,
    /// What each graph is, in the order of the report's checks.
    pub graphs: Vec<String>,
    pub features: Option<Features>,
}

/// What the model's outputs look like and are good for, on the built-in sentences.
pub struct Features {
    shapes: Vec<(String, Vec<usize>, Vec<f64>)>,
    similarity: Option<[f32; 2]>,
}

impl Features {
    /// The features of the first case, or of the sentences where they were run.
    pub fn of(expected: &Expected) -> Option<Self> {
        const SHOWN: usize = 3;
        let sentences = expected.iter().find(|(case, _)| case.name == "sentences");
        let (case, outputs) = sentences.or_else(|| expected.iter().next())?;
        let shapes = outputs
            .iter()
            .map(|(name, value)| {
                let first = value.to_f64().into_iter().take(SHOWN).collect();
                (name.to_string(), value.shape().to_vec(), first)
            })
            .collect();
        let similarity = sentences.and_then(|_| {
            let rows = mean_rows(outputs.get("last_hidden_state")?, case.inputs.get("attention_mask")?)?;
            let [a, b, c, ..] = rows.as_slice() else { return None };
            Some([cosine_similarity(a, b).ok()?, cosine_similarity(a, c).ok()?])
        });
        Some(Self { shapes, similarity })
    }
}

/// The mean vector of each row's real tokens.
fn mean_rows(hidden: &Value, mask: &Value) -> Option<Vec<Vec<f32>>> {
    let device = candle_core::Device::Cpu;
    let (hidden, mask) = (hidden.to_tensor(&device).ok()?, mask.to_tensor(&device).ok()?);
    bert_pipeline::Pooling::Mean.pool(&hidden, &mask, None).ok()?.to_vec2().ok()
}

/// The report of a check.
pub fn report(out: &mut impl Write, shown: &Shown) -> io::Result<()> {
    let report = shown.report;
    let style = color(report.verdict);
    let verdict = report.verdict.to_string().to_uppercase();
    writeln!(out, "{style}{verdict}{style:#}  {}", headline(report))?;
    writeln!(out)?;
    writeln!(out, "  {DIM}reference{DIM:#}  {}, {}", report.model, shown.reference)?;
    // The checks of one graph stand together.
    let of_one_graph = report.checks.chunk_by(|a, b| a.onnx == b.onnx);
    for (checks, graph) in of_one_graph.zip(&shown.graphs) {
        let engines: Vec<&str> = checks.iter().map(|check| check.engine.as_str()).collect();
        let onnx = checks.first().map_or("", |check| check.onnx.as_str());
        writeln!(out, "  {DIM}graph{DIM:#}      {onnx} ({graph}), on {}", engines.join(" and "))?;
    }
    let input = |input: &InputSummary| format!("{} {}", input.name, dimensions(&input.shape));
    let inputs: Vec<String> = report.inputs.iter().map(input).collect();
    writeln!(out, "  {DIM}inputs{DIM:#}     {}", inputs.join(", "))?;
    if let Some(proof) = &report.proof {
        self::proof(out, proof, report.precision.is_some())?;
    }
    for check in &report.checks {
        self::check(out, check, report.checks.len() > 1)?;
    }
    if let Some(precision) = &report.precision {
        show_precision::loss(out, precision)?;
    }
    if !report.recorded.is_empty() {
        recorded(out, &report.recorded)?;
    }
    show_modules::modules(out, report)?;
    show_modules::findings(out, report)?;
    if let Some(timing) = &report.timing {
        self::timing(out, timing)?;
    }
    if let Some(features) = &shown.features {
        self::features(out, features)?;
    }
    for note in &report.notes {
        writeln!(out, "{DIM}note: {note}{DIM:#}")?;
    }
    Ok(())
}

/// Both sides in f64.
fn proof(out: &mut impl Write, proof: &Proof, converted: bool) -> io::Result<()> {
    let style = color(proof.verdict);
    let word = match proof.verdict {
        Verdict::Pass => "holds",
        Verdict::Inconclusive => "could not be made",
        _ => "does not hold",
    };
    writeln!(out)?;
    writeln!(
        out,
        "{BOLD}Proof in f64{BOLD:#}  {style}{word}{style:#} {DIM}(at most {:e}, relative to values above 1){DIM:#}",
        proof.tol
    )?;
    if let Some(failure) = &proof.failure {
        writeln!(out, "  {failure}")?;
    }
    if !proof.outputs.is_empty() {
        let scientific = |x: Option<f64>| x.map_or("not finite".into(), |x| format!("{x:.2e}"));
        let row = |output: &ProofOutput| {
            vec![
                output.name.clone(),
                scientific(output.max_abs),
                scientific(output.max_rel),
                output.compared.to_string(),
                output.verdict.to_string(),
            ]
        };
        table(
            out,
            &["output", "max |Δ|", "relative", "values", "verdict"],
            1..4,
            proof.outputs.iter().map(row),
        )?;
    }
    for output in &proof.outputs {
        if let Some(mismatch) = &output.mismatch {
            writeln!(out, "  {}: {mismatch}", output.name)?;
        }
    }
    if proof.verdict == Verdict::Fail {
        let failing = proof.failing_inputs();
        if !failing.is_empty() {
            writeln!(out, "  {DIM}on: {}{DIM:#}", failing.join(", "))?;
        }
    }
    if !proof.promoted.is_empty() {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for promoted in &proof.promoted {
            match counts.iter_mut().find(|(meaning, _)| *meaning == promoted.meaning) {
                Some((_, count)) => *count += 1,
                None => counts.push((promoted.meaning, 1)),
            }
        }
        let counts: Vec<String> =
            counts.iter().map(|(meaning, count)| format!("{meaning} ×{count}")).collect();
        let rounding = if converted { "rounding" } else { "f32 rounding" };
        writeln!(
            out,
            "  {DIM}constants taken for what they are the {rounding} of: {}{DIM:#}",
            counts.join(", ")
        )?;
    }
    Ok(())
}

/// All sides against what was recorded elsewhere.
fn recorded(out: &mut impl Write, sides: &[Recorded]) -> io::Result<()> {
    writeln!(out)?;
    writeln!(out, "{BOLD}Against what was recorded{BOLD:#}")?;
    let scientific = |x: Option<f64>| x.map_or("–".into(), |x| format!("{x:.2e}"));
    let row = |side: &Recorded, output: &OutputReport| {
        vec![
            side.side.clone(),
            side.engine.clone(),
            side.dtype.clone(),
            output.name.clone(),
            scientific(output.max_abs),
            scientific(output.budget),
            output.verdict.to_string(),
        ]
    };
    let rows = sides.iter().flat_map(|side| side.outputs.iter().map(move |output| row(side, output)));
    table(out, &["side", "engine", "dtype", "output", "max |Δ|", "budget", "verdict"], 4..6, rows)?;
    for missing in sides.iter().flat_map(|side| &side.not_compared) {
        writeln!(out, "  not compared: {missing}")?;
    }
    Ok(())
}

fn check(out: &mut impl Write, check: &EngineCheck, several: bool) -> io::Result<()> {
    writeln!(out)?;
    if several {
        writeln!(out, "{BOLD}{} on {}: {}{BOLD:#}", check.onnx, check.engine, check.verdict)?;
    }
    if !check.outputs.is_empty() {
        let header =
            ["output", "max |Δ|", "budget", "in ULP", "relative", "cosine", "values", "beyond", "verdict"];
        table(out, &header, 1..8, check.outputs.iter().map(row))?;
    }
    for output in &check.outputs {
        if let Some(mismatch) = &output.mismatch {
            writeln!(out, "  {}: {mismatch}", output.name)?;
        }
        let (Some(input), Some(index)) = (&output.worst_input, &output.worst_index) else { continue };
        let value = |x: Option<f64>| x.map_or("not finite".into(), |x| format!("{x:.9}"));
        let padding = match (output.padding.compared, output.padding.max_abs) {
            (0, _) => String::new(),
            (_, Some(max_abs)) => format!("; {max_abs:.2e} at padding, which does not decide"),
            (_, None) => "; not finite at padding, which does not decide".into(),
        };
        writeln!(
            out,
            "  {DIM}{} furthest at {index:?} of '{input}': reference {}, graph {}{padding}{DIM:#}",
            output.name,
            value(output.reference),
            value(output.candidate)
        )?;
        if let Some(nearer) = output.truth.as_ref().and_then(nearer) {
            writeln!(out, "  {DIM}{nearer}{DIM:#}")?;
        }
        if let Some(decisions) = &output.decisions {
            writeln!(out, "  {} {decisions}", output.name)?;
        }
    }
    if let Some(failure) = &check.failure {
        writeln!(out, "  {failure}")?;
    }
    for reason in &check.not_compared {
        writeln!(out, "  not compared: {reason}")?;
    }
    Ok(())
}

/// Which f32 side is nearer to f64.
fn nearer(truth: &FromTruth) -> Option<String> {
    let side = |name, abs: f64, ulp: f64| format!("{name} is {abs:.2e} ({ulp:.1} ULP) from f64");
    let reference = side("the reference", truth.reference?, truth.reference_ulp?);
    let candidate = side("the graph", truth.candidate?, truth.candidate_ulp?);
    Some(if truth.candidate? <= truth.reference? {
        format!("{candidate}, nearer; {reference}")
    } else {
        format!("{reference}, nearer; {candidate}")
    })
}

fn row(output: &OutputReport) -> Vec<String> {
    let scientific = |x: Option<f64>| x.map_or("–".into(), |x| format!("{x:.2e}"));
    vec![
        output.name.clone(),
        scientific(output.max_abs),
        scientific(output.budget),
        output.worst_ulp.map_or("–".into(), |ulp| ulp.to_string()),
        scientific(output.max_rel),
        output.cosine.map_or("–".into(), |cosine| format!("{cosine:.9}")),
        output.compared.to_string(),
        output.beyond_atol.to_string(),
        output.verdict.to_string(),
    ]
}

fn timing(out: &mut impl Write, timing: &TimingReport) -> io::Result<()> {
    let one = |result: &Timing| format!("{} {}", result.engine, milliseconds(result.median_ms));
    let times: Vec<String> = timing.results.iter().map(one).collect();
    let Some(Timing { threads, runs, .. }) = timing.results.first() else { return Ok(()) };
    writeln!(out)?;
    writeln!(
        out,
        "{BOLD}Time{BOLD:#}  {} on '{}' {DIM}(median of {runs} interleaved runs, {}; `parity bench` measures){DIM:#}",
        times.join(", "),
        timing.input,
        count(*threads, "thread")
    )
}

fn features(out: &mut impl Write, features: &Features) -> io::Result<()> {
    writeln!(out)?;
    writeln!(out, "{BOLD}Features{BOLD:#}")?;
    for (name, shape, first) in &features.shapes {
        let what = match name.as_str() {
            "last_hidden_state" => "a vector for each token, in its context",
            "pooler_output" => "a vector for each text, from its first token",
            _ => "",
        };
        let first: Vec<String> = first.iter().map(|x| format!("{x:.4}")).collect();
        writeln!(out, "  {name:<17} {:<12} {what}: {} …", dimensions(shape), first.join(" "))?;
    }
    if let Some([near, far]) = features.similarity {
        let [a, b, c, _] = SENTENCES;
        writeln!(
            out,
            "  mean over tokens, as an embedding of \"{a}\": cosine {near:.3} with \"{b}\", {far:.3} with \"{c}\""
        )?;
    }
    Ok(())
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

fn dimensions(shape: &[usize]) -> String {
    if shape.is_empty() {
        return "scalar".into();
    }
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("×")
}

/// So many of something, with an s where it belongs.
fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

fn milliseconds(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

/// A table without lines, indented, with the columns `numbers` aligned to the right and no blanks at the ends of its lines.
pub fn table(
    out: &mut impl Write,
    header: &[&str],
    numbers: Range<usize>,
    rows: impl Iterator<Item = Vec<String>>,
) -> io::Result<()> {
    let mut table = Table::new();
    // A line break within a cell would be a line of the table.
    let rows = rows.map(|cells| cells.iter().map(|cell| inert(cell)).collect::<Vec<_>>());
    table.load_style(TableStyle::new()).set_header(header).add_rows(rows);
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for line in table.lines() {
        writeln!(out, " {}", line.trim_end())?;
    }
    Ok(())
}
