//! What is checked: a model's files, and the two ways to run them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use architecture::{Family, Limits, Program, Task, TaskError};
use bert_pipeline::Tokenizer;
use bytes::Bytes;
use candle_blocks::{Model as NativeModel, ModelError, ReferenceEngine};
use candle_core::{DType, Device};
use checkpoint::{Checkpoint, CheckpointError, ModelFiles, OnnxSource};
use engine::shown_path;
use onnx_graph::{ExternalFault, GraphError, Model};
use onnx_session::text_inputs::{Tables, with_text_inputs};

use crate::ParityError;

/// The states of all tokens, by the reference's name.
pub(crate) const HIDDEN: &str = "last_hidden_state";

/// The states of all tokens, by sentence-transformers' name.
pub(crate) const TOKENS: &str = "token_embeddings";

/// One vector for each row, by sentence-transformers' name.
pub(crate) const SENTENCE: &str = "sentence_embedding";

/// A model: its files and its configuration.
pub struct Subject {
    files: ModelFiles,
    family: Arc<dyn Family>,
    /// What it is made of without its head, with every part that the checkpoint may have.
    program: Program,
    /// What `architectures` says, or what was asked for.
    task: Result<Task, TaskError>,
    /// What inputs of its graphs are, by the usual names, where their own do not tell.
    inputs: BTreeMap<String, String>,
}

/// The files of a model, or those of the embedded default.
fn read(
    model: Option<&str>,
    open: impl FnOnce(&str) -> Result<ModelFiles, CheckpointError>,
) -> Result<ModelFiles, ParityError> {
    Ok(match model {
        None => ModelFiles::from_memory(
            bert_tiny::NAME,
            bert_tiny::FILES.iter().map(|&(name, bytes)| (name, Bytes::from_static(bytes))),
        ),
        Some(path) if is_graph(path) => return Err(ParityError::IsAGraph { path: path.into() }),
        Some(model) => open(model)?,
    })
}

fn family_of(files: &ModelFiles) -> Result<Arc<dyn Family>, ParityError> {
    candle_bert::family(&files.config()?)
        .map_err(|source| ParityError::Config { model: files.name().into(), source: source.into() })
}

/// A graph that was read and checked, and takes the usual inputs.
pub struct Opened {
    /// The name it goes by in a report.
    pub onnx: String,
    /// The graph.
    pub model: Model,
    /// What was done so that it takes them, in sentences: see [`onnx_session::text_inputs`].
    pub notes: Vec<String>,
}

/// The reference path of a model, and what its checkpoint holds beside it.
pub struct Reference {
    /// The model on candle.
    pub engine: ReferenceEngine,
    /// Tensors of the checkpoint that the model does not use.
    pub unused: Vec<String>,
}

impl Subject {
    /// Opens a model: a folder, the id of a model on the hub, or nothing for the embedded default.
    ///
    /// With the feature `hub` (on by default) what the hub cache lacks is downloaded, when it is needed: see [`ModelFiles::fetch`].
    ///
    /// # Errors
    /// If there is no such model, or its config.json is missing or contradicts itself.
    pub fn open(model: Option<&str>) -> Result<Self, ParityError> {
        #[cfg(feature = "hub")]
        return Self::open_telling(model, ());
        #[cfg(not(feature = "hub"))]
        Self::of_known_family(read(model, ModelFiles::open)?)
    }

    /// A model of any family, known here or not, opened as by [`Subject::open`]: what is known of
    /// one that is not are its files and its graphs.
    ///
    /// # Errors
    /// As [`Subject::open`].
    pub fn open_any(model: Option<&str>) -> Result<Self, ParityError> {
        #[cfg(feature = "hub")]
        return Self::open_any_telling(model, ());
        #[cfg(not(feature = "hub"))]
        Self::of_any_family(read(model, ModelFiles::open)?)
    }

    /// The same, telling of downloads.
    ///
    /// # Errors
    /// As [`Subject::open`].
    #[cfg(feature = "hub")]
    pub fn open_telling(
        model: Option<&str>,
        progress: impl checkpoint::Progress + 'static,
    ) -> Result<Self, ParityError> {
        Self::of_known_family(read(model, |model| ModelFiles::fetch(model, progress))?)
    }

