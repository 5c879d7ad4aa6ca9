//! The tables of the page.

use super::super::heat::Grid;
use super::super::words::{
    MESSAGE, NAME, capital, count, dimensions, distance, escaped, layout, number, or_dash, proof_word,
    relation_word, remarks, scope_word, some, structure,
};
use super::{badge, code, prose};
use crate::{
    Audit, Conversion, EngineCheck, InputSummary, OutputReport, Proof, Relation, Stress, TimingReport,
    Verdict,
};

/// As many rows of a table are written. A BERT-large has 391 tensors.
const ROWS: usize = 500;

/// As many nodes are named in a row.
const NODES: usize = 2;

/// A table whose columns, but for those in `words`, are numbers. Headings and cells are HTML.
fn table(headings: &[&str], words: &[usize], rows: impl ExactSizeIterator<Item = Vec<String>>) -> String {
    let class = |column: usize| if words.contains(&column) { "" } else { " class=\"n\"" };
    let cells = |element: &str, cells: &[String]| -> String {
        let cells = cells.iter().enumerate();
        cells
            .map(|(column, cell)| format!("<{element}{}>{cell}</{}>", class(column), &element[..2]))
            .collect()
    };
    let head = cells("th scope=\"col\"", &headings.iter().map(|&heading| heading.into()).collect::<Vec<_>>());
    let more = rows.len().saturating_sub(ROWS);
    let body: String = rows.take(ROWS).map(|row| format!("<tr>{}</tr>\n", cells("td", &row))).collect();
    let more =
        if more == 0 { String::new() } else { format!("<p>{more} more are in the JSON report.</p>\n") };
    format!(
        "<div class=\"wide\" tabindex=\"0\"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n{more}"
    )
}

fn details(summary: &str, body: &str) -> String {
    format!("<details><summary>{summary}</summary>\n{body}</details>\n")
}

fn text(text: &str) -> String {
    escaped(text, NAME)
}

fn index(index: Option<&[usize]>) -> String {
    index.map_or(String::new(), |index| {
        let index: Vec<String> = index.iter().map(ToString::to_string).collect();
        format!(" at [{}]", index.join(", "))
    })
}

/// Where an output is furthest off.
fn place(input: Option<&String>, at: Option<&Vec<usize>>) -> String {
    input.map_or("–".into(), |input| {
        format!("<span class=\"place\">{}{}</span>", text(input), index(at.map(Vec::as_slice)))
    })
}

/// A value with the digits that matter, of f64 or f32.
fn value(x: Option<f64>, digits: usize) -> String {
    x.map_or("not finite".into(), |x| format!("{x:.digits$}"))
}

pub(super) fn proof(proof: &Proof) -> String {
    let mut out = format!(
        "<p>Checkpoint and graph, both computed in f64 by code that shares no kernel: the proof <strong>{}{}</strong>. They may be {:e} apart, times the largest value where \
         that is above 1.</p>\n",
        proof_word(proof.verdict),
        scope_word(proof),
        proof.tol
    );
    for sentence in structure(proof) {
        out += &format!("<p>{}.</p>\n", escaped(&capital(&sentence), MESSAGE));
    }
    if let Some(failure) = &proof.failure {
        out += &format!("<p class=\"complaint\">{}</p>\n", escaped(failure, MESSAGE));
    }
    if !proof.outputs.is_empty() {
        let rows = proof.outputs.iter().map(|output| {
            let compared = output.compared > 0;
            vec![
                code(&output.name),
                distance(output.max_abs, output.compared),
                or_dash(output.max_rel),
                output.compared.to_string(),
                place(output.worst_input.as_ref(), output.worst_index.as_ref()),
                if compared { value(output.reference, 15) } else { "–".into() },
                if compared { value(output.candidate, 15) } else { "–".into() },
                badge(output.verdict),
            ]
        });
        let headings =
            ["output", "max |Δ|", "relative", "values", "furthest", "checkpoint there", "graph there", ""];
        out += &table(&headings, &[0, 4, 7], rows);
    }
    for output in &proof.outputs {
        if let Some(mismatch) = &output.mismatch {
            out += &format!(
                "<p class=\"complaint\">{}: {}</p>\n",
                code(&output.name),
                escaped(mismatch, MESSAGE)
            );
        }
    }
    let failing = proof.failing_inputs();
    if !failing.is_empty() {
        out += &format!("<p>Beyond the bound on: {}.</p>\n", escaped(&failing.join(", "), MESSAGE));
    }
    out
}

