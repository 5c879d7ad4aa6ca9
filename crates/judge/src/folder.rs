//! The files beside an exported graph, against those of its checkpoint: whoever deploys the folder
//! reads texts and names answers by them.

use std::path::{Path, PathBuf};

use architecture::Task;
use bert_pipeline::usage::{self, Setting};
use bert_pipeline::{PipelineError, Tokenizer};
use bytes::Bytes;
use checkpoint::{CheckpointError, ModelFiles};
use report::FolderDifference;

use crate::{ParityError, Subject, tokenizer};

const CONFIG: &str = "config.json";

/// The files that a tokenizer is made of, any of which will do.
const TOKENIZERS: [&str; 2] = ["tokenizer.json", "vocab.txt"];

/// What matters only to tasks whose answers are labels.
const LABELS: [&str; 2] = ["labels", "problem_type"];

/// Reads one kind of settings.
type Read = fn(&ModelFiles) -> Result<Vec<Setting>, PipelineError>;

/// The exported folder that a graph lies in, at its top or in `onnx`: one with a config.json that
/// is not the checkpoint's own.
pub(crate) fn around(graph: &Path, checkpoint: &ModelFiles) -> Option<ModelFiles> {
    // What is not here is in the model's own repository.
    let graph = Some(graph).filter(|graph| graph.is_file())?;
    // The parent of `model.onnx` is the empty path.
    let shown = |folder: &Path| match folder.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => folder.to_path_buf(),
    };
    let here = graph.parent()?;
    let above = here.parent().filter(|_| here.file_name().is_some_and(|name| name == "onnx"));
    let mut folders = [Some(here), above].into_iter().flatten().map(shown);
    let folder = folders.find(|folder| folder.join(CONFIG).is_file())?;
    let resolved = |path: &Path| path.canonicalize().ok();
    let is_own = |files: ModelFiles| files.place().and_then(|own| resolved(&own)) == resolved(&folder);
    let own = [Some(checkpoint.clone()), checkpoint.transformer().ok()];
    match own.into_iter().flatten().any(is_own) {
        true => None,
        false => ModelFiles::from_folder(folder).ok(),
    }
}

/// What the exported folder says otherwise than the checkpoint. What could not be compared, and
/// files that only one of them has, are notes.
///
/// # Errors
/// If a file of the folder cannot be read at all.
pub(crate) fn compare(
    subject: &Subject,
    export: &ModelFiles,
    notes: &mut Vec<String>,
) -> Result<Vec<FolderDifference>, ParityError> {
    let mut sides = Sides { subject, export, differences: Vec::new(), notes };
    if is_there(export, CONFIG)? {
        sides.settings(usage::labels)?;
    } else {
        sides.missing(CONFIG, "its labels were not compared");
    }
    match (has_tokenizer(subject.files())?, has_tokenizer(export)?) {
        (true, true) => {
            sides.tokenizers();
            sides.settings(usage::reading)?;
        }
        (true, false) => sides.missing(TOKENIZERS[0], "how it reads texts was not compared"),
        (false, _) => {}
    }
    sides.settings(usage::sentence)?;
    Ok(sides.differences)
}

struct Sides<'a> {
    subject: &'a Subject,
    export: &'a ModelFiles,
    differences: Vec<FolderDifference>,
    notes: &'a mut Vec<String>,
}

