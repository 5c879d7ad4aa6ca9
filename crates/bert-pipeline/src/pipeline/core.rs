//! What every pipeline has: config, tokenizer, and something that runs the model.

use candle_bert::{BertConfig, BertForTask, Family as _, ReferenceEngine, Task};
use checkpoint::{ModelFiles, OnnxSource};
use engine::Engine;
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
}

pub(crate) struct Core {
    pub(crate) config: BertConfig,
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
        let config = config_for(files, need)?;
        let (width, batch_size) = (width(&config, need.task), options.batch_size);
        let runner = |engine| Runner::new(engine, need.name, need.wanted, width, batch_size);
        let native = || runner(native(files, &config, need.task, options)?);
        let (runner, note) = match (engine, options.engine) {
            (Some(engine), _) => (runner(engine)?, None),
            (None, EngineChoice::Native) => (native()?, None),
            (None, EngineChoice::Session(kind)) => {
                let graph = graph(files, options)?;
                let source =
                    graph.ok_or_else(|| PipelineError::NoGraph { model: files.name().to_owned() })?;
                (runner(session(source, Some(kind))?)?, None)
            }
            (None, EngineChoice::Auto) => match graph(files, options)? {
                None => (native()?, None),
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
        let positions = config.max_position_embeddings.min(runner.fixed_sequence.unwrap_or(usize::MAX));
        let tokenizer = Tokenizer::from_files(files, Some(positions))?;
        Ok(Self { config, tokenizer, runner, options: options.clone(), note })
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
        let labels = self.config.num_labels;
        if scores != labels {
            return Err(PipelineError::NoLabels { found: scores, labels });
        }
        Ok((0..labels).map(|id| self.config.label(id).into_owned()).collect())
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

fn config_for(files: &ModelFiles, need: Need) -> Result<BertConfig, PipelineError> {
    let config = BertConfig::from_json(&files.config()?)?;
    let fits = match need.task {
        // Every head stands on an encoder.
        Task::FeatureExtraction => true,
        // A checkpoint of several heads, or one that does not say, may have this one: its tensors
        // will tell.
        task => match config.task() {
            Ok(Task::FeatureExtraction) => !config.architectures.iter().any(|class| class == "BertModel"),
            Ok(found) => found == task,
            Err(_) => false,
        },
    };
    if fits {
        return Ok(config);
    }
    let (model, architectures) = (files.name().to_owned(), config.architectures);
    Err(PipelineError::WrongTask { model, task: need.name, architectures })
}

fn width(config: &BertConfig, task: Task) -> usize {
    if task == Task::MaskedLm { config.vocab_size } else { config.hidden_size }
}

fn native(
    files: &ModelFiles,
    config: &BertConfig,
    task: Task,
    options: &Options,
) -> Result<Box<dyn Engine>, PipelineError> {
    let checkpoint = files.checkpoint()?;
    let loaded = BertForTask::from_checkpoint(task, &checkpoint, config, options.dtype, &options.device)?;
    Ok(Box::new(ReferenceEngine::new(loaded.model)))
}

fn graph(files: &ModelFiles, options: &Options) -> Result<Option<OnnxSource>, PipelineError> {
    match &options.onnx {
        Some(path) => Ok(Some(OnnxSource::File(path.clone()))),
        None => Ok(files.onnx()?),
    }
}

/// The graph on that engine, or on the fastest that takes it.
fn session(source: OnnxSource, kind: Option<EngineKind>) -> Result<Box<dyn Engine>, PipelineError> {
    let name = source.to_string();
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| PipelineError::Graph {
        graph: name.clone(),
        source,
    };
    let model = match source {
        OnnxSource::File(path) => Model::open(path),
        OnnxSource::Memory { bytes, .. } => Model::from_bytes(bytes),
    }
    .map_err(|error| failed(error.into()))?;
    let session = match kind {
        Some(kind) => Session::new(&model, kind),
        None => Session::fastest(&model, compiled::Options::default()),
    };
    Ok(Box::new(session.map_err(|error| failed(error.into()))?))
}
