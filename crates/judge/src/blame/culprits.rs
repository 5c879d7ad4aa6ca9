//! Who is to blame: what a run shows, what the weights show, and what would explain it, put together.

use architecture::{Family, Program, run_of};
use engine::NamedValues;
use report::{Culprit, Located, ModuleError};

use crate::audit::{Audit, Finding};
use crate::blame::explain::{Evidence, Weights, explain};
use crate::blame::locate::{Findings, Kind, Suspect};
use crate::proof::convert::NotFinite;

/// What is known when culprits are named.
pub(crate) struct Facts<'a> {
    pub program: &'a Program,
    pub family: &'a dyn Family,
    pub weights: Option<&'a Weights>,
    pub audit: &'a Audit,
    pub findings: Option<&'a Findings>,
    /// What the findings are from.
    pub inputs: &'a NamedValues,
}

/// The modules that are wrong, in the order of execution.
pub(crate) fn culprits(facts: &Facts) -> Vec<Culprit> {
    let mut culprits: Vec<Culprit> = Vec::new();
    for suspect in facts.findings.iter().flat_map(|findings| &findings.suspects) {
        let culprit = facts.explained(suspect);
        match culprits.iter_mut().find(|other| other.module == culprit.module) {
            Some(other) => other.nodes.extend(culprit.nodes),
            None => culprits.push(culprit),
        }
    }
    let failing = facts.audit.findings.iter().filter(|finding| finding.fails);
    for finding in failing {
        if let Some(module) = &finding.module {
            facts.blame(&mut culprits, module, finding);
        }
    }
    let place = |module: &str| {
        let found = facts.program.module_paths().position(|path| path == module || run_of(path).0 == module);
        found.unwrap_or(usize::MAX)
    };
    culprits.sort_by_key(|culprit| place(&culprit.module));
    culprits
}

impl Facts<'_> {
    fn explained(&self, suspect: &Suspect) -> Culprit {
        let explanation = || {
            let (findings, found) = (self.findings?, suspect.found.as_ref()?);
            let evidence = Evidence {
                program: self.program,
                pad: self.family.pad_token_id(),
                weights: self.weights?,
                inputs: self.inputs,
                taps: &findings.taps,
            };
            // What cannot be explained is none the less wrong.
            explain(&evidence, &suspect.module, found).ok().flatten()
        };
        let explanation = explanation();
        // Which token it takes is the pooler's own to answer for: its dense layer is right.
        let own = suspect.kind == Kind::Token;
        let deeper = explanation.as_ref().and_then(|explanation| explanation.module.clone());
        let module = deeper.filter(|_| !own).unwrap_or_else(|| suspect.module.clone());
        Culprit {
            explanation: explanation.map(|mut explanation| {
                explanation.module = explanation.module.filter(|of| *of != module);
                explanation.to_string()
            }),
            module,
            max_abs: suspect.max_abs,
            nodes: suspect.nodes.clone(),
        }
    }

    /// Puts what the weights show on the module that a run has shown, or on one that no run showed.
    fn blame(&self, culprits: &mut Vec<Culprit>, module: &str, finding: &Finding) {
        // A tensor is the same in all runs of its module.
        let is_run = |culprit: &Culprit| run_of(&culprit.module).0 == module;
        let seen = |culprit: &&mut Culprit| is_run(culprit) || self.stands_for(&culprit.module, module);
        match culprits.iter_mut().find(seen) {
            Some(culprit) => {
                culprit.module = module.into();
                culprit.explanation = Some(match culprit.explanation.take() {
                    Some(other) if !other.contains(&finding.message) => {
                        format!("{}; {other}", finding.message)
                    }
                    _ => finding.message.clone(),
                });
                culprits.retain(|culprit| culprit.module == module || !is_run(culprit));
            }
            None => culprits.push(Culprit {
                module: module.into(),
                max_abs: self.own_error(module),
                nodes: self.nodes(module),
                explanation: Some(finding.message.clone()),
            }),
        }
    }

    /// Whether `shown` is wrong because `module`, which no value of the graph shows, is: it holds it, or comes next in its stage.
    fn stands_for(&self, shown: &str, module: &str) -> bool {
        let modules = self.findings.iter().flat_map(|findings| &findings.located.modules);
        let is_hidden = |module: &str| modules.clone().any(|m| m.module == module && m.value.is_none());
        if !is_hidden(module) {
            return false;
        }
        let mut after = modules.clone().skip_while(|m| m.module != module).skip(1);
        let next = after.find(|m| m.value.is_some() || m.culprit);
        module.strip_prefix(shown).is_some_and(|rest| rest.starts_with('.'))
            || next.is_some_and(|next| next.module == shown)
    }

    fn own_error(&self, module: &str) -> Option<f64> {
        let modules = &self.findings?.located.modules;
        modules.iter().find(|m| run_of(&m.module).0 == module)?.own
    }

    fn nodes(&self, module: &str) -> Vec<String> {
        let modules = self.findings.iter().flat_map(|findings| &findings.located.modules);
        modules.filter(|m| run_of(&m.module).0 == module).flat_map(|m| m.nodes.clone()).collect()
    }
}

/// Blames the module that gives what is not finite. Where none is known to, what happened is given
/// back, in words.
pub(crate) fn add_overflow(
    culprits: &mut Vec<Culprit>,
    located: Option<&Located>,
    overflow: &NotFinite,
) -> Result<(), String> {
    add(culprits, located, &overflow.node, overflow.sentence())
}

/// Blames the module that a node belongs to, with a sentence on it in the place of what else was
/// thought of. Where the module is not known, the sentence is given back.
pub(crate) fn add(
    culprits: &mut Vec<Culprit>,
    located: Option<&Located>,
    node: &str,
    sentence: String,
) -> Result<(), String> {
    let paths: Vec<&ModuleError> = located.iter().flat_map(|located| &located.modules).collect();
    let Some(module) = paths.iter().rev().find(|module| module.nodes.iter().any(|of| of == node)) else {
        return Err(sentence);
    };
    let (module, explanation) = (module.module.clone(), Some(sentence));
    if let Some(other) = culprits.iter_mut().find(|other| other.module == module) {
        other.explanation = explanation;
        return Ok(());
    }
    let place = |module: &str| paths.iter().position(|path| path.module == module);
    let before = |other: &&Culprit| place(&other.module).is_some_and(|at| Some(at) < place(&module));
    let at = culprits.iter().filter(before).count();
    culprits.insert(at, Culprit { module, max_abs: None, nodes: vec![node.into()], explanation });
    Ok(())
}
