//! Sentences, numbers and names, as all renderers show them.

use std::borrow::Cow;

use super::{Graph, graphs};
use crate::{
    EngineCheck, FromTruth, OutputReport, Proof, ReferenceKind, Relation, Report, Scope, Stress,
    TokenizerReport, Trace, Unexplained, Verdict,
};

/// Names of nodes and files are shown this long, in characters.
pub(super) const NAME: usize = 120;

/// Messages are shown this long, in characters.
pub(super) const MESSAGE: usize = 1000;

/// For which inputs a check holds; nothing where it does not.
pub fn scope(report: &Report) -> Option<String> {
    if !matches!(report.verdict, Verdict::Pass | Verdict::Rounding) {
        return None;
    }
    Some(match report.is_for_every_input() {
        true => "for every input".into(),
        false => match report.inputs.len() {
            1 => "on the one input tried".into(),
            inputs => format!("on the {inputs} inputs tried"),
        },
    })
}

/// What a check came to, in one sentence without a full stop.
pub fn headline(report: &Report) -> String {
    let mut outcome = match scope(report) {
        Some(scope) => format!("{scope}: {}", outcome(report)),
        None => outcome(report),
    };
    let mut unheld: Vec<&String> = Vec::new();
    for name in graphs(report).iter().flat_map(|graph| &graph.parts.unheld) {
        if !unheld.contains(&name) {
            unheld.push(name);
        }
    }
    if !unheld.is_empty() {
        let names = unheld.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        let outputs = if unheld.len() == 1 { "output" } else { "outputs" };
        outcome += &format!("; nothing was held against {outputs} {names}");
    }
    match report.exported && report.verdict != Verdict::Error {
        true => format!("{outcome}; this tool wrote the graph itself, so engines were tested and no export"),
        false => outcome,
    }
}

fn outcome(report: &Report) -> String {
    let inputs = count(report.inputs.len(), "input");
    let proven = match report.proof.as_ref().and_then(|proof| proof.max_abs) {
        Some(max_abs) => format!("they agree to {max_abs:.0e} in f64"),
        None => "they agree in f64".into(),
    };
    let model =
        reference(report) + report.precision.as_ref().map_or("", |conversion| conversion.of_checkpoint());
    // What holds for every input was still run on some.
    let over = if report.is_for_every_input() { format!(", over {inputs}") } else { String::new() };
    let single = if report.precision.is_some() { "As the graph runs" } else { "In f32" };
    match report.verdict {
        Verdict::Pass => format!(
            "the ONNX graph computes what {model} does: {proven}, and within {:e} in f32{over}",
            report.atol
        ),
        Verdict::Rounding => format!(
            "the ONNX graph computes what {model} does: {proven}{over}. {single} they are further apart \
             than {:e}, by rounding alone",
            report.atol
        ),
        Verdict::Inconclusive => match unexplained(report) {
            Some(Unexplained { node, why }) => format!(
                "the ONNX graph gives what {model} does on the {inputs} tried, and may give something else \
                 on others: no step of the model explains node '{node}': {why}"
            ),
            None => {
                format!("nothing, or not everything that was asked for, was compared for {}", report.model)
            }
        },
        Verdict::Error => {
            format!(
                "the check of {} could not be run: {}",
                report.model,
                report.error.as_deref().unwrap_or("no reason is known")
            )
        }
        Verdict::Fail => {
            let graphs = graphs(report);
            let tokenizer = report.tokenizer.as_ref().and_then(TokenizerReport::sentence);
            if let (Some(sentence), false) = (tokenizer, graphs.iter().any(fails)) {
                return format!("{} has two tokenizers: {sentence}", report.model);
            }
            let first = report.folder.iter().find(|difference| difference.fails);
            if let (Some(difference), false) = (first, graphs.iter().any(fails)) {
                return format!(
                    "the graph is that of {model}, and the files beside it are not: {}",
                    difference.sentence()
                );
            }
            let off = report.recorded.iter().find(|side| side.verdict == Verdict::Fail);
            if let (Some(side), false) = (off, graphs.iter().any(fails)) {
                return format!("{} on {} does not give what was recorded elsewhere", side.side, side.engine);
            }
            // What fails is said of the graph that comes off worst, which the report's own fields
            // are about.
            let worst = graphs.iter().find(|graph| graph.verdict == Verdict::Fail);
            let what = worst.map_or("the ONNX graph differs from".into(), difference);
            let first = worst.and_then(|graph| graph.culprits.first());
            let why = worst.and_then(|graph| graph.explanation.as_ref());
            let starts = match (why, first) {
                (Some(why), _) => format!("; explained by {why}"),
                (None, Some(culprit)) => format!("; it starts at {}", culprit.module),
                (None, None) => String::new(),
            };
            format!("{what} {model} over {inputs}{starts}")
        }
    }
}

