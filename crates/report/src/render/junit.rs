//! A report as JUnit's XML, which every CI server shows.

use super::words::{
    MESSAGE, NAME, complaint, distance, escaped, number, or_dash, proof_word, relation_word, some, strained,
    structure, turned,
};
use super::{Graph, graphs};
use crate::proof::each_once;
use crate::{
    Audit, Culprit, EngineCheck, FolderDifference, OutputReport, Proof, ProofOutput, Relation, Report,
    Verdict,
};

/// As many lines of a failure are written.
const LINES: usize = 40;

/// A report as JUnit's XML: for each graph one test suite for its proof, weights and relations, and
/// one for each engine that ran it.
///
/// What is inconclusive is an `error`: a skipped test would count as good.
pub fn junit(report: &Report) -> String {
    let mut suites = Vec::new();
    for graph in graphs(report) {
        suites.push(exact(&graph));
        suites.extend(graph.checks.iter().map(|check| engine(check, report.atol)));
    }
    suites.extend(report.tokenizer.as_ref().map(|tokenizer| {
        let lines = tokenizer.sentence().into_iter().collect();
        let name = "tokenizer.json and vocab.txt".into();
        let case = Case { name, verdict: tokenizer.verdict, lines };
        Suite { name: "tokenizer".into(), cases: vec![case], out: tokenizer.notes.clone() }
    }));
    suites.push(Suite {
        name: "exported folder".into(),
        cases: report.folder.iter().map(folder).collect(),
        out: Vec::new(),
    });
    suites.retain(|suite| !suite.cases.is_empty());
    // A report without a single case would be green.
    let silent = report.verdict > Verdict::Rounding
        && suites.iter().all(|suite| suite.count(true) + suite.count(false) == 0);
    if suites.is_empty() || silent {
        let why = report.error.clone().unwrap_or_else(|| format!("the check came to {}", report.verdict));
        let verdict = report.verdict.max(Verdict::Inconclusive);
        let case = Case { name: "check".into(), verdict, lines: vec![why] };
        suites.insert(0, Suite { name: report.model.clone(), cases: vec![case], out: Vec::new() });
    }
    let total = |count: fn(&Suite) -> usize| suites.iter().map(count).sum::<usize>();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"parity: {}\" tests=\"{}\" failures=\"{}\" errors=\"{}\">\n{}</testsuites>\n",
        escaped(&report.model, NAME),
        total(|suite| suite.cases.len()),
        total(|suite| suite.count(true)),
        total(|suite| suite.count(false)),
        suites.iter().map(Suite::xml).collect::<String>()
    )
}

/// What the files beside a graph say otherwise than the checkpoint's.
fn folder(difference: &FolderDifference) -> Case {
    let verdict = if difference.fails { Verdict::Fail } else { Verdict::Pass };
    let name = format!("{}: {}", difference.file, difference.what);
    Case { name, verdict, lines: vec![difference.sentence()] }
}

/// Test cases of one graph on one engine.
struct Suite {
    name: String,
    cases: Vec<Case>,
    /// What a person should know besides.
    out: Vec<String>,
}

struct Case {
    name: String,
    verdict: Verdict,
    /// Why it failed or could not be judged, if it did not pass.
    lines: Vec<String>,
}

impl Suite {
    /// How many failed, or could not be judged.
    fn count(&self, failed: bool) -> usize {
        let is = |case: &&Case| !case.passed() && (case.verdict == Verdict::Fail) == failed;
        self.cases.iter().filter(is).count()
    }

    fn xml(&self) -> String {
        let name = escaped(&self.name, 2 * NAME);
        let cases: String = self.cases.iter().map(|case| case.xml(&name)).collect();
        let out = if self.out.is_empty() {
            String::new()
        } else {
            format!("    <system-out>{}</system-out>\n", joined(&self.out))
        };
        format!(
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"0\">\n{cases}{out}  </testsuite>\n",
            self.cases.len(),
            self.count(true),
            self.count(false)
        )
    }
}

impl Case {
    fn passed(&self) -> bool {
        self.verdict <= Verdict::Rounding
    }

    /// `suite` is escaped already.
    fn xml(&self, suite: &str) -> String {
        let open = format!("    <testcase name=\"{}\" classname=\"{suite}\"", escaped(&self.name, NAME));
        if self.passed() {
            return format!("{open}/>\n");
        }
        let Self { verdict, lines, .. } = self;
        let element = if *verdict == Verdict::Fail { "failure" } else { "error" };
        let message = escaped(lines.first().map_or("no reason is known", String::as_str), MESSAGE);
        format!(
            "{open}>\n      <{element} type=\"{verdict}\" message=\"{message}\">{}</{element}>\n    </testcase>\n",
            joined(lines)
        )
    }
}

fn joined(lines: &[String]) -> String {
    let mut shown: Vec<String> = lines.iter().take(LINES).map(|line| escaped(line, MESSAGE)).collect();
    if lines.len() > LINES {
        shown.push(format!("and {} more", lines.len() - LINES));
    }
    shown.join("\n")
}

