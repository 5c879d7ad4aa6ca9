//! Where a graph parts from its checkpoint, for a terminal.

use std::io::{self, Write};

use super::{BOLD, DIM, Paint, Painted};
use crate::render::heat::{Grid, Heat};
use crate::render::words::some;
use crate::{DEFAULT_PROOF_TOL, Report, Verdict};
use anstyle::{AnsiColor, Style};

/// As many nodes of a culprit are named.
const NODES: usize = 4;

fn color(heat: Heat) -> Style {
    match heat {
        Heat::Unknown => Style::new().dimmed(),
        Heat::Cold => AnsiColor::Green.on_default().dimmed(),
        Heat::Within => AnsiColor::Green.on_default(),
        Heat::Beyond => AnsiColor::Yellow.on_default(),
        Heat::Far => AnsiColor::Red.on_default(),
        Heat::Off => AnsiColor::Red.on_default().bold(),
    }
}

/// The strip, and what is known about each culprit.
pub(super) fn modules(out: &mut impl Write, report: &Report) -> io::Result<()> {
    if let Some(located) = &report.located {
        writeln!(out)?;
        writeln!(
            out,
            "{BOLD}Modules{BOLD:#}  {DIM}what each is off by itself in f64, over its largest value above 1, on '{}'{DIM:#}",
            located.input
        )?;
        let paint = |heat: Heat, glyph: &str| {
            let style = color(heat);
            format!("{style}{glyph}{style:#}")
        };
        let allowed = report.proof.as_ref().map_or(DEFAULT_PROOF_TOL, |proof| proof.tol);
        for line in Grid::new(located, allowed).lines(paint) {
            writeln!(out, "  {}", Painted(&line))?;
        }
    }
    if let Some(explanation) = &report.explanation {
        writeln!(out)?;
        writeln!(out, "{BOLD}Explained by{BOLD:#}  {explanation}")?;
    }
    for culprit in &report.culprits {
        writeln!(out)?;
        let error =
            |x: Option<f64>| x.map_or("an error that no value shows".into(), |x| format!("{x:.1e} off"));
        let inherited = report.inherited(&culprit.module);
        let inherited = inherited.map_or(String::new(), |x| format!(", {x:.1e} in the plain run"));
        let red = Paint::new(color(Heat::Off));
        writeln!(out, "{red}{}{red:#}  {} by itself{inherited}", culprit.module, error(culprit.max_abs))?;
        if !culprit.nodes.is_empty() {
            writeln!(out, "  nodes         {}", some(&culprit.nodes, NODES, str::to_string))?;
        }
        if let Some(explanation) = &culprit.explanation {
            writeln!(out, "  explained by  {explanation}")?;
        }
    }
    Ok(())
}

/// What does not matter for any one module: relations that do not hold, and tokenizers that differ.
pub(super) fn findings(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let red = Paint::new(color(Heat::Off));
    let violated: Vec<_> = report.relations.iter().filter(|relation| relation.is_violated()).collect();
    if !violated.is_empty() {
        writeln!(out)?;
        writeln!(out, "{BOLD}What should not matter, and does{BOLD:#}")?;
    }
    for relation in violated {
        let change = match (&relation.failure, relation.max_abs) {
            (Some(failure), _) => failure.clone(),
            (None, Some(max_abs)) => format!("changes by {max_abs:.1e}"),
            (None, None) => "not finite".into(),
        };
        writeln!(
            out,
            "  {red}{}{red:#} on '{}', {}: {change}",
            relation.name, relation.input, relation.side
        )?;
    }
    let strained: Vec<_> = report.stress.iter().filter(|stress| stress.verdict == Verdict::Fail).collect();
    if !strained.is_empty() {
        writeln!(out)?;
        writeln!(out, "{BOLD}Under stress{BOLD:#}")?;
    }
    for stress in strained {
        writeln!(out, "  {red}{}{red:#}", stress.sentence())?;
    }
    if let Some(tokenizer) = &report.tokenizer {
        if let Some(sentence) = tokenizer.sentence() {
            writeln!(out)?;
            writeln!(out, "{red}Tokenizer{red:#}  {sentence}")?;
        }
        for note in &tokenizer.notes {
            writeln!(out, "{DIM}note: {note}{DIM:#}")?;
        }
    }
    if !report.folder.is_empty() {
        writeln!(out)?;
        writeln!(out, "{BOLD}The exported folder says something else{BOLD:#}")?;
    }
    for difference in &report.folder {
        let red = if difference.fails { red } else { DIM };
        writeln!(out, "  {red}{}{red:#}", difference.sentence())?;
    }
    Ok(())
}