/// The first node of a graph that no step of its model explains.
fn unexplained(report: &Report) -> Option<Unexplained> {
    let first = |graph: &Graph| graph.proof?.unexplained.first().cloned();
    graphs(report).iter().find_map(first)
}

/// What the structure of a graph says of a proof, beside its scope.
pub(crate) fn structure(proof: &Proof) -> Vec<String> {
    let guards = proof.guards.iter().map(|guard| format!("as long as {guard}"));
    let nodes = proof.unexplained.iter();
    let nodes = nodes.map(|Unexplained { node, why }| format!("not explained: node '{node}': {why}"));
    guards.chain(nodes).collect()
}

/// How far a proof goes, in words.
pub(crate) fn scope_word(proof: &Proof) -> &'static str {
    match (proof.verdict, proof.scope) {
        (Verdict::Pass | Verdict::Rounding, Scope::EveryInput) => " for every input",
        _ => "",
    }
}

/// Whether anything of a graph fails.
fn fails(graph: &Graph) -> bool {
    let verdicts = graph.proof.map(|proof| proof.verdict).into_iter();
    let verdicts = verdicts.chain(graph.weights.as_ref().map(|audit| audit.verdict));
    let mut verdicts = verdicts.chain(graph.checks.iter().map(|check| check.verdict));
    let stress = graph.stress.iter().any(|stress| stress.verdict == Verdict::Fail);
    stress
        || verdicts.any(|verdict| verdict == Verdict::Fail)
        || graph.relations.iter().any(Relation::is_violated)
}

/// What the graph is held against.
fn reference(report: &Report) -> String {
    let is_graph = match &report.reference {
        Some(reference) => reference.kind == ReferenceKind::Graph,
        None => report.model.ends_with(".onnx") || report.model == "standard input",
    };
    if is_graph { report.model.clone() } else { format!("the checkpoint of {}", report.model) }
}

/// The worst of what makes a graph fail, as the beginning of a sentence that the reference ends.
fn difference(graph: &Graph) -> String {
    let outputs = || graph.checks.iter().flat_map(|check| &check.outputs);
    let fails = |verdict: Verdict| verdict == Verdict::Fail;
    let proof = graph.proof.filter(|proof| fails(proof.verdict));
    if graph.checks.iter().any(|check| fails(check.verdict) && check.failure.is_some()) {
        "the ONNX graph cannot run an input that it declares, unlike".into()
    } else if outputs().any(|output| output.mismatch.is_some()) {
        "the ONNX graph gives another shape or dtype than".into()
    } else if outputs().any(|output| output.compared > 0 && output.max_abs.is_none()) {
        "values are not finite in the ONNX graph or".into()
    } else if let Some(max_abs) = proof.and_then(|proof| proof.max_abs) {
        format!("the ONNX graph is another function, {max_abs:.1e} off in f64, than")
    } else if proof.is_some() {
        "the ONNX graph is another function in f64 than".into()
    } else if graph.weights.as_ref().is_some_and(|audit| fails(audit.verdict)) {
        "the ONNX graph has other weights than".into()
    } else if let Some(relation) = graph.relations.iter().find(|relation| relation.is_violated())
        && !graph.checks.iter().any(|check| fails(check.verdict))
    {
        format!("what must change nothing ({}: {}) changes the answer for", relation.side, relation.name)
    } else if graph.stress.iter().any(|stress| fails(stress.verdict))
        && !graph.checks.iter().any(|check| fails(check.verdict))
    {
        "the engine's LayerNorm fails where a row's mean is large, though the ONNX graph is the same function as the checkpoint of".into()
    } else {
        "the engine is further off than f32 rounding explains, though the ONNX graph is the same function as"
            .into()
    }
}