pub(super) fn check(check: &EngineCheck, atol: f64) -> String {
    let mut out = String::new();
    if let Some(failure) = &check.failure {
        out += &format!("<p class=\"complaint\">{}</p>\n", escaped(failure, MESSAGE));
    }
    if !check.outputs.is_empty() {
        let row = |output: &OutputReport| {
            vec![
                code(&output.name),
                distance(output.max_abs, output.compared),
                or_dash(output.budget),
                output.worst_ulp.map_or("–".into(), |ulp| ulp.to_string()),
                output.cosine.map_or("–".into(), |cosine| format!("{cosine:.9}")),
                format!("{} of {}", output.beyond_atol, output.compared),
                place(output.worst_input.as_ref(), output.worst_index.as_ref()),
                match output.padding.compared {
                    0 => "–".into(),
                    compared => distance(output.padding.max_abs, compared),
                },
                badge(output.verdict),
            ]
        };
        let beyond = format!("beyond {atol:e}");
        let headings = [
            "output",
            "max |Δ|",
            "rounding explains",
            "in ULP",
            "cosine",
            &beyond,
            "furthest",
            "at padding",
            "",
        ];
        out += &table(&headings, &[0, 6, 8], check.outputs.iter().map(row));
    }
    let lines: String = remarks(check, atol).map(|line| format!("<li>{}</li>\n", prose(&line))).collect();
    if lines.is_empty() { out } else { out + &format!("<ul>\n{lines}</ul>") }
}

/// All modules with their numbers, folded away.
pub(super) fn modules(grid: &Grid) -> String {
    let cells: Vec<_> = grid.cells().collect();
    let rows = cells.iter().map(|cell| {
        let module = cell.module;
        let name = code(&module.module);
        vec![
            if module.culprit { format!("<strong>{name}, a culprit</strong>") } else { name },
            or_dash(module.own),
            or_dash(module.inherited),
            or_dash(module.single),
            number(module.scale),
            module.value.as_deref().map_or("none".into(), code),
            some(&module.nodes, NODES, code),
        ]
    });
    let headings = ["module", "own", "inherited", "f32", "largest value", "carried by", "nodes"];
    details(&format!("All {}", count(cells.len(), "module")), &table(&headings, &[0, 5, 6], rows))
}

pub(super) fn audit(audit: &Audit) -> String {
    let mut out = format!(
        "<p>{} Of the checkpoint's tensors {} were found in the graph by their elements, {} not; {} of the graph's floats have no known origin.</p>\n",
        badge(audit.verdict),
        audit.tensors(),
        audit.untraced.len(),
        audit.leftover.len()
    );
    if !audit.findings.is_empty() {
        let rows = audit.findings.iter().map(|finding| {
            let word = if finding.fails { badge(Verdict::Fail) } else { "note".into() };
            vec![word, finding.module.as_deref().map_or("–".into(), code), escaped(&finding.message, MESSAGE)]
        });
        out += &table(&["", "module", "finding"], &[0, 1, 2], rows);
    }
    let names = |names: &[String]| -> String {
        let names: String =
            names.iter().take(ROWS).map(|name| format!("<li>{}</li>\n", code(name))).collect();
        format!("<ul>\n{names}</ul>\n")
    };
    if !audit.untraced.is_empty() {
        let title = format!("{} of the checkpoint not in the graph", count(audit.untraced.len(), "tensor"));
        out += &details(&title, &names(&audit.untraced));
    }
    if !audit.unused.is_empty() {
        let title =
            format!("{} of heads, which the base model does not use", count(audit.unused.len(), "tensor"));
        out += &details(&title, &names(&audit.unused));
    }
    if !audit.leftover.is_empty() {
        let rows = audit.leftover.iter().map(|leftover| {
            vec![
                code(&leftover.name),
                text(&leftover.dtype),
                dimensions(&leftover.shape),
                or_dash(leftover.least),
                or_dash(leftover.greatest),
                leftover.used_by.as_deref().map_or("–".into(), text),
            ]
        });
        let table = table(&["name", "dtype", "shape", "least", "greatest", "used by"], &[0, 1, 2, 5], rows);
        out += &details("Floats of the graph without a known origin", &table);
    }
    let rows = audit.traced.iter().map(|trace| {
        vec![
            code(&trace.tensor),
            code(&trace.initializer),
            text(&layout(trace)),
            distance(trace.max_abs, trace.compared),
            trace.max_ulp.map_or("–".into(), |ulp| ulp.to_string()),
            format!("{} of {}", trace.differing, trace.compared),
            if trace.exact { "exact".into() } else { "not exact".into() },
        ]
    });
    let headings = ["tensor", "carried by", "how", "max |Δ|", "in ULP", "differing", ""];
    out += &details(
        &format!("All {} that carry a tensor", count(audit.traced.len(), "place")),
        &table(&headings, &[0, 1, 2, 6], rows),
    );
    if !audit.constants.is_empty() {
        let rows = audit.constants.iter().map(|constant| {
            let origin = format!("{:?}", constant.origin);
            vec![
                code(&constant.name),
                constant.value.map_or("not finite".into(), |x| format!("{x:e}")),
                text(&origin),
            ]
        });
        let table = table(&["constant", "value", "what it is"], &[0, 2], rows);
        out += &details(&format!("{} with a known origin", count(audit.constants.len(), "constant")), &table);
    }
    out
}

