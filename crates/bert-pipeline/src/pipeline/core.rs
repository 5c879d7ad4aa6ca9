//! What every pipeline has: config, tokenizer, and something that runs the model.

use std::error::Error;
use std::sync::Arc;

use candle_bert::{Family, Limits, Model as NativeModel, ReferenceEngine, Task};
use checkpoint::{CheckpointError, ModelFiles, OnnxSource};
use engine::{Dim, Engine, ValueSpec};
use onnx_session::text_inputs::{Tables, with_text_inputs};
use onnx_session::{EngineKind, Model, Session, compiled};
use tokenizers::Encoding;

use super::runner::{Runner, Wanted};
use super::{EngineChoice, Options};
use crate::tokenizer::{Cut, CutFrom};
use crate::{PipelineError, Text, Tokenizer};

/// What a pipeline needs of a model.
#[derive(Clone, Copy)]
pub(crate) struct Need {
    pub(crate) task: Task,
    /// What the pipeline is called, in errors.
    pub(crate) name: &'static str,
    pub(crate) wanted: &'static [Wanted],
    /// What is taken in its place where the model gives it.
    pub(crate) preferred: Option<&'static [Wanted]>,
}

impl Need {
    pub(crate) const fn new(task: Task, name: &'static str, wanted: &'static [Wanted]) -> Self {
        Self { task, name, wanted, preferred: None }
    }

    /// What is taken of a model with these outputs.
    fn of(&self, outputs: &[ValueSpec]) -> &'static [Wanted] {
        let gives = |wanted: &&Wanted| outputs.iter().any(|spec| spec.name == wanted.name);
        self.preferred.filter(|all| all.iter().all(|wanted| gives(&wanted))).unwrap_or(self.wanted)
    }
}

pub(crate) struct Core {
    pub(crate) family: Arc<dyn Family>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) runner: Runner,
    pub(crate) options: Options,
    /// Why the graph is not run, where there is one and it is not.
    pub(crate) note: Option<String>,
}

impl Core {
    /// The model by that engine, or by the one that the options ask for.
    pub(crate) fn new(
        files: &ModelFiles,
        engine: Option<Box<dyn Engine>>,
        need: Need,
        options: &Options,
    ) -> Result<Self, PipelineError> {
        let family = family_for(files, need)?;
        let limits = family.limits();
        let (width, batch_size) = (width(&*family, need.task).unwrap_or(USUAL_WIDTH), options.batch_size);
        let runner = |engine: Box<dyn Engine>| {
            let wanted = need.of(engine.outputs());
            let runner = Runner::new(engine, need.name, wanted, width, batch_size)?;
            Ok::<_, PipelineError>(runner.telling_types(limits.token_types > 1))
        };
        let session = |source, kind| session(&source, kind, &limits, options);
        let native = || runner(native(files, &*family, need.task, options)?);
        let (runner, note) = match (engine, options.engine) {
            (Some(engine), _) => (runner(engine)?, None),
            (None, EngineChoice::Native) => (native()?, None),
            (None, EngineChoice::Session(kind)) => {
                let graph =
                    graph(files, options)?.map_or_else(|| files.any_onnx(), |graph| Ok(Some(graph)))?;
                let source =
                    graph.ok_or_else(|| PipelineError::NoGraph { model: files.name().to_owned() })?;
                (runner(session(source, Some(kind))?)?, None)
            }
            (None, EngineChoice::Auto) => match graph(files, options)? {
                // A graph of another name may be a conversion that has other answers: it is taken
                // where there is nothing else.
                None => match native() {
                    Err(PipelineError::Checkpoint(none @ CheckpointError::NoCheckpoint { .. })) => {
                        let source = files.any_onnx()?.ok_or(none)?;
                        (runner(session(source, None)?)?, None)
                    }
                    native => (native?, None),
                },
                Some(source) => match session(source, None).and_then(runner) {
                    Ok(runner) => (runner, None),
                    // A graph that was given by name must be the one that runs.
                    Err(refusal) if options.onnx.is_some() => return Err(refusal),
                    // Without a checkpoint there is only the graph, and so only its refusal to tell.
                    Err(refusal) => match native() {
                        Ok(runner) => (runner, Some(refusal.to_string())),
                        Err(PipelineError::Checkpoint(_)) => return Err(refusal),
                        Err(error) => return Err(error),
                    },
                },
            },
        };
        at_least_one("batch_size", options.batch_size)?;
        at_least_one("read_ahead", options.read_ahead)?;
        let positions = limits.positions.min(runner.fixed_sequence.unwrap_or(usize::MAX));
        let tokenizer = Tokenizer::from_files(files, Some(positions))?;
        Ok(Self { family, tokenizer, runner, options: options.clone(), note })
    }

