//! Who is to blame: where a graph parts from its checkpoint, why, and what the weights say of it.

pub mod culprits;
pub mod explain;
pub(crate) mod graph;
pub(crate) mod layout;
pub mod locate;
pub(crate) mod tokens;

use engine::{Engine, NamedValues};
use onnx_eval::Oracle;
use report::{Audit, Culprit, Located, Proof, Verdict};

use self::culprits::{Facts, culprits};
use self::explain::{Weights, explain_whole};
use self::locate::{Carried, Findings, locate};
use crate::compare::Answers;
use crate::engines::stress::Norm;
use crate::inputs::{Case, fit_inputs};
use crate::proof::convert::{Lost, NotFinite};
use crate::subject::{References, Subject};

/// What is known of a graph when somebody is looked for.
pub(crate) struct Evidence<'a> {
    pub subject: &'a Subject,
    pub references: &'a References,
    /// What the checkpoint gives in f64.
    pub truth: &'a Answers<'a>,
    /// The graph in f64.
    pub oracle: &'a Oracle,
    pub proof: &'a Proof,
    pub audit: &'a Audit,
    pub overflow: Option<&'a NotFinite>,
    /// Quantized activations whose values are lost on this input.
    pub lost: &'a [Lost],
    /// What runs the graph in f32.
    pub engine: Option<&'a dyn Engine>,
    /// The input that is looked at.
    pub case: &'a Case,
}

/// Who is to blame.
pub(crate) struct Blame {
    pub culprits: Vec<Culprit>,
    /// What explains the whole, where no module does.
    pub explanation: Option<String>,
    pub located: Option<Located>,
    /// The LayerNorms among the values of the graph.
    pub norms: Vec<Norm>,
    /// What of the reference lies where in the graph.
    pub carried: Vec<Carried>,
}

/// Where it parts, and why, as it shows on a single input.
pub(crate) fn blame(evidence: &Evidence) -> Blame {
    let &Evidence { subject, references, truth, oracle, proof, audit, overflow, lost, engine, case } =
        evidence;
    let reference = &references.double.engine;
    // What the graph calls otherwise is known by that name.
    let known = |name: &str| truth.specs().iter().any(|spec| spec.name == name);
    let gives = |name: &str| !known(name) || oracle.outputs().iter().any(|spec| spec.name == name);
    // Where the graph cannot run the input, there is nothing to look at.
    let findings = locate(reference, oracle, case, gives).ok();
    let wrong = proof.verdict == Verdict::Fail;
    // What nothing is held against may be what is missing, under another name.
    let unknown = oracle.outputs().iter().any(|spec| !known(&spec.name));
    let mut explanation = None;
    if wrong || unknown || proof.outputs.is_empty() {
        let mut run = |inputs: &NamedValues| oracle.run(&fit_inputs(inputs, oracle.inputs()).ok()?).ok();
        let whole = truth.on(case).and_then(|outputs| explain_whole(&case.inputs, outputs, &mut run));
        explanation = whole.map(|whole| whole.to_string());
    }
    let mut named = Vec::new();
    // In a graph that is proven, and has the right weights, nobody is to blame.
    if wrong || audit.verdict == Verdict::Fail {
        named = culprits(&Facts {
            program: reference.program(),
            family: subject.family(),
            weights: Weights::new(&references.checkpoint, subject.task(), subject.family()).ok().as_ref(),
            audit,
            findings: findings.as_ref(),
            inputs: &case.inputs,
        });
    }
    if let Some(overflow) = overflow {
        let of_modules = findings.as_ref().map(|findings| &findings.located);
        if let Err(sentence) = culprits::add_overflow(&mut named, of_modules, overflow) {
            explanation = Some(before(sentence, explanation));
        }
    }
    // A value that is lost explains what anything else only happens to fit.
    for Lost { node, sentence } in lost {
        let of_modules = findings.as_ref().map(|findings| &findings.located);
        if let Err(sentence) = culprits::add(&mut named, of_modules, node, sentence.clone()) {
            explanation = Some(before(sentence, explanation));
        }
    }
    let norms = findings.iter().flat_map(Findings::norms).collect();
    let carried = findings.iter().flat_map(|findings| findings.carried.clone()).collect();
    let located = findings.map(|findings| match engine {
        Some(engine) => findings.measured(engine, case),
        None => findings.located,
    });
    Blame { culprits: named, explanation, located, norms, carried }
}

/// Two explanations, this one first.
pub(crate) fn before(first: String, other: Option<String>) -> String {
    match other {
        Some(other) => format!("{first}; {other}"),
        None => first,
    }
}