pub(super) fn relations(relations: &[Relation]) -> String {
    let row = |relation: &Relation| {
        let word = escaped(&relation_word(relation), MESSAGE);
        let word = if relation.is_violated() { format!("<strong>{word}</strong>") } else { word };
        vec![
            text(&relation.name),
            text(&relation.side),
            text(&relation.input),
            or_dash(relation.max_abs),
            word,
        ]
    };
    let violated = relations.iter().filter(|relation| relation.is_violated());
    let shown: Vec<&Relation> = violated.collect();
    let headings = ["what is done", "side", "input", "changes by", ""];
    let all = table(&headings, &[0, 1, 2, 4], relations.iter().map(row));
    let judged = relations.iter().filter(|relation| relation.skipped.is_none()).count();
    let sentence = match shown.len() {
        0 => format!(
            "<p>Padding, neighbours in a batch, their order and the number of threads change nothing: {judged} of {} trials were judged, and hold.</p>\n",
            relations.len()
        ),
        _ => format!(
            "<p>{} of {judged} trials change what they must not:</p>\n{}",
            shown.len(),
            table(&headings, &[0, 1, 2, 4], shown.into_iter().map(row))
        ),
    };
    sentence + &details(&format!("All {}", count(relations.len(), "trial")), &all)
}

/// What a conversion on purpose costs.
pub(super) fn loss(conversion: &Conversion) -> String {
    let rows = conversion.loss.iter().map(|loss| {
        vec![
            code(&loss.output),
            text(&loss.engine),
            or_dash(loss.max_abs),
            or_dash(loss.mean_abs),
            or_dash(loss.max_rel),
            loss.cosine.map_or("–".into(), |cosine| format!("{cosine:.7}")),
        ]
    });
    let sentence = "<p>The graph as it runs, against the checkpoint itself in f64. It decides nothing.</p>\n";
    sentence.to_string()
        + &table(&["output", "on", "max |Δ|", "mean |Δ|", "relative", "cosine"], &[0, 1], rows)
}

pub(super) fn stress(stress: &[Stress]) -> String {
    let row = |stress: &Stress| {
        vec![
            text(&stress.engine),
            text(&stress.module),
            or_dash(stress.max_abs),
            number(stress.bound),
            text(&stress.verdict.to_string()),
        ]
    };
    let all =
        table(&["engine", "module", "max |Δ|", "allowed", "verdict"], &[0, 1, 4], stress.iter().map(row));
    let sentence = "<p>Each LayerNorm alone, on rows whose mean is 1024 times their deviation.</p>\n";
    sentence.to_string() + &details(&format!("All {}", count(stress.len(), "trial")), &all)
}

pub(super) fn promoted(proof: &Proof) -> String {
    let rows = proof.promoted.iter().map(|promoted| {
        vec![
            code(&promoted.name),
            text(&promoted.meaning),
            format!("{:?}", promoted.from),
            format!("{:?}", promoted.to),
        ]
    });
    let table = table(&["constant", "is", "in the graph", "taken for"], &[0, 1], rows);
    format!(
        "<p>A file holds √2 only as an f32. In the proof such a constant stands for the number that it is the rounding of.</p>\n{}",
        details(&count(proof.promoted.len(), "constant"), &table)
    )
}

pub(super) fn inputs(inputs: &[InputSummary]) -> String {
    let rows = inputs
        .iter()
        .map(|input| vec![text(&input.name), dimensions(&input.shape), input.tokens.to_string()]);
    table(&["input", "shape", "tokens"], &[0, 1], rows)
}

pub(super) fn timing(timing: &TimingReport) -> String {
    let rows = timing.results.iter().map(|result| {
        vec![
            text(&result.engine),
            format!("{:.2} ms", result.median_ms),
            format!("{:.2} ms", result.p90_ms),
            result.runs.to_string(),
            result.threads.to_string(),
        ]
    });
    format!(
        "<p>On “{}”, in turn; to give an idea, <code>parity bench</code> measures.</p>\n{}",
        text(&timing.input),
        table(&["engine", "median", "p90", "runs", "threads"], &[0], rows)
    )
}
