//! A report as GitHub's Markdown: short enough for a step summary or a comment.

use super::heat::Grid;
use super::words::{
    MESSAGE, NAME, capital, count, dimensions, distance, headline, or_dash, proof_word, relation_word,
    remarks, scope_word, shown, some, strained, structure,
};
use super::{Graph, graphs};
use crate::{
    Audit, Conversion, Culprit, DEFAULT_PROOF_TOL, EngineCheck, Promoted, Proof, Report, TokenizerReport,
};

/// GitHub cuts a comment at 65,536 characters; a step summary may hold 16 times that.
const LIMIT: usize = 60_000;

/// As many rows of a table are shown.
const ROWS: usize = 40;

/// As many nodes of a culprit are named.
const NODES: usize = 6;

/// A report as GitHub's Markdown, below 64 KB: the verdict in a sentence, a table for each thing
/// that was judged, and details folded away.
pub fn markdown(report: &Report) -> String {
    let mut out = Document::default();
    let verdict = report.verdict.to_string().to_uppercase();
    out.block(format!("## parity: {verdict}\n\n{}.\n", plain(&capital(&headline(report)), MESSAGE)));
    let graphs = graphs(report);
    let several = graphs.len() > 1;
    for graph in &graphs {
        if several {
            out.block(format!("### {}: {}\n", code(graph.onnx), graph.verdict));
        }
        self::graph(&mut out, graph, report.atol);
    }
    if let Some(sentence) = report.tokenizer.as_ref().and_then(TokenizerReport::sentence) {
        out.block(format!("#### Two tokenizers\n\n{}.\n", plain(&sentence, MESSAGE)));
    }
    if !report.folder.is_empty() {
        let lines = report.folder.iter().take(ROWS);
        let lines: Vec<String> =
            lines.map(|difference| format!("- {}\n", plain(&difference.sentence(), MESSAGE))).collect();
        out.block(format!("#### The exported folder says something else\n\n{}", lines.concat()));
    }
    if !report.inputs.is_empty() {
        let rows = report
            .inputs
            .iter()
            .map(|input| vec![plain(&input.name, NAME), dimensions(&input.shape), input.tokens.to_string()]);
        let table = table(&["input", "shape", "tokens"], 2..3, rows);
        out.block(details(&count(report.inputs.len(), "input"), &table));
    }
    if !report.notes.is_empty() {
        let notes: Vec<String> =
            report.notes.iter().take(ROWS).map(|note| format!("- {}\n", plain(note, MESSAGE))).collect();
        out.block(details(&count(report.notes.len(), "note"), &notes.concat()));
    }
    if let Some(command) = &report.command {
        out.block(format!("{}\n", code_block(&shown(command, MESSAGE))));
    }
    out.close()
}

/// A document that does not grow beyond [`LIMIT`].
#[derive(Default)]
struct Document {
    text: String,
    left_out: usize,
}