    /// [`Subject::open_any`], telling of downloads.
    ///
    /// # Errors
    /// As [`Subject::open`].
    #[cfg(feature = "hub")]
    pub fn open_any_telling(
        model: Option<&str>,
        progress: impl checkpoint::Progress + 'static,
    ) -> Result<Self, ParityError> {
        Self::of_any_family(read(model, |model| ModelFiles::fetch(model, progress))?)
    }

    fn of_known_family(files: ModelFiles) -> Result<Self, ParityError> {
        let family = family_of(&files)?;
        Self::new(files, family)
    }

    fn of_any_family(files: ModelFiles) -> Result<Self, ParityError> {
        let family = family_of(&files)?;
        let program = family.program(Task::FeatureExtraction, &|_| true).unwrap_or_default();
        let task = family.task();
        Ok(Self { files, family, program, task, inputs: BTreeMap::new() })
    }

    /// A model of a family of one's own: its files, and what its config says.
    ///
    /// # Errors
    /// If the config contradicts itself.
    pub fn new(files: ModelFiles, family: Arc<dyn Family>) -> Result<Self, ParityError> {
        let program = family
            .program(Task::FeatureExtraction, &|_| true)
            .map_err(|source| ParityError::Config { model: files.name().into(), source })?;
        let task = family.task();
        Ok(Self { files, family, program, task, inputs: BTreeMap::new() })
    }

    /// What the user called it.
    pub fn name(&self) -> &str {
        self.files.name()
    }

    /// Its files.
    pub fn files(&self) -> &ModelFiles {
        &self.files
    }

    /// Its family, with what config.json says.
    pub fn family(&self) -> &dyn Family {
        &*self.family
    }

    /// What it is made of without its head, with every part that the checkpoint may have.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// What inputs it takes.
    pub fn limits(&self) -> Limits {
        self.family.limits()
    }

    /// Why its checkpoint is not that of its config.
    pub(crate) fn unfit(&self, source: impl Into<ModelError>) -> ParityError {
        ParityError::Weights { model: self.name().into(), source: Box::new(source.into()) }
    }

    /// The same for another task than its `architectures` say: with another head, or without one.
    pub fn for_task(self, task: Task) -> Self {
        Self { task: Ok(task), ..self }
    }

    /// Says of inputs of its graphs what they are, by the usual name: `attention_mask` is
    /// `input.2`.
    pub fn naming_inputs(self, inputs: BTreeMap<String, String>) -> Self {
        Self { inputs, ..self }
    }

    /// Without a head where all outputs of all graphs are the encoder's, or made of them; says so, if that is done. A checkpoint with a head is often exported for
    /// its features.
    pub fn fit_to(&mut self, graphs: &[&Model]) -> Option<String> {
        let task = self.task();
        let names = || {
            let specs = graphs.iter().flat_map(|model| &model.graph.outputs);
            specs.map(|spec| spec.name.as_str())
        };
        let feature = |name: &str| Task::FeatureExtraction.outputs().contains(&name) || is_further(name);
        // An output that is none of these may be the head's, by another name.
        if task == Task::FeatureExtraction || !names().all(feature) {
            return None;
        }
        self.task = Ok(Task::FeatureExtraction);
        let missing = task.outputs().join(", ");
        Some(format!(
            "config.json says {}, and the graph has no output {missing}: what was judged are the features, without the head",
            self.family.class(task)
        ))
    }

    /// What the model is for: the task of its `architectures`, unless another was asked for.
    pub fn task(&self) -> Task {
        // Without a known one nothing gets as far as a reference.
        self.task.clone().unwrap_or(Task::FeatureExtraction)
    }

    fn known_task(&self) -> Result<Task, ParityError> {
        let unknown = |source| ParityError::Task { model: self.name().into(), source };
        self.task.clone().map_err(unknown)
    }

    /// The native model, from the checkpoint's weights.
    ///
    /// # Errors
    /// If a weight is missing or has the wrong shape.
    pub fn reference(&self, dtype: DType) -> Result<Reference, ParityError> {
        self.reference_of(&self.files.checkpoint()?, dtype, &Device::Cpu)
    }

