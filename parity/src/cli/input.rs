//! The inputs that a command line asks for.

use std::path::Path;

use anyhow::bail;
use architecture::Task;
use bert_pipeline::{PipelineError, Text};
use engine::{NamedValues, ValueSpec, shown_path};
use parity::suite::{Case, EmbeddingTables, as_choices, cases_for};
use parity::{ParityError, Subject, tensors};

/// The inputs of a file, which is read once, however many graphs they are for.
pub fn given(path: Option<&Path>) -> anyhow::Result<Option<Case>> {
    let Some(path) = path else { return Ok(None) };
    Ok(Some(Case { name: shown_path(path).into_owned(), inputs: tensors::read(path)? }))
}

/// The inputs of a check: those that were given, a text, or the default suite for the shapes that
/// the graphs declare. Where the model's kind of tokenizer is not one that is done here, the suite
/// is without text, and `notes` says so.
pub fn cases(
    subject: &Subject,
    given: Option<&Case>,
    texts: &[String],
    specs: &[ValueSpec],
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Case>> {
    if let Some(case) = given {
        return Ok(vec![case.clone()]);
    }
    if !texts.is_empty() {
        let texts: Vec<Text> = texts.iter().map(|text| Text::from(text.as_str())).collect();
        let inputs = subject.require_tokenizer()?.encode(&texts)?.to_named_values();
        let cases = vec![Case { name: "text".into(), inputs }];
        return Ok(match subject.task() {
            Task::MultipleChoice => as_choices(cases, specs)?,
            _ => cases,
        });
    }
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
    Ok(cases_for(subject.task(), &subject.limits(), specs, tokenizer.as_ref(), tables.as_ref())?)
}

/// An input that no side takes is a slip of the pen: leaving it out in silence would compare something else than was meant.
pub fn refuse_unknown(inputs: &NamedValues, sides: &[&[ValueSpec]]) -> anyhow::Result<()> {
    let known = |name: &str| sides.iter().any(|specs| specs.iter().any(|spec| spec.name == name));
    if let Some(name) = inputs.names().find(|name| !known(name)) {
        let mut all: Vec<&str> =
            sides.iter().flat_map(|specs| specs.iter()).map(|spec| spec.name.as_str()).collect();
        all.sort_unstable();
        all.dedup();
        bail!("there is no input '{name}': this model takes {}", all.join(", "));
    }
    Ok(())
}