/// What needs no f32 engine.
fn exact(graph: &Graph) -> Suite {
    let mut cases = Vec::new();
    let explanation = graph.explanation.as_ref().map(|explanation| format!("explained by {explanation}"));
    let culprits = graph.culprits.iter().map(|culprit| self::culprit(culprit, graph));
    let culprits: Vec<String> = explanation.into_iter().chain(culprits).collect();
    if let Some(proof) = graph.proof {
        cases.extend(self::proof(proof, &culprits));
    }
    if let Some(audit) = &graph.weights {
        cases.push(weights(audit));
    }
    for name in each_once(graph.relations.iter().map(|relation| &*relation.name)) {
        cases.extend(relation(name, graph));
    }
    if !graph.stress.is_empty() {
        let lines = strained(graph);
        let verdict = if lines.is_empty() { Verdict::Pass } else { Verdict::Fail };
        cases.push(Case { name: "LayerNorm under stress".into(), verdict, lines });
    }
    Suite { name: format!("{}: proof", graph.onnx), cases, out: culprits }
}

fn proof(proof: &Proof, culprits: &[String]) -> Vec<Case> {
    let case = |output: &ProofOutput| {
        let mut lines = vec![match &output.mismatch {
            Some(mismatch) => format!("{}: {mismatch}", output.name),
            None => format!(
                "{}: {} off in f64, relative {}, allowed {:e}; {} values compared",
                output.name,
                distance(output.max_abs, output.compared),
                or_dash(output.max_rel),
                proof.tol,
                output.compared
            ),
        }];
        if !output.failing_inputs.is_empty() {
            lines.push(format!("on: {}", output.failing_inputs.join(", ")));
        }
        lines.extend(culprits.iter().cloned());
        Case { name: format!("proof of {}", output.name), verdict: output.verdict, lines }
    };
    let mut cases: Vec<Case> = proof.outputs.iter().map(case).collect();
    // It fails or does not conclude for a reason that no output shows.
    if cases.iter().all(Case::passed) && proof.verdict > Verdict::Rounding {
        let why = proof.failure.clone().unwrap_or_else(|| format!("the proof {}", proof_word(proof.verdict)));
        let lines = std::iter::once(why).chain(structure(proof)).collect();
        cases.push(Case { name: "proof".into(), verdict: proof.verdict, lines });
    }
    cases
}

fn culprit(culprit: &Culprit, graph: &Graph) -> String {
    const NODES: usize = 6;
    let mut line = format!("{}: own error {}", culprit.module, or_dash(culprit.max_abs));
    if let Some(inherited) = graph.inherited(&culprit.module) {
        line += &format!(", {} in the plain run", number(inherited));
    }
    if let Some(explanation) = &culprit.explanation {
        line += &format!("; {explanation}");
    }
    if !culprit.nodes.is_empty() {
        line += &format!("; nodes {}", some(&culprit.nodes, NODES, str::to_string));
    }
    line
}

fn weights(audit: &Audit) -> Case {
    let mut lines: Vec<String> = audit
        .findings
        .iter()
        .filter(|finding| finding.fails)
        .map(|finding| finding.message.clone())
        .collect();
    if lines.is_empty() {
        lines.push(format!("{} tensors of the checkpoint were traced", audit.tensors()));
    }
    Case { name: "weights".into(), verdict: audit.verdict, lines }
}

/// One relation over all inputs; nothing where it was skipped on all.
fn relation(name: &str, graph: &Graph) -> Option<Case> {
    let judged: Vec<&Relation> = graph
        .relations
        .iter()
        .filter(|relation| relation.name == name && relation.skipped.is_none())
        .collect();
    if judged.is_empty() {
        return None;
    }
    let violated = judged.iter().filter(|relation| relation.is_violated());
    let lines: Vec<String> = violated
        .map(|relation| {
            format!(
                "{name} on '{}', {}: {}, changes by {}",
                relation.input,
                relation.side,
                relation_word(relation),
                or_dash(relation.max_abs)
            )
        })
        .collect();
    // Whether a relation fails a graph is the check's to say.
    let verdict = if lines.is_empty() { Verdict::Pass } else { Verdict::Fail.min(graph.verdict) };
    Some(Case { name: format!("relation: {name}"), verdict, lines })
}

fn engine(check: &EngineCheck, atol: f64) -> Suite {
    let case = |output: &OutputReport| {
        let name = format!("{} in {}", output.name, check.dtype);
        Case { name, verdict: output.verdict, lines: vec![complaint(output, atol)] }
    };
    let mut cases: Vec<Case> = check.outputs.iter().map(case).collect();
    let passed = cases.iter().all(Case::passed);
    if check.failure.is_some() || (passed && check.verdict > Verdict::Rounding) {
        let lines: Vec<String> = check.failure.iter().chain(&check.not_compared).cloned().collect();
        cases.push(Case { name: "run".into(), verdict: check.verdict, lines });
    }
    let missing = check.not_compared.iter().map(|reason| format!("not compared: {reason}"));
    let out = turned(check).chain(missing).collect();
    Suite { name: format!("{} on {}", check.onnx, check.engine), cases, out }
}