/// What fails under stress, a sentence for each.
pub(super) fn strained(graph: &Graph) -> Vec<String> {
    let failing = graph.stress.iter().filter(|stress| stress.verdict == Verdict::Fail);
    failing.map(Stress::sentence).collect()
}

/// What a proof came to, in words.
pub(crate) fn proof_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass | Verdict::Rounding => "holds",
        Verdict::Inconclusive => "could not be made",
        Verdict::Fail | Verdict::Error => "does not hold",
    }
}

/// Which f32 side is nearer to f64.
pub(crate) fn nearer(truth: &FromTruth, reference: &str) -> Option<String> {
    let side = |name: &str, abs: f64, ulp: f64| format!("{name} is {} ({ulp:.1} ULP) from f64", number(abs));
    let reference = side(reference, truth.reference?, truth.reference_ulp?);
    let candidate = side("the graph", truth.candidate?, truth.candidate_ulp?);
    Some(if truth.candidate? <= truth.reference? {
        format!("{candidate}, nearer; {reference}")
    } else {
        format!("{reference}, nearer; {candidate}")
    })
}

/// What stands in the way of an output, or how it compares; a sentence for one that does not pass.
pub(super) fn complaint(output: &OutputReport, atol: f64) -> String {
    let mut sentence = output.sentence(atol);
    if let Some(crate::Beyond { feature, max_abs, budget }) = output.beyond {
        let (max_abs, budget) = (number(max_abs), number(budget));
        sentence += &format!("; feature {feature} is {max_abs} off, where rounding alone explains {budget}");
        return sentence;
    }
    match output.budget {
        Some(budget) if output.mismatch.is_none() => {
            format!("{sentence}; rounding alone explains {}", number(budget))
        }
        _ => sentence,
    }
}

/// The outputs by which something else is chosen: other labels.
pub(super) fn turned(check: &EngineCheck) -> impl Iterator<Item = String> {
    let decided = check.outputs.iter().filter_map(|output| Some((&output.name, output.decisions.as_ref()?)));
    let turned = decided.filter(|(_, decisions)| decisions.flipped > 0);
    turned.map(|(name, decisions)| format!("{name} {decisions}"))
}

/// What there is to say about the outputs of a check: those that do not pass or choose otherwise,
/// those that were not compared, and which side is nearer to f64.
pub(super) fn remarks(check: &EngineCheck, atol: f64) -> impl Iterator<Item = String> {
    let failing = check.outputs.iter().filter(|output| output.verdict > Verdict::Rounding);
    let nearer = check.outputs.iter().filter_map(|output| {
        Some(format!("{}: {}", output.name, nearer(output.truth.as_ref()?, "the checkpoint")?))
    });
    let missing = check.not_compared.iter().map(|reason| format!("not compared: {reason}"));
    failing.map(move |output| complaint(output, atol)).chain(turned(check)).chain(missing).chain(nearer)
}

/// The first of some names, as they are shown, and how many more there are.
pub(crate) fn some(names: &[String], most: usize, show: impl Fn(&str) -> String) -> String {
    let shown = names.iter().take(most).map(|name| show(name));
    let more = names.len().checked_sub(most).filter(|more| *more > 0).map(|more| format!("and {more} more"));
    shown.chain(more).collect::<Vec<_>>().join(", ")
}

/// What a relation came to.
pub(super) fn relation_word(relation: &Relation) -> String {
    match (&relation.skipped, &relation.failure) {
        (Some(reason), _) => format!("skipped: {reason}"),
        (None, Some(failure)) => format!("fails: {failure}"),
        (None, None) if relation.holds => "holds".into(),
        (None, None) if relation.converted => "does not hold, by the conversion".into(),
        (None, None) => "does not hold".into(),
    }
}

