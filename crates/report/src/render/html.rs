//! A report as one HTML page that needs nothing else: no script, no font, no picture from
//! elsewhere.

mod chart;
mod strip;
mod tables;
mod tokens;

use super::heat::Grid;
use super::words::{MESSAGE, NAME, capital, count, escaped, headline, number, or_dash, some};
use super::{Graph, graphs};
use crate::{Culprit, DEFAULT_PROOF_TOL, Report, TokenErrors, TokenizerReport, Verdict};

const STYLE: &str = include_str!("html/page.css");

/// As many nodes of a culprit are named.
const NODES: usize = 24;

/// A report as one HTML page, for light and dark screens, wide and narrow, and for paper.
pub fn html(report: &Report) -> String {
    let graphs = graphs(report);
    let several = graphs.len() > 1;
    let bodies: String = graphs.iter().map(|graph| body(graph, report, several)).collect();
    let title = format!("parity: {} – {}", report.verdict, escaped(&report.model, NAME));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         {}<main>\n{bodies}{}</main>\n{}</body>\n</html>\n",
        header(report),
        shared(report),
        footer(report)
    )
}

/// A sign and a word for a verdict: the sign is for those who do not see the colour.
fn badge(verdict: Verdict) -> String {
    let sign = match verdict {
        Verdict::Pass => "✓",
        Verdict::Rounding => "≈",
        Verdict::Fail => "✗",
        Verdict::Inconclusive => "?",
        Verdict::Error => "!",
    };
    format!("<span class=\"badge {verdict}\"><span aria-hidden=\"true\">{sign}</span> {verdict}</span>")
}

fn header(report: &Report) -> String {
    let sentence = prose(&capital(&headline(report)));
    let sides = match &report.onnx {
        Some(onnx) if report.graphs.is_empty() => {
            format!("<dt>Graph</dt><dd>{}</dd>", code(onnx))
        }
        _ if !report.graphs.is_empty() => format!("<dt>Graphs</dt><dd>{}</dd>", report.graphs.len()),
        _ => String::new(),
    };
    let tokens = report.inputs.iter().fold(0usize, |sum, input| sum.saturating_add(input.tokens));
    let inputs = if report.inputs.is_empty() {
        String::new()
    } else {
        format!("<dt>Inputs</dt><dd>{} with {}</dd>", report.inputs.len(), count(tokens, "token"))
    };
    format!(
        "<header class=\"{verdict}\">\n<p class=\"what\">parity report</p>\n<h1>{}<span class=\"sentence\">{sentence}.</span></h1>\n\
         <dl class=\"sides\"><dt>Checkpoint</dt><dd>{}</dd>{sides}{inputs}</dl>\n</header>\n",
        badge(report.verdict),
        code(&report.model),
        verdict = report.verdict
    )
}

/// All about one graph.
fn body(graph: &Graph, report: &Report, several: bool) -> String {
    let mut sections = vec![figures(graph, report.atol)];
    if let Some(explanation) = &graph.explanation {
        let text = format!("<p>The whole is explained by {}.</p>", prose(explanation));
        sections.push(section("What it comes from", &text));
    }
    if !graph.culprits.is_empty() {
        let items: String = graph.culprits.iter().map(|culprit| self::culprit(culprit, graph)).collect();
        sections.push(section(
            "Where it parts from the checkpoint",
            &format!(
                "<p>In the order of execution. A module's own error is what it is off when it is given what the checkpoint gives it.</p>\n\
                 <ol class=\"culprits\">{items}</ol>"
            ),
        ));
    }
    if let Some(proof) = graph.proof {
        sections.push(section("Proof in f64", &tables::proof(proof)));
    }
    sections.extend(graph.checks.iter().map(|check| {
        let dtype = if check.dtype.is_empty() { String::new() } else { format!(" in {}", check.dtype) };
        let title = escaped(&format!("Engine {}{dtype}", check.engine), NAME);
        section(&title, &tables::check(check, report.atol))
    }));
    if let Some(located) = &graph.located {
        let allowed = graph.proof.map_or(DEFAULT_PROOF_TOL, |proof| proof.tol);
        let grid = Grid::new(located, allowed);
        let input = escaped(&located.input, NAME);
        let body = format!(
            "<p>On input “{input}”, both sides in f64. The bound is {allowed:e}, times the module's largest value where that is above 1.</p>\n{}{}{}",
            strip::strip(&grid),
            chart::chart(&grid, &graph.culprits),
            tables::modules(&grid)
        );
        sections.push(section("Error by module", &body));
    }
    if !graph.tokens.is_empty() {
        let picture = |tokens| tokens::picture(tokens, allowed_at(graph, tokens, report.atol));
        let pictures: String = graph.tokens.iter().map(picture).collect();
        sections.push(section("Error by token", &pictures));
    }
    if let Some(conversion) = &graph.precision {
        sections.push(section("Loss of precision", &tables::loss(conversion)));
    }
    if let Some(audit) = &graph.weights {
        sections.push(section("Weights", &tables::audit(audit)));
    }
    if !graph.relations.is_empty() {
        sections.push(section("What must change nothing", &tables::relations(&graph.relations)));
    }
    if !graph.stress.is_empty() {
        sections.push(section("Under stress", &tables::stress(&graph.stress)));
    }
    if let Some(proof) = graph.proof.filter(|proof| !proof.promoted.is_empty()) {
        sections.push(section("Constants taken for what they mean", &tables::promoted(proof)));
    }
    let sections = sections.concat();
    if several {
        format!(
            "<article>\n<h2 class=\"graph\">{} {}</h2>\n{sections}</article>\n",
            badge(graph.verdict),
            code(graph.onnx)
        )
    } else {
        sections
    }
}