    /// How many texts are read ahead of an iteration.
    pub(crate) fn window(&self) -> usize {
        self.options.batch_size.saturating_mul(self.options.read_ahead)
    }

    /// Cuts texts to what the model takes, if the options ask for it, or else if the task does.
    pub(crate) fn cut_if(&mut self, by_default: Option<usize>) -> Result<(), PipelineError> {
        let length = match self.options.truncation {
            Some(true) => by_default.or(self.tokenizer.longest_row()),
            Some(false) => None,
            None => by_default,
        };
        if let Some(length) = length {
            self.tokenizer = self.tokenizer.cutting(Cut { length, stride: 0, from: CutFrom::Longest })?;
        }
        Ok(())
    }

    /// One row a text, cut or refused where it is too long, and which were cut.
    pub(crate) fn encode(&self, texts: &[Text<'_>]) -> Result<(Vec<Encoding>, Vec<bool>), PipelineError> {
        let mut encodings = Vec::with_capacity(texts.len());
        let mut is_cut = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let (rows, was_cut) = self.tokenizer.rows(index, text)?;
            is_cut.push(was_cut);
            encodings.extend(rows.into_iter().take(1));
        }
        Ok((encodings, is_cut))
    }

    /// A label for each of so many scores.
    pub(crate) fn labels(&self, scores: usize) -> Result<Vec<String>, PipelineError> {
        let labels = self.family.num_labels();
        if scores != labels {
            return Err(PipelineError::NoLabels { found: scores, labels });
        }
        Ok((0..labels).map(|id| self.family.label(id).into_owned()).collect())
    }
}

/// A setting that may not be 0.
pub(crate) fn at_least_one(setting: &'static str, found: usize) -> Result<usize, PipelineError> {
    if found == 0 {
        return Err(PipelineError::Argument { setting, expected: "1 or more".to_owned(), found });
    }
    Ok(found)
}