    /// The native model with the weights of another checkpoint of the same config, on any device.
    ///
    /// # Errors
    /// If a weight is missing or has the wrong shape.
    pub fn reference_of(
        &self,
        checkpoint: &Checkpoint,
        dtype: DType,
        device: &Device,
    ) -> Result<Reference, ParityError> {
        let task = self.known_task()?;
        let loaded = NativeModel::from_checkpoint(checkpoint, self.family(), task, dtype, device)
            .map_err(|source| self.unfit(source))?;
        Ok(Reference { engine: ReferenceEngine::new(loaded.model), unused: loaded.unused })
    }

    /// The graph in that file, or else the one beside the checkpoint, read and checked. Whatever it
    /// calls its inputs and however it wants its mask, it is given the usual ones.
    ///
    /// A file that is not here may be one of the model's: `onnx/model_O4.onnx`, say. A graph beside
    /// the checkpoint may have any name, if it is the only one.
    ///
    /// # Errors
    /// If there is none, or several and none with a usual name, it is malformed, or it insists on
    /// an input that a text does not have.
    pub fn open_graph(&self, onnx: Option<&Path>) -> Result<Opened, ParityError> {
        self.open_among(&self.files, onnx)
    }

    /// As [`Subject::open_graph`], of the files of an exported folder.
    ///
    /// # Errors
    /// As [`Subject::open_graph`].
    pub fn open_among(&self, files: &ModelFiles, onnx: Option<&Path>) -> Result<Opened, ParityError> {
        let (onnx, model) = graph_of(files, onnx)?;
        let Limits { vocabulary, token_types, .. } = self.limits();
        match with_text_inputs(model, &self.inputs, Tables { vocabulary, token_types }) {
            Ok((model, notes)) => Ok(Opened { onnx, model, notes }),
            Err(source) => Err(ParityError::Inputs { onnx, source }),
        }
    }

    /// As [`Subject::open_graph`], in short: the graph under its name.
    ///
    /// # Errors
    /// As [`Subject::open_graph`].
    pub fn graph(&self, onnx: Option<&Path>) -> Result<(String, Model), ParityError> {
        let Opened { onnx, model, .. } = self.open_graph(onnx)?;
        Ok((onnx, model))
    }

    /// As [`Subject::open_graph`], but where there is none, one is made of the checkpoint, in
    /// memory: see [`Subject::has_graph`].
    ///
    /// # Errors
    /// As [`Subject::open_graph`], or if no graph can be made of the checkpoint.
    pub fn open_or_export(&self, onnx: Option<&Path>) -> Result<Opened, ParityError> {
        if onnx.is_some() || self.has_graph()? {
            return self.open_graph(onnx);
        }
        let options = onnx_export::Options { task: self.known_task()?, ..Default::default() };
        let model = onnx_export::export(&self.files.checkpoint()?, self.family(), &options)
            .map_err(|source| ParityError::Export { model: self.name().into(), source: Box::new(source) })?;
        Ok(Opened { onnx: format!("{} (exported in memory)", self.name()), model, notes: Vec::new() })
    }

    /// As [`Subject::open_or_export`], in short: the graph under its name.
    ///
    /// # Errors
    /// As [`Subject::open_or_export`].
    pub fn graph_or_export(&self, onnx: Option<&Path>) -> Result<(String, Model), ParityError> {
        let Opened { onnx, model, .. } = self.open_or_export(onnx)?;
        Ok((onnx, model))
    }

    /// Whether a graph lies beside the checkpoint.
    ///
    /// # Errors
    /// If one is there and cannot be read.
    pub fn has_graph(&self) -> Result<bool, ParityError> {
        Ok(self.files.any_onnx()?.is_some())
    }

    /// The tokenizer, if the model has one.
    ///
    /// # Errors
    /// If its files are there and malformed.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>, ParityError> {
        let files = self.files.transformer()?;
        if files.read("tokenizer.json")?.is_none() && files.read("vocab.txt")?.is_none() {
            return Ok(None);
        }
        Ok(Some(Tokenizer::from_files(&self.files, Some(self.limits().positions))?))
    }

    /// The tokenizer, where it is needed.
    ///
    /// # Errors
    /// If there is none, or it is malformed.
    pub fn require_tokenizer(&self) -> Result<Tokenizer, ParityError> {
        self.tokenizer()?.ok_or_else(|| ParityError::NoTokenizer { model: self.name().into() })
    }
}

