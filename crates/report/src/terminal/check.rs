//! A check, as a person reads it.

use std::io::{self, Write};

use super::{BOLD, DIM, color, milliseconds, modules, table};
use crate::render::headline;
use crate::render::words::{count, dimensions, nearer, proof_word, scope, scope_word, structure};
use crate::{
    Conversion, EngineCheck, Expect, Feature, Features, InputSummary, Loss, OutputReport, Proof, ProofOutput,
    Recorded, Report, Similar, Similarity, Timing, TimingReport, Verdict,
};

/// Writes the report of a check.
///
/// # Errors
/// Those of the writer.
pub fn report(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let style = color(report.verdict);
    let verdict = report.verdict.to_string().to_uppercase();
    // The words after a verdict that holds belong to it.
    let gap = if scope(report).is_some() { " " } else { "  " };
    writeln!(out, "{style}{verdict}{style:#}{gap}{}", headline(report))?;
    writeln!(out)?;
    let reference = report.reference.as_ref().map_or(String::new(), |side| format!(", {}", side.text));
    writeln!(out, "  {DIM}reference{DIM:#}  {}{reference}", report.model)?;
    // The checks of one graph stand together.
    for checks in report.checks.chunk_by(|a, b| a.onnx == b.onnx) {
        let engines: Vec<&str> = checks.iter().map(|check| check.engine.as_str()).collect();
        let onnx = &checks[0].onnx;
        let graph = checks[0].graph.as_ref().map_or(String::new(), |graph| format!(" ({graph})"));
        writeln!(out, "  {DIM}graph{DIM:#}      {onnx}{graph}, on {}", engines.join(" and "))?;
    }
    let input = |input: &InputSummary| format!("{} {}", input.name, dimensions(&input.shape));
    let inputs: Vec<String> = report.inputs.iter().map(input).collect();
    if !inputs.is_empty() {
        writeln!(out, "  {DIM}inputs{DIM:#}     {}", inputs.join(", "))?;
    }
    if let Some(proof) = &report.proof {
        self::proof(out, proof, report.precision.is_some())?;
    }
    for check in &report.checks {
        self::check(out, check, report.checks.len() > 1)?;
    }
    if let Some(precision) = &report.precision {
        loss(out, precision)?;
    }
    if !report.recorded.is_empty() {
        recorded(out, &report.recorded)?;
    }
    modules::modules(out, report)?;
    modules::findings(out, report)?;
    if let Some(timing) = &report.timing {
        self::timing(out, timing)?;
    }
    if let Some(features) = &report.features {
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
    let word = proof_word(proof.verdict);
    writeln!(out)?;
    writeln!(
        out,
        "{BOLD}Proof in f64{BOLD:#}  {style}{word}{}{style:#} {DIM}(at most {:e}, relative to values above 1){DIM:#}",
        scope_word(proof),
        proof.tol
    )?;
    for sentence in structure(proof) {
        writeln!(out, "  {sentence}")?;
    }
    if let Some(failure) = &proof.failure {
        writeln!(out, "  {failure}")?;
    }
    if !proof.outputs.is_empty() {
        let row = |output: &ProofOutput| {
            vec![
                output.name.clone(),
                scientific(output.max_abs, "not finite"),
                scientific(output.max_rel, "not finite"),
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
            match counts.iter_mut().find(|(meaning, _)| *meaning == &*promoted.meaning) {
                Some((_, count)) => *count += 1,
                None => counts.push((&promoted.meaning, 1)),
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
    let row = |side: &Recorded, output: &OutputReport| {
        vec![
            side.side.clone(),
            side.engine.clone(),
            side.dtype.clone(),
            output.name.clone(),
            scientific(output.max_abs, "–"),
            scientific(output.budget, "–"),
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
        if let Some(nearer) = output.truth.as_ref().and_then(|truth| nearer(truth, "the reference")) {
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

fn row(output: &OutputReport) -> Vec<String> {
    vec![
        output.name.clone(),
        scientific(output.max_abs, "–"),
        scientific(output.budget, "–"),
        output.worst_ulp.map_or("–".into(), |ulp| ulp.to_string()),
        scientific(output.max_rel, "–"),
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
    for Feature { name, shape, first } in &features.outputs {
        let what = match name.as_str() {
            "last_hidden_state" => "a vector for each token, in its context",
            "pooler_output" => "a vector for each text, from its first token",
            _ => "",
        };
        let value = |x: &Option<f64>| x.map_or("not finite".into(), |x| format!("{x:.4}"));
        let first: Vec<String> = first.iter().map(value).collect();
        writeln!(out, "  {name:<17} {:<12} {what}: {} …", dimensions(shape), first.join(" "))?;
    }
    if let Some(Similarity { text, to }) = &features.similarity {
        let cosine = |x: Option<f32>| x.map_or("not finite".into(), |x| format!("{x:.3}"));
        let near = |other: &Similar| format!("{} with \"{}\"", cosine(other.cosine), other.text);
        let to: Vec<String> = to.iter().map(near).collect();
        writeln!(out, "  mean over tokens, as an embedding of \"{text}\": cosine {}", to.join(", "))?;
    }
    Ok(())
}

/// The loss of each output, on each side.
fn loss(out: &mut impl Write, conversion: &Conversion) -> io::Result<()> {
    let what = match conversion.expect {
        Expect::F16 => "half precision",
        Expect::Int8 => "eight bits",
        Expect::Int4 => "four bits",
        Expect::Exact => "no conversion",
    };
    writeln!(out)?;
    writeln!(
        out,
        "{BOLD}Loss by {what}{BOLD:#}  {DIM}the graph as it runs, against the checkpoint itself in f64; it decides nothing{DIM:#}"
    )?;
    let row = |loss: &Loss| {
        vec![
            loss.output.clone(),
            loss.engine.clone(),
            scientific(loss.max_abs, "not finite"),
            scientific(loss.mean_abs, "not finite"),
            scientific(loss.max_rel, "not finite"),
            loss.cosine.map_or("not finite".into(), |x| format!("{x:.7}")),
        ]
    };
    table(
        out,
        &["output", "on", "max |Δ|", "mean |Δ|", "relative", "cosine"],
        2..6,
        conversion.loss.iter().map(row),
    )
}

/// A number, or what stands in its place.
fn scientific(x: Option<f64>, none: &str) -> String {
    x.map_or(none.into(), |x| format!("{x:.2e}"))
}