impl Document {
    /// Adds a block, unless it does not fit any more.
    fn block(&mut self, block: String) {
        if self.text.len() + block.len() > LIMIT {
            self.left_out += 1;
            return;
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text += &block;
    }

    fn close(mut self) -> String {
        if self.left_out > 0 {
            let parts = count(self.left_out, "part");
            self.text += &format!("\n*{parts} of this report did not fit; the JSON report has all.*\n");
        }
        self.text
    }
}

fn graph(out: &mut Document, graph: &Graph, atol: f64) {
    if let Some(explanation) = &graph.explanation {
        out.block(format!("Explained by {}.\n", plain(explanation, MESSAGE)));
    }
    if !graph.culprits.is_empty() {
        out.block(culprits(graph));
    }
    if let Some(proof) = graph.proof {
        self::proof(out, proof);
    }
    for check in graph.checks {
        self::check(out, check, atol);
    }
    if let Some(conversion) = &graph.precision {
        out.block(loss(conversion));
    }
    if let Some(audit) = &graph.weights {
        self::audit(out, audit);
    }
    if let Some(located) = &graph.located {
        let allowed = graph.proof.map_or(DEFAULT_PROOF_TOL, |proof| proof.tol);
        let strip = Grid::new(located, allowed).lines(|_, glyph| glyph.into()).join("\n");
        let text = format!(
            "What each module is off by itself in f64, over the larger of 1 and its largest value, on {}:\n\n{}",
            code(&located.input),
            code_block(&strip)
        );
        out.block(details("Error by module", &text));
    }
    let strained = strained(graph);
    if !strained.is_empty() {
        let lines: String = strained.iter().map(|line| format!("- {}\n", plain(line, MESSAGE))).collect();
        out.block(format!("#### Under stress\n\n{lines}"));
    }
    let violated: Vec<_> = graph.relations.iter().filter(|relation| relation.is_violated()).collect();
    if !violated.is_empty() {
        let rows = violated.iter().map(|relation| {
            let word = plain(&relation_word(relation), MESSAGE);
            vec![
                plain(&relation.name, NAME),
                plain(&relation.side, NAME),
                plain(&relation.input, NAME),
                or_dash(relation.max_abs),
                word,
            ]
        });
        let table = table(&["what must change nothing", "side", "input", "changes by", ""], 3..4, rows);
        out.block(format!("#### What should not matter, and does\n\n{table}"));
    }
}

/// What a conversion on purpose costs.
fn loss(conversion: &Conversion) -> String {
    let rows = conversion.loss.iter().map(|loss| {
        vec![
            code(&loss.output),
            plain(&loss.engine, NAME),
            or_dash(loss.max_abs),
            or_dash(loss.mean_abs),
            or_dash(loss.max_rel),
            loss.cosine.map_or("–".into(), |cosine| format!("{cosine:.7}")),
        ]
    });
    let headings = ["output", "on", "max |Δ|", "mean |Δ|", "relative", "cosine"];
    format!(
        "#### Loss of precision\n\nThe graph as it runs, against the checkpoint itself in f64. It decides nothing.\n\n{}",
        table(&headings, 2..6, rows)
    )
}

fn culprits(graph: &Graph) -> String {
    let row = |culprit: &Culprit| {
        vec![
            code(&culprit.module),
            or_dash(culprit.max_abs),
            or_dash(graph.inherited(&culprit.module)),
            some(&culprit.nodes, NODES, code),
            culprit.explanation.as_deref().map_or("–".into(), |explanation| plain(explanation, MESSAGE)),
        ]
    };
    let header = ["module", "own error", "in the plain run", "nodes", "explained by"];
    let table = table(&header, 1..3, graph.culprits.iter().map(row));
    format!("#### Where the graph parts from the checkpoint\n\n{table}")
}

fn proof(out: &mut Document, proof: &Proof) {
    let word = proof_word(proof.verdict);
    let mut text = format!(
        "#### The proof in f64 {word}{}\n\nAt most {:e}, relative to values above 1.\n",
        scope_word(proof),
        proof.tol
    );
    for sentence in structure(proof) {
        text += &format!("\n{}.\n", plain(&capital(&sentence), MESSAGE));
    }
    if let Some(failure) = &proof.failure {
        text += &format!("\n{}\n", plain(failure, MESSAGE));
    }
    if !proof.outputs.is_empty() {
        let rows = proof.outputs.iter().map(|output| {
            vec![
                code(&output.name),
                distance(output.max_abs, output.compared),
                or_dash(output.max_rel),
                output.compared.to_string(),
                output.worst_input.as_deref().map_or("–".into(), |input| plain(input, NAME)),
                output.mismatch.as_deref().map_or(output.verdict.to_string(), |why| {
                    format!("{}: {}", output.verdict, plain(why, MESSAGE))
                }),
            ]
        });
        let header = ["output", "max \\|Δ\\|", "relative", "values", "worst on", "verdict"];
        text += "\n";
        text += &table(&header, 1..4, rows);
    }
    out.block(text);
    if !proof.promoted.is_empty() {
        let mut groups: Vec<(&Promoted, usize)> = Vec::new();
        for promoted in &proof.promoted {
            let same = |other: &Promoted| (&other.meaning, other.from) == (&promoted.meaning, promoted.from);
            match groups.iter_mut().find(|(other, _)| same(other)) {
                Some((_, count)) => *count += 1,
                None => groups.push((promoted, 1)),
            }
        }
        let rows = groups.iter().map(|(promoted, count)| {
            let (from, to) = (format!("{:?}", promoted.from), format!("{:?}", promoted.to));
            vec![plain(&promoted.meaning, NAME), count.to_string(), from, to, code(&promoted.name)]
        });
        let table = table(&["meaning", "times", "in the graph", "taken for", "first"], 1..4, rows);
        let title = format!(
            "{} taken for what they are the f32 rounding of",
            count(proof.promoted.len(), "constant")
        );
        out.block(details(&title, &table));
    }
}

fn check(out: &mut Document, check: &EngineCheck, atol: f64) {
    let mut text =
        format!("#### {} in {}: {}\n", plain(&check.engine, NAME), plain(&check.dtype, NAME), check.verdict);
    if check.dtype.is_empty() {
        text = format!("#### {}: {}\n", plain(&check.engine, NAME), check.verdict);
    }
    if !check.outputs.is_empty() {
        let rows = check.outputs.iter().map(|output| {
            vec![
                code(&output.name),
                distance(output.max_abs, output.compared),
                or_dash(output.budget),
                output.worst_ulp.map_or("–".into(), |ulp| ulp.to_string()),
                format!("{} of {}", output.beyond_atol, output.compared),
                output.verdict.to_string(),
            ]
        });
        let beyond = format!("beyond {atol:e}");
        let header = ["output", "max \\|Δ\\|", "rounding explains", "in ULP", &beyond, "verdict"];
        text += "\n";
        text += &table(&header, 1..5, rows);
    }
    let lines = check.failure.iter().cloned().chain(remarks(check, atol));
    let lines: Vec<String> = lines.take(ROWS).map(|line| format!("- {}\n", plain(&line, MESSAGE))).collect();
    if !lines.is_empty() {
        text += "\n";
        text += &lines.concat();
    }
    out.block(text);
}

fn audit(out: &mut Document, audit: &Audit) {
    let mut text = format!(
        "#### Weights: {}\n\n{} traced to what carries them in the graph, {} not found, {} without an origin.\n",
        audit.verdict,
        count(audit.tensors(), "tensor"),
        audit.untraced.len(),
        count(audit.leftover.len(), "constant")
    );
    if !audit.findings.is_empty() {
        let rows = audit.findings.iter().map(|finding| {
            let module = finding.module.as_deref().map_or("–".into(), code);
            let weight = if finding.fails { "fails" } else { "note" };
            vec![weight.into(), module, plain(&finding.message, MESSAGE)]
        });
        text += "\n";
        text += &table(&["", "module", "finding"], 0..0, rows);
    }
    out.block(text);
    if !audit.untraced.is_empty() {
        let names: Vec<String> =
            audit.untraced.iter().take(ROWS).map(|name| format!("- {}\n", code(name))).collect();
        out.block(details("Tensors of the checkpoint that the graph does not hold", &names.concat()));
    }
}

/// A table with the columns `numbers` aligned to the right. Headers and cells are Markdown.
fn table(
    header: &[&str],
    numbers: std::ops::Range<usize>,
    rows: impl ExactSizeIterator<Item = Vec<String>>,
) -> String {
    let more = rows.len().saturating_sub(ROWS);
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rules: Vec<String> =
        (0..header.len()).map(|at| if numbers.contains(&at) { "---:" } else { "---" }.into()).collect();
    let mut text = line(&header.iter().map(|&cell| cell.into()).collect::<Vec<_>>()) + &line(&rules);
    for row in rows.take(ROWS) {
        text += &line(&row);
    }
    if more > 0 {
        text += &format!("\nand {more} more\n");
    }
    text
}

/// A part that is folded away. The summary is plain text, the rest is Markdown.
fn details(summary: &str, text: &str) -> String {
    format!("<details><summary>{}</summary>\n\n{}\n\n</details>\n", plain(summary, NAME), text.trim_end())
}

/// Text in a block of code. The fence is longer than any within.
fn code_block(text: &str) -> String {
    let mut fence = "```".to_string();
    while text.contains(&fence) {
        fence.push('`');
    }
    format!("{fence}text\n{text}\n{fence}")
}

/// A name as code. One that could end the code or the table's cell is written with entities, which
/// Markdown takes as mere text.
fn code(name: &str) -> String {
    let name = shown(name, NAME);
    let blank = name.trim().is_empty() || name.trim() != name;
    if !blank && !name.contains(['`', '|', '\\']) {
        return format!("`{name}`");
    }
    let letter = |letter: char| {
        if letter.is_ascii_punctuation() { format!("&#{};", u32::from(letter)) } else { letter.to_string() }
    };
    format!("<code>{}</code>", name.chars().map(letter).collect::<String>())
}

/// Text that Markdown takes for nothing else.
fn plain(text: &str, limit: usize) -> String {
    let mut out = String::new();
    let text = shown(text, limit);
    for (at, letter) in text.char_indices() {
        match letter {
            // As `\|` or `\@` these would still be cells and mentions somewhere.
            '<' | '>' | '&' | '|' | '@' => out += &format!("&#{};", u32::from(letter)),
            // No links.
            ':' if text[at..].starts_with("://") => out += "&#58;",
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' | '$' => {
                out.push('\\');
                out.push(letter);
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_code_whatever_is_in_it() {
        assert_eq!(code("/encoder/layer.0/MatMul_1"), "`/encoder/layer.0/MatMul_1`");
        assert_eq!(code("<script>"), "`<script>`");
        assert_eq!(code("a|b"), "<code>a&#124;b</code>");
        assert_eq!(code("a`|\\"), "<code>a&#96;&#124;&#92;</code>");
        assert_eq!(code(""), "<code></code>");
        assert_eq!(code("a\nb\0"), "`a b␀`");
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(plain("a|b <i> `c` @d", 99), "a&#124;b &#60;i&#62; \\`c\\` &#64;d");
        assert_eq!(plain("https://x", 99), "https&#58;//x");
        assert_eq!(plain("*x* _y_ [z](w)", 99), "\\*x\\* \\_y\\_ \\[z\\](w)");
    }

    #[test]
    fn a_block_of_code_ends_where_it_should() {
        assert_eq!(code_block("a ``` b"), "````text\na ``` b\n````");
    }

    #[test]
    fn a_document_says_what_it_left_out() {
        let mut document = Document::default();
        document.block("first\n".into());
        document.block("x".repeat(LIMIT));
        assert_eq!(
            document.close(),
            "first\n\n*1 part of this report did not fit; the JSON report has all.*\n"
        );
    }
}
