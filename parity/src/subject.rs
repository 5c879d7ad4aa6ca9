//! What is checked: a model's files, and the two ways to run them.

use std::path::Path;

use bert_pipeline::Tokenizer;
use bytes::Bytes;
use candle_bert::{BertConfig, BertModel, ReferenceEngine};
use candle_core::{DType, Device};
use checkpoint::{Checkpoint, ModelFiles, OnnxSource};
use onnx_graph::Model;

use crate::ParityError;

/// A model: its files and its configuration.
pub struct Subject {
    files: ModelFiles,
    config: BertConfig,
}

/// The reference path of a model, and what its checkpoint holds beside it.
pub struct Reference {
    /// The model on candle.
    pub engine: ReferenceEngine,
    /// Tensors of the checkpoint that the model does not use.
    pub unused: Vec<String>,
}

impl Subject {
    /// Opens a model: a folder, a hub id that lies in the cache, or nothing for the embedded default.
    ///
    /// # Errors
    /// If there is no such model, or its config.json is missing or contradicts itself.
    pub fn open(model: Option<&str>) -> Result<Self, ParityError> {
        let files = match model {
            None => ModelFiles::from_memory(
                bert_tiny::NAME,
                bert_tiny::FILES.iter().map(|&(name, bytes)| (name, Bytes::from_static(bytes))),
            ),
            Some(path) if path.ends_with(".onnx") => return Err(ParityError::IsAGraph { path: path.into() }),
            Some(model) => ModelFiles::open(model)?,
        };
        let config = BertConfig::from_json(&files.config()?)
            .map_err(|source| ParityError::Config { model: files.name().into(), source })?;
        Ok(Self { files, config })
    }

    /// What the user called it.
    pub fn name(&self) -> &str {
        self.files.name()
    }

    /// Its files.
    pub fn files(&self) -> &ModelFiles {
        &self.files
    }

    /// Its configuration.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The native model, from the checkpoint's weights.
    ///
    /// # Errors
    /// If a weight is missing or has the wrong shape.
    pub fn reference(&self, dtype: DType) -> Result<Reference, ParityError> {
        self.reference_of(&self.files.checkpoint()?, dtype)
    }

    /// The native model with the weights of another checkpoint of the same config.
    ///
    /// # Errors
    /// If a weight is missing or has the wrong shape.
    pub fn reference_of(&self, checkpoint: &Checkpoint, dtype: DType) -> Result<Reference, ParityError> {
        let loaded = BertModel::from_checkpoint(checkpoint, &self.config, dtype, &Device::Cpu)
            .map_err(|source| ParityError::Weights { model: self.name().into(), source: Box::new(source) })?;
        Ok(Reference { engine: ReferenceEngine::new(loaded.model), unused: loaded.unused })
    }

    /// The graph in that file, or else the one beside the checkpoint, read and checked, under the name it goes by in a report.
    ///
    /// # Errors
    /// If there is none, or it is malformed.
    pub fn graph(&self, onnx: Option<&Path>) -> Result<(String, Model), ParityError> {
        let source = match onnx {
            Some(path) => Some(OnnxSource::File(path.into())),
            None => self.files.onnx()?,
        };
        let Some(source) = source else { return Err(ParityError::NoGraph { model: self.name().into() }) };
        open_graph(source)
    }

    /// The tokenizer, if the model has one.
    ///
    /// # Errors
    /// If its files are there and malformed.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>, ParityError> {
        if self.files.read("tokenizer.json")?.is_none() && self.files.read("vocab.txt")?.is_none() {
            return Ok(None);
        }
        Ok(Some(Tokenizer::from_files(&self.files, Some(self.config.max_position_embeddings))?))
    }

    /// The tokenizer, where it is needed.
    ///
    /// # Errors
    /// If there is none, or it is malformed.
    pub fn require_tokenizer(&self) -> Result<Tokenizer, ParityError> {
        self.tokenizer()?.ok_or_else(|| ParityError::NoTokenizer { model: self.name().into() })
    }
}

/// Reads and checks a graph; it comes with the name it goes by in a report.
///
/// # Errors
/// If it is missing or malformed; the message names the file.
pub fn open_graph(source: OnnxSource) -> Result<(String, Model), ParityError> {
    let onnx = source.to_string();
    let model = match source {
        OnnxSource::File(path) => Model::open(path),
        OnnxSource::Memory { bytes, .. } => Model::from_bytes(bytes),
    };
    match model {
        Ok(model) => Ok((onnx, model)),
        Err(source) => Err(ParityError::Graph { onnx, source: Box::new(source) }),
    }
}
