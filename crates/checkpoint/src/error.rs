use std::io;
use std::path::PathBuf;

use engine::{MapError, ValueError};

use crate::TorchError;

/// Why a model's files could not be found or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum CheckpointError {
    /// A folder was asked for, and something else is there.
    #[error("{} is not a folder: give the folder of a model", .0.display())]
    NotAFolder(PathBuf),
    /// A file was given where a model is wanted.
    #[error("'{model}' is a file: give the folder it lies in, or a hub id such as 'org/name'")]
    IsAFile { model: String },
    /// What was given is spelled as a path, and nothing is there.
    #[error("there is no folder '{model}': check the path")]
    NoSuchFolder { model: String },
    /// What was given is neither a folder nor spelled as a hub id.
    #[error(
        "there is no folder '{model}' here, nor is it a hub id such as 'name', 'org/name', \
         'org/name@revision' or 'org/name/folder': check the spelling"
    )]
    NotAModel { model: String },
    /// There is no folder of that name here, and the hub cache does not have the model.
    #[error(
        "there is no folder '{model}' here, and the hub cache {} has no {folder}: put the model's folder there, set HF_HOME \
         to the place that has it, or give the path of a folder",
        cache.display()
    )]
    NotCached { model: String, cache: PathBuf, folder: String },
    /// The hub cache has the model, but not at this revision.
    #[error(
        "the hub cache has '{model}' at {available}, but not at revision '{revision}' (looked in {}): name \
         one that it has, or download that one",
        repository.display()
    )]
    RevisionNotCached { model: String, revision: String, repository: PathBuf, available: String },
    /// The hub cache has the model, but not that folder of it.
    #[error("the hub cache has '{model}', but no folder '{subfolder}' in it; it has {has}")]
    SubfolderNotCached { model: String, subfolder: String, has: String },
    /// The hub refuses, cannot be reached, or must not be asked.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(Box<crate::HubError>),
    /// No environment variable and no home folder say where the hub cache is.
    #[error("there is no folder '{model}' here, and no hub cache either: check the path, or set HF_HOME")]
    NoCache { model: String },
    /// The model lacks a file.
    #[error(
        "{model} has no {file}; a model folder needs config.json, model.safetensors, tokenizer.json or vocab.txt, and \
             for its graph onnx/model.onnx; this one has {has}"
    )]
    Missing { model: String, file: String, has: String },
    /// The model has no checkpoint in any form that is known.
    #[error(
        "{model} has no checkpoint: looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin and \
             pytorch_model.bin.index.json; put one of them there; it has {has}"
    )]
    NoCheckpoint { model: String, has: String },
    /// There are graphs, and none of them has the name that tells which is meant.
    #[error(
        "{model} has {} graphs, and none of them is called onnx/model.onnx or model.onnx; say which is meant:{}",
        graphs.len(), options(graphs)
    )]
    SeveralGraphs { model: String, graphs: Vec<String> },
    /// The checkpoint is there in a form that is not read.
    #[error(
        "{model} has its checkpoint only as {found}, which is not read: load it with transformers and save it again, \
             save_pretrained writes model.safetensors"
    )]
    OtherFormat { model: String, found: &'static str },
    /// A file would take more memory than it may.
    #[error(transparent)]
    Memory(#[from] engine::memory::OverBudget),
    /// A file of PyTorch's cannot be read, or is not what it should be.
    #[error("{file}: {source}{}", source.cure())]
    Torch { file: String, source: TorchError },
    /// The list of a checkpoint's shards is not valid JSON.
    #[error("{index} is not an index of shards: {source}: download it again, or save the model again")]
    Index { index: String, source: serde_json::Error },
    /// sentence-transformers' list of a model's modules cannot be read.
    #[error("{file} is not a list of modules: {source}: download it again, or save the model again")]
    Modules { file: String, source: serde_json::Error },
    /// The list of a checkpoint's shards is not there.
    #[error(
        "{index} is not an index of shards: it has no weight_map of tensors to files; download it again, or save the \
         model again"
    )]
    NoWeightMap { index: String },
    /// An index names a shard that is not there.
    #[error(
        "{index} has {tensors} tensors in {shard}, which is not there: put it there, too; the model has {has}"
    )]
    MissingShard { index: String, shard: String, tensors: usize, has: String },
    /// A shard does not hold a tensor that the index has in it.
    #[error(
        "{index} has tensor '{tensor}' in {shard}, which does not hold it: they are of different saves; download \
         both again, or save the model again"
    )]
    NotInShard { index: String, shard: String, tensor: String },
    /// A shard holds a tensor that the index has elsewhere, or nowhere.
    #[error(
        "{shard} holds tensor '{tensor}', which {index} does not have there: they are of different saves; download \
         both again, or save the model again"
    )]
    NotInIndex { index: String, shard: String, tensor: String },
    /// A file's name leads out of the model's folder.
    #[error(
        "'{file}' does not name a file within the model's folder: name one without '..' or a slash at the start"
    )]
    Outside { file: String },
    /// The file is a pointer of git's large file storage, not the file itself.
    #[error("{file} is a git-lfs pointer, not the file itself: run `git lfs pull` in the model's folder")]
    GitLfs { file: String },
    /// A link in the cache leads nowhere.
    #[error("{} is a link to {}, which is not there: the download did not finish, or the cache was pruned; download the model again", path.display(), target.display())]
    BrokenLink { path: PathBuf, target: PathBuf },
    /// A file could not be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A folder or link could not be looked at.
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The file is not a safetensors file.
    #[error("{file} is not a safetensors file: {reason}; download it again, or save the model again")]
    NotSafetensors { file: String, reason: &'static str },
    /// The header is not valid JSON, or what it says about a tensor cannot be.
    #[error(
        "the safetensors header of {file} is wrong: {source}; download it again, or save the model again"
    )]
    Header { file: String, source: serde_json::Error },
    /// The file ends too early.
    #[error(
        "{file} is truncated: the header promises {promised} bytes, the file has {found}; download or copy it again"
    )]
    Truncated { file: String, promised: u64, found: u64 },
    /// The file goes on after its last tensor.
    #[error(
        "{file} has bytes that belong to no tensor: the header promises {promised} bytes, the file has {found}; \
         download or copy it again"
    )]
    TrailingBytes { file: String, promised: u64, found: u64 },
    /// A tensor is of a dtype that is not one of [`engine::DType`].
    #[error("tensor '{tensor}' in {file} is {dtype}, which is not read: save it as F32")]
    DType { file: String, tensor: String, dtype: String },
    /// A tensor's bytes are not a value of its dtype.
    #[error("tensor '{tensor}' in {file}: {source}")]
    Value { file: String, tensor: String, source: ValueError },
}

/// Each graph on a line of its own, as an option of the command line.
fn options(graphs: &[String]) -> String {
    graphs.iter().map(|graph| format!("\n--onnx {graph}")).collect()
}