/// Pairs would be one text to a task that takes single ones.
pub(crate) fn refuse_pairs(texts: &[Text<'_>], task: &'static str) -> Result<(), PipelineError> {
    match texts.iter().position(|text| text.second.is_some()) {
        Some(text) => Err(PipelineError::Pair { text, task }),
        None => Ok(()),
    }
}

fn family_for(files: &ModelFiles, need: Need) -> Result<Arc<dyn Family>, PipelineError> {
    let family = candle_bert::family(&files.config()?)?;
    let encoder = family.class(Task::FeatureExtraction);
    let fits = match need.task {
        // Every head stands on an encoder.
        Task::FeatureExtraction => true,
        // A checkpoint of several heads, or one that does not say, may have this one: its tensors
        // will tell.
        task => match family.task() {
            Ok(Task::FeatureExtraction) => !family.architectures().contains(&encoder.into_owned()),
            Ok(found) => found == task,
            Err(_) => false,
        },
    };
    if fits {
        return Ok(family);
    }
    let (model, architectures) = (files.name().to_owned(), family.architectures().to_vec());
    Err(PipelineError::WrongTask { model, task: need.name, architectures })
}

/// The width of what the model of a task gives, as far as that is known.
fn width(family: &dyn Family, task: Task) -> Option<usize> {
    let program = family.program(task, &|_| true).ok()?;
    program.shapes().get(program.outputs.first()?.step)?.width
}

/// What is taken for the width of a model whose family is not known: that of large encoders.
const USUAL_WIDTH: usize = 1024;

fn native(
    files: &ModelFiles,
    family: &dyn Family,
    task: Task,
    options: &Options,
) -> Result<Box<dyn Engine>, PipelineError> {
    let checkpoint = files.checkpoint()?;
    let loaded = NativeModel::from_checkpoint(&checkpoint, family, task, options.dtype, &options.device)?;
    Ok(Box::new(ReferenceEngine::new(loaded.model)))
}

fn graph(files: &ModelFiles, options: &Options) -> Result<Option<OnnxSource>, PipelineError> {
    match &options.onnx {
        Some(path) => Ok(Some(files.graph_named(path)?)),
        None => Ok(files.onnx()?),
    }
}

/// What a model is for: what the `architectures` of config.json say, or, where they say nothing,
/// what the outputs of its graph are those of; without either its features.
///
/// # Errors
/// If a file is missing or malformed, the architecture is none that is done here, or the outputs do
/// not tell.
pub fn task_of(files: &ModelFiles, options: &Options) -> Result<Task, PipelineError> {
    let family = candle_bert::family(&files.config()?)?;
    if family.architectures().is_empty() {
        let graph = match graph(files, options)? {
            None if matches!(files.checkpoint(), Err(CheckpointError::NoCheckpoint { .. })) => {
                files.any_onnx()?
            }
            graph => graph,
        };
        if let Some(source) = graph {
            let model = open(&source)?;
            return by_outputs(&model, &*family)
                .ok_or_else(|| PipelineError::UnknownTask { outputs: names(&model.graph.outputs) });
        }
    }
    family.task().map_err(|source| PipelineError::Task { model: files.name().to_owned(), source })
}

/// The task whose outputs these are, if there is only one.
fn by_outputs(model: &Model, family: &dyn Family) -> Option<Task> {
    let graph = &model.graph;
    let output = |wanted: &str| graph.outputs.iter().find(|spec| spec.name == wanted);
    let rank = |spec: &ValueSpec| spec.shape.as_ref().map(Vec::len);
    let Some(logits) = output(Wanted::LABELS.name) else {
        let spans = output(Wanted::START.name).is_some() && output(Wanted::END.name).is_some();
        return Some(if spans { Task::QuestionAnswering } else { Task::FeatureExtraction });
    };
    let has_choices = graph.inputs.iter().any(|spec| rank(spec) == Some(3));
    match (rank(logits)?, logits.shape.as_ref()?.last()?) {
        (2, _) if has_choices => Some(Task::MultipleChoice),
        (2, _) => Some(Task::SequenceClassification),
        (3, Dim::Fixed(width)) if *width == family.num_labels() => Some(Task::TokenClassification),
        (3, Dim::Fixed(width)) if *width == family.limits().vocabulary => Some(Task::MaskedLm),
        _ => None,
    }
}

fn names(specs: &[ValueSpec]) -> Vec<String> {
    specs.iter().map(ToString::to_string).collect()
}

/// The graph on that engine, or on the fastest that takes it, with the usual inputs.
fn session(
    source: &OnnxSource,
    kind: Option<EngineKind>,
    limits: &Limits,
    options: &Options,
) -> Result<Box<dyn Engine>, PipelineError> {
    let failed = |source: Box<dyn Error + Send + Sync>, graph| PipelineError::Graph { graph, source };
    let tables = Tables { vocabulary: limits.vocabulary, token_types: limits.token_types };
    let (model, _) = with_text_inputs(open(source)?, &options.inputs, tables)
        .map_err(|error| failed(error.into(), source.to_string()))?;
    let session = match kind {
        Some(kind) => Session::new(&model, kind),
        None => Session::fastest(&model, compiled::Options::default()),
    };
    Ok(Box::new(session.map_err(|error| failed(error.into(), source.to_string()))?))
}

fn open(source: &OnnxSource) -> Result<Model, PipelineError> {
    match source {
        OnnxSource::File(path) => Model::open(path),
        OnnxSource::Memory { bytes, .. } => Model::from_bytes(bytes.clone()),
    }
    .map_err(|error| PipelineError::Graph { graph: source.to_string(), source: error.into() })
}