/// How a tensor lies in the graph, in words.
pub(super) fn layout(trace: &Trace) -> String {
    let mut words = trace.layout.to_string();
    if let Some(factor) = trace.factor {
        words += &format!(", times {factor}");
    }
    if let Some((other, row)) = &trace.plus {
        words += &format!(", plus row {row} of {other}");
    }
    if let Some(cast) = trace.cast {
        words += &format!(", rounded to {}", format!("{cast:?}").to_lowercase());
    }
    if let Some(step) = trace.step.filter(|step| step.is_finite()) {
        words += &format!(", quantized in steps of {}", number(f64::from(step)));
    }
    words
}

/// An error or a distance.
pub(crate) fn number(x: f64) -> String {
    match x {
        0.0 => "0".into(),
        x if x.is_finite() => format!("{x:.2e}"),
        _ => "not finite".into(),
    }
}

/// A number, or a dash where there is none.
pub(crate) fn or_dash(x: Option<f64>) -> String {
    x.map_or("–".into(), number)
}

/// A largest difference, or why there is none.
pub(super) fn distance(max_abs: Option<f64>, compared: usize) -> String {
    match max_abs {
        Some(max_abs) => number(max_abs),
        None if compared == 0 => "–".into(),
        None => "not finite".into(),
    }
}

/// So many of something, with an s where it belongs.
pub fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

/// A shape.
pub fn dimensions(shape: &[usize]) -> String {
    if shape.is_empty() {
        return "scalar".into();
    }
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("×")
}

/// The first letter as a capital.
pub(super) fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// What a text is shown as: no longer than `limit` characters, with beginning and end where it is,
/// and no character that is not seen.
pub(super) fn shown(text: &str, limit: usize) -> String {
    shortened(text, limit).chars().map(visible).collect()
}

fn shortened(text: &str, limit: usize) -> Cow<'_, str> {
    let Some((cut, _)) = text.char_indices().nth(limit) else { return text.into() };
    // The middle says least: paths and names differ at their ends.
    let tail = limit / 3;
    let head = limit - tail - 1;
    let head = text[..cut].char_indices().nth(head).map_or(cut, |(at, _)| at);
    let start = text.char_indices().rev().nth(tail.saturating_sub(1)).map_or(text.len(), |(at, _)| at);
    format!("{}…{}", &text[..head], &text[start..]).into()
}

/// A character that can be seen in place of one that cannot, and that could forge or break a
/// document or a line on a terminal.
pub fn visible(character: char) -> char {
    match character {
        '\n' | '\r' | '\t' => ' ',
        // Unicode has a picture for each.
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}'),
        '\u{7f}' => '␡',
        // Neither seen nor, some of them, allowed in XML; those that change the direction of a text
        // can make it read as another.
        '\u{80}'..='\u{9f}'
        | '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{fffe}'
        | '\u{ffff}'
        | '\u{e0000}'..='\u{e007f}' => '\u{fffd}',
        other => other,
    }
}

/// JSON that says what it said, with an escape for each letter that is not [`visible`]. Line breaks
/// stay: there are none within a JSON string.
pub fn inert_json(json: &str) -> String {
    let mut inert = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter == '\n' || visible(letter) == letter {
            inert.push(letter);
        } else {
            let mut units = [0; 2];
            inert.extend(letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    inert
}

/// A text for HTML and XML, in elements as well as in quoted attributes, [`shown`] up to a limit.
pub(super) fn escaped(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for character in shown(text, limit).chars() {
        match character {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_what_it_said() {
        let name = "a\u{9b}b\u{202e}c\u{7f}\u{e0041}\n\u{1b}é";
        let json = serde_json::to_string_pretty(&[name]).unwrap();
        let inert = inert_json(&json);
        assert_eq!(inert, "[\n  \"a\\u009bb\\u202ec\\u007f\\udb40\\udc41\\n\\u001bé\"\n]");
        assert_eq!(serde_json::from_str::<[String; 1]>(&inert).unwrap(), [name]);
    }
}