impl Sides<'_> {
    fn missing(&mut self, file: &str, what: &str) {
        self.notes.push(format!("{} has no {file}: {what}", self.export.name()));
    }

    fn add(&mut self, file: &str, what: &str, [checkpoint, export]: [Option<String>; 2], fails: bool) {
        let (folder, file, what) = (self.export.name().to_owned(), file.to_owned(), what.to_owned());
        self.differences.push(FolderDifference { folder, file, what, checkpoint, export, fails });
    }

    /// Compares settings of one kind, by what they are.
    fn settings(&mut self, read: Read) -> Result<(), ParityError> {
        let own = match read(self.subject.files()) {
            Ok(own) => own,
            Err(error) => {
                let (name, checkpoint) = (self.export.name(), self.subject.name());
                self.notes.push(format!(
                    "{name} was not held against what {checkpoint} says, because that cannot be read: {error}"
                ));
                return Ok(());
            }
        };
        let theirs = match read(self.export) {
            Ok(theirs) => theirs,
            Err(error) => {
                if let Some(Setting { file, what, value }) = own.into_iter().next() {
                    self.add(&file, &what, [Some(value), Some(error.to_string())], true);
                }
                return Ok(());
            }
        };
        for setting in own.iter().chain(&theirs) {
            let find = |list: &[Setting]| list.iter().find(|other| other.what == setting.what).cloned();
            let sides = [find(&own), find(&theirs)];
            // One that both have was seen among the first folder's.
            let is_seen = sides.iter().all(Option::is_some) && !own.contains(setting);
            let values = sides.clone().map(|side| side.map(|side| side.value));
            if !is_seen && values[0] != values[1] {
                self.differ(sides, values)?;
            }
        }
        Ok(())
    }

    /// Takes in a setting that is not the same. What a folder leaves out, it does not contradict.
    fn differ(
        &mut self,
        sides: [Option<Setting>; 2],
        values: [Option<String>; 2],
    ) -> Result<(), ParityError> {
        let [own, theirs] = &sides;
        let Some(setting) = theirs.as_ref().or(own.as_ref()) else { return Ok(()) };
        let (checkpoint, export) = (self.subject.files(), self.export);
        let said_by = own.as_ref().unwrap_or(setting);
        let needed = [(checkpoint, &said_by.file), (export, &said_by.file), (export, &setting.file)];
        for (files, file) in needed {
            if !is_there(files, file)? {
                let [here, there] = values.map(|value| value.unwrap_or_else(|| "not set".into()));
                self.notes.push(format!(
                    "{} has no {file}: {} is {there} in {}, and {here} in {}",
                    files.name(),
                    setting.what,
                    export.name(),
                    checkpoint.name()
                ));
                return Ok(());
            }
        }
        let fails = !LABELS.contains(&setting.what.as_str()) || has_labels(self.subject.task());
        self.add(&setting.file, &setting.what, values, fails);
        Ok(())
    }

    /// Compares what both tokenizers make of texts, and their vocabularies; those of a kind that is
    /// not done here by their files.
    fn tokenizers(&mut self) {
        let sides = [self.subject.files(), self.export];
        let of = |files: &ModelFiles| Tokenizer::from_files(files, None);
        let read = |files: &ModelFiles, file: &str| files.transformer().ok()?.read(file).ok()?;
        let file = TOKENIZERS.into_iter().find(|file| read(self.export, file).is_some());
        let file = file.unwrap_or(TOKENIZERS[0]);
        match sides.map(of) {
            [Ok(own), Ok(theirs)] => match tokenizer::part([&own, &theirs]) {
                Ok(None) => {}
                Ok(Some((what, values))) => self.add(file, &what, values, true),
                Err(error) => self.notes.push(format!("the tokenizers were not compared: {error}")),
            },
            [Ok(_), Err(error)] => {
                let values = [Some("one that reads texts".into()), Some(error.to_string())];
                self.add(file, "the tokenizer", values, true);
            }
            [Err(_), _] => {
                for file in TOKENIZERS {
                    let bytes = sides.map(|files| read(files, file));
                    if bytes.iter().all(Option::is_some) && bytes[0] != bytes[1] {
                        let words =
                            |bytes: Option<Bytes>| bytes.map(|it| format!("one of {} bytes", it.len()));
                        self.add(file, "the file", bytes.map(words), true);
                    }
                }
            }
        }
    }
}

/// Whether the answers of a task are called by the labels.
fn has_labels(task: Task) -> bool {
    matches!(task, Task::SequenceClassification | Task::TokenClassification)
}

fn has_tokenizer(files: &ModelFiles) -> Result<bool, CheckpointError> {
    let files = files.transformer()?;
    Ok(is_there(&files, TOKENIZERS[0])? || is_there(&files, TOKENIZERS[1])?)
}

/// Whether a file is among a model's, or the transformer's.
fn is_there(files: &ModelFiles, file: &str) -> Result<bool, CheckpointError> {
    Ok(files.read(file)?.is_some() || files.transformer()?.read(file)?.is_some())
}