/// What a value of an output may be off: in f64 the proof's bound, on an engine the tolerance or
/// what rounding explains.
fn allowed_at(graph: &Graph, tokens: &TokenErrors, atol: f64) -> f64 {
    if tokens.side == "f64" {
        let Some(proof) = graph.proof else { return DEFAULT_PROOF_TOL };
        let output = proof.outputs.iter().find(|output| output.name == tokens.output);
        let scale = output.and_then(|output| Some(output.max_abs? / output.max_rel?));
        return proof.tol * scale.filter(|scale| scale.is_finite()).unwrap_or(1.0).max(1.0);
    }
    let check = graph.checks.iter().find(|check| check.engine == tokens.side);
    let output = check.and_then(|check| check.outputs.iter().find(|output| output.name == tokens.output));
    output.and_then(|output| output.budget).map_or(atol, |budget| budget.max(atol))
}

/// The numbers that matter most.
fn figures(graph: &Graph, atol: f64) -> String {
    let mut figures = Vec::new();
    let mut figure = |value: String, what: String, verdict: Verdict| {
        figures.push(format!(
            "<li class=\"{verdict}\"><strong>{value}</strong> <span>{what}</span> {}</li>\n",
            badge(verdict)
        ));
    };
    if let Some(proof) = graph.proof {
        let value = proof.max_rel.map_or("–".into(), number);
        figure(value, format!("off in f64, relative; the bound is {:e}", proof.tol), proof.verdict);
    }
    for check in graph.checks {
        let all: Option<Vec<f64>> = check.outputs.iter().map(|output| output.max_abs).collect();
        let worst = all.and_then(|all| all.into_iter().reduce(f64::max));
        let what = format!("off on {} in {}; the tolerance is {atol:e}", check.engine, check.dtype);
        figure(worst.map_or("–".into(), number), escaped(&what, NAME), check.verdict);
    }
    if let Some(audit) = &graph.weights {
        let all = audit.tensors() + audit.untraced.len();
        figure(
            format!("{} of {all}", audit.tensors()),
            "tensors of the checkpoint found in the graph".into(),
            audit.verdict,
        );
    }
    format!("<ul class=\"figures\">\n{}</ul>\n", figures.concat())
}

fn culprit(culprit: &Culprit, graph: &Graph) -> String {
    let explanation = culprit.explanation.as_ref().map_or(String::new(), |explanation| {
        format!("<p class=\"explanation\"><strong>Explained by</strong> {}</p>\n", prose(explanation))
    });
    let nodes = match culprit.nodes.as_slice() {
        [] => String::new(),
        nodes => format!("<dt>Nodes</dt><dd>{}</dd>", some(nodes, NODES, code)),
    };
    let inherited = graph.inherited(&culprit.module).map_or(String::new(), |inherited| {
        format!("<dt>In the plain run</dt><dd>{}</dd>", number(inherited))
    });
    format!(
        "<li>\n<h3>{}</h3>\n{explanation}<dl><dt>Own error</dt><dd>{}</dd>{inherited}{nodes}</dl>\n</li>\n",
        code(&culprit.module),
        or_dash(culprit.max_abs)
    )
}

/// What all graphs have in common.
fn shared(report: &Report) -> String {
    let mut sections = Vec::new();
    if !report.inputs.is_empty() {
        sections.push(section("Inputs", &tables::inputs(&report.inputs)));
    }
    if let Some(timing) = report.timing.as_ref().filter(|timing| !timing.results.is_empty()) {
        sections.push(section("Time", &tables::timing(timing)));
    }
    if let Some(sentence) = report.tokenizer.as_ref().and_then(TokenizerReport::sentence) {
        sections.push(section("Two tokenizers", &format!("<p>{}.</p>", prose(&sentence))));
    }
    if !report.folder.is_empty() {
        let lines = report.folder.iter().map(|difference| prose(&difference.sentence()));
        let lines: String = lines.map(|line| format!("<li>{line}</li>\n")).collect();
        sections.push(section("The exported folder says something else", &format!("<ul>{lines}</ul>")));
    }
    if !report.notes.is_empty() {
        let notes: String = report.notes.iter().map(|note| format!("<li>{}</li>\n", prose(note))).collect();
        sections.push(section("Notes", &format!("<ul>{notes}</ul>")));
    }
    if let Some(command) = &report.command {
        let command = escaped(command, MESSAGE);
        sections.push(section("How to see this again", &format!("<pre><code>{command}</code></pre>")));
    }
    sections.concat()
}

fn footer(report: &Report) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "<footer><p>Written by parity {version}. The same as data, with every digit: <code>--json</code>, {}.</p></footer>\n",
        report.schema
    )
}

/// Sentences, in which no number is broken at its exponent.
fn prose(text: &str) -> String {
    let escaped = escaped(text, MESSAGE);
    let word = |word: &str| {
        let number = word.starts_with(|letter: char| letter.is_ascii_digit()) && word.contains("e-");
        if number { format!("<span class=\"number\">{word}</span>") } else { word.into() }
    };
    escaped.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// A part of the page; the title is escaped already.
fn section(title: &str, body: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{body}\n</section>\n")
}

/// A name. A break is allowed after each separator, so that a long one does not widen the page.
fn code(name: &str) -> String {
    let name = escaped(name, NAME);
    let mut out = String::from("<code>");
    for letter in name.chars() {
        out.push(letter);
        if matches!(letter, '/' | '.' | '_') {
            out += "<wbr>";
        }
    }
    out + "</code>"
}
