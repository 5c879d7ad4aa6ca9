//! The inputs of a check: those that were given, or the suite.

use std::path::PathBuf;

use architecture::Task;
use bert_pipeline::{PipelineError, Text};
use engine::{Engine, NamedValues, ValueSpec, shown_path};

use super::Candidate;
use crate::inputs::{Case, EmbeddingTables, as_choices, cases_for, common_inputs, told};
use crate::{ParityError, Subject, tensors};

/// What is run.
#[derive(Debug, Clone)]
pub enum Inputs {
    /// The built-in inputs, for the shapes that the graph declares.
    Suite,
    /// The tensors of a file, named as the model's inputs.
    File(PathBuf),
    /// Texts, as one batch.
    Texts(Vec<String>),
}

impl Inputs {
    /// Those of a file, which is read once, however many graphs they are for.
    pub(super) fn read(&self) -> Result<Option<Case>, ParityError> {
        let Self::File(path) = self else { return Ok(None) };
        Ok(Some(Case { name: shown_path(path).into_owned(), inputs: tensors::read(path)? }))
    }
}

/// Those that are made for a graph.
pub(super) fn made(
    inputs: &Inputs,
    subject: &Subject,
    specs: &[ValueSpec],
    notes: &mut Vec<String>,
) -> Result<Vec<Case>, ParityError> {
    let Inputs::Texts(texts) = inputs else { return suite(subject, specs, notes) };
    let texts: Vec<Text> = texts.iter().map(|text| Text::from(text.as_str())).collect();
    let inputs = subject.require_tokenizer()?.encode(&texts)?.to_named_values();
    let inputs = told(inputs, &subject.limits());
    let cases = vec![Case { name: "text".into(), inputs }];
    match subject.task() {
        Task::MultipleChoice => as_choices(cases, specs),
        _ => Ok(cases),
    }
}

/// The suite for a model, and the shapes that a graph declares. Where the model's kind of tokenizer
/// is not one that is done here, it is without text, and `notes` says so.
///
/// # Errors
/// If the checkpoint or the tokenizer cannot be read.
pub fn suite(
    subject: &Subject,
    specs: &[ValueSpec],
    notes: &mut Vec<String>,
) -> Result<Vec<Case>, ParityError> {
    let tokenizer = match subject.tokenizer() {
        Err(ParityError::Pipeline(
            error @ (PipelineError::TokenizerClass { .. } | PipelineError::UnsupportedTokenizer { .. }),
        )) => {
            notes.push(format!("no sentences are among the inputs: {error}"));
            None
        }
        tokenizer => tokenizer?,
    };
    let tables = EmbeddingTables::of(&subject.files().checkpoint()?, subject.family());
    cases_for(subject.task(), &subject.limits(), specs, tokenizer.as_ref(), tables.as_ref())
}

/// The inputs as both sides can take them.
pub(super) fn common(
    mut cases: Vec<Case>,
    reference: &dyn Engine,
    specs: &[ValueSpec],
    notes: &mut Vec<String>,
) -> Result<Vec<Case>, ParityError> {
    for case in &mut cases {
        refuse_unknown(&case.inputs, &[reference.inputs(), specs])?;
        let common = common_inputs(&case.inputs, reference.inputs(), specs)?;
        for name in common.names().filter(|name| !case.inputs.contains(name)) {
            let default = if name == "attention_mask" { "a mask of ones" } else { "zeros" };
            notes.push(format!("'{name}' was not given: {default} was taken"));
        }
        case.inputs = common;
    }
    Ok(cases)
}

/// An input that no side takes is a slip of the pen: leaving it out in silence would compare
/// something else than was meant.
///
/// # Errors
/// If there is one.
pub fn refuse_unknown(inputs: &NamedValues, sides: &[&[ValueSpec]]) -> Result<(), ParityError> {
    let all = sides.iter().flat_map(|specs| specs.iter());
    match unknown(inputs, all) {
        Some((name, known)) => Err(ParityError::UnknownInput { name, known }),
        None => Ok(()),
    }
}

/// The first name that none of the specs has, and all that they have.
pub(super) fn unknown<'a>(
    values: &NamedValues,
    specs: impl Iterator<Item = &'a ValueSpec>,
) -> Option<(String, String)> {
    let mut known: Vec<&str> = specs.map(|spec| spec.name.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    let name = values.names().find(|name| !known.contains(name))?;
    Some((name.into(), known.join(", ")))
}

/// What a person should know that no number shows.
pub(super) fn notes(reference: &dyn Engine, candidates: &[Candidate], unused: &[String]) -> Vec<String> {
    let mut notes = Vec::new();
    if !unused.is_empty() {
        notes.push(format!("the checkpoint has tensors that the model does not use: {}", unused.join(", ")));
    }
    for Candidate { onnx, model, .. } in candidates {
        for spec in reference.inputs() {
            let note = format!("{onnx} has no input '{}', so both sides run without it", spec.name);
            if !model.graph.inputs.iter().any(|input| input.name == spec.name) && !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    notes
}