/// What the checkpoint says: the model in f32, as it would be deployed, and in f64, as it is meant.
pub struct References {
    /// In f32.
    pub single: Reference,
    /// In f64.
    pub double: Reference,
    /// Where their weights are from.
    pub(crate) checkpoint: Checkpoint,
}

impl References {
    /// Loads the checkpoint in both, on the CPU.
    ///
    /// # Errors
    /// If a weight is missing or has the wrong shape.
    pub fn load(subject: &Subject) -> Result<Self, ParityError> {
        Self::load_on(subject, &Device::Cpu)
    }

    /// Loads the checkpoint in both, in f32 on that device. The one in f64 judges, and stays on the
    /// CPU.
    ///
    /// # Errors
    /// As [`References::load`].
    pub fn load_on(subject: &Subject, device: &Device) -> Result<Self, ParityError> {
        Self::of(subject, subject.files().checkpoint()?, device)
    }

    /// The references of another checkpoint of the same config.
    pub(crate) fn of(
        subject: &Subject,
        checkpoint: Checkpoint,
        device: &Device,
    ) -> Result<Self, ParityError> {
        Ok(Self {
            single: subject.reference_of(&checkpoint, DType::F32, device)?,
            double: subject.reference_of(&checkpoint, DType::F64, &Device::Cpu)?,
            checkpoint,
        })
    }
}

/// Whether an output of that name is made of the encoder's values, whatever the head.
fn is_further(name: &str) -> bool {
    [TOKENS, SENTENCE].contains(&name)
        || ["hidden_states.", "attentions."].iter().any(|of| name.starts_with(of))
}

/// Whether what stands for a model is a graph by itself: its name ends in `.onnx`, or it is a pipe
/// or standard input, through which no folder comes.
pub fn is_graph(model: &str) -> bool {
    model.ends_with(".onnx") || engine::is_stream(model).unwrap_or(false)
}

/// A graph of a model's: the one in that file, or else the one beside the checkpoint.
///
/// # Errors
/// As [`Subject::graph`].
fn graph_of(files: &ModelFiles, onnx: Option<&Path>) -> Result<(String, Model), ParityError> {
    let source = match onnx {
        Some(path) => files.graph_named(path)?,
        None => files.any_onnx()?.ok_or_else(|| ParityError::NoGraph { model: files.name().into() })?,
    };
    let mut asked_for = None;
    loop {
        match open_graph(source.clone()) {
            // Only the graph knows what it calls the files that its weights lie in.
            Err(ParityError::Graph { source: error, onnx }) => match missing_data(files, &source, &error) {
                Some(file) if asked_for.as_ref() != Some(&file) => {
                    files.require(&file)?;
                    asked_for = Some(file);
                }
                _ => return Err(ParityError::Graph { source: error, onnx }),
            },
            opened => return opened,
        }
    }
}

/// The file of a model on the hub that a graph of it needs and that is not here yet.
fn missing_data(files: &ModelFiles, source: &OnnxSource, error: &GraphError) -> Option<String> {
    let (OnnxSource::File(graph), GraphError::External { location, fault: ExternalFault::Missing(_), .. }) =
        (source, error)
    else {
        return None;
    };
    let folder = files.folder().filter(|_| files.is_on_hub())?;
    let beside = graph.strip_prefix(folder).ok()?.parent()?.join(location);
    let parts: Option<Vec<&str>> = beside.iter().map(|part| part.to_str()).collect();
    Some(parts?.join("/"))
}

/// Reads and checks a graph; it comes with the name it goes by in a report.
///
/// # Errors
/// If it is missing or malformed; the message names the file.
pub fn open_graph(source: OnnxSource) -> Result<(String, Model), ParityError> {
    let onnx = shown_path(source.name().as_ref().as_ref()).into_owned();
    let model = match source {
        OnnxSource::File(path) => Model::open(path),
        OnnxSource::Memory { bytes, .. } => Model::from_bytes(bytes),
    };
    match model {
        Ok(model) => Ok((onnx, model)),
        Err(source) => Err(ParityError::Graph { onnx, source: Box::new(source) }),
    }
}
