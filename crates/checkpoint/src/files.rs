use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use engine::memory::{Budget, OverBudget};

use crate::hub::HubId;
use crate::{Checkpoint, CheckpointError, HubCache, from_json, shards};

mod graphs;
mod modules;
pub(crate) mod source;

pub use graphs::OnnxSource;
pub use modules::ListedModule;
use source::Source;

const CONFIG: &str = "config.json";

/// Where sentence-transformers lists the modules of a model.
const MODULES: &str = "modules.json";

/// Other forms of a checkpoint, which are recognised and refused.
const OTHER_WEIGHTS: [&str; 2] = ["tf_model.h5", "flax_model.msgpack"];

/// The most names that an error lists. Listing stops there, however many more a folder has.
const LISTED: usize = 20;

/// A git-lfs pointer is a text of three lines; the format allows less than this.
const LFS_POINTER_BYTES: usize = 1024;

/// A model's files: a local folder, a snapshot in the hub cache, files in memory, or (feature `hub`) a model on the hub, whose files are
/// downloaded when they are first read. Clones share them.
#[derive(Clone)]
pub struct ModelFiles {
    name: String,
    source: Arc<dyn Source>,
    /// The folder within the source that paths are relative to, with a slash at its end; empty for
    /// the whole model.
    base: String,
}

impl ModelFiles {
    /// The folder at that path if there is one, else the hub id of that name (`name`, `org/name`, `org/name/sub/folder`, or any of these
    /// with `@revision`) in the cache of [`HubCache::from_env`]. Nothing is downloaded.
    ///
    /// # Errors
    /// If `model` is a file, spelled as a path where no folder is, or not in the cache.
    pub fn open(model: &str) -> Result<Self, CheckpointError> {
        Self::find(model, HubCache::from_env)
    }

    /// As [`ModelFiles::open`], with this hub cache.
    ///
    /// # Errors
    /// As [`ModelFiles::open`].
    pub fn open_in(model: &str, cache: &HubCache) -> Result<Self, CheckpointError> {
        Self::find(model, || Some(cache.clone()))
    }

    fn find(model: &str, cache: impl FnOnce() -> Option<HubCache>) -> Result<Self, CheckpointError> {
        if let Some(files) = Self::local(model)? {
            return Ok(files);
        }
        let model = model.to_owned();
        let Some(cache) = cache() else { return Err(CheckpointError::NoCache { model }) };
        let folder = cache.snapshot(&model)?;
        Ok(Self::of(model, folder))
    }

    pub(crate) fn of(name: String, source: impl Source + 'static) -> Self {
        Self { name, source: Arc::new(source), base: String::new() }
    }

    /// The files of the folder at that path; `None` if there is none, and this may be the id of a model on the hub.
    pub(crate) fn local(model: &str) -> Result<Option<Self>, CheckpointError> {
        let path = Path::new(model);
        let model = model.to_owned();
        if path.is_dir() {
            return Ok(Some(Self::of(model, path.to_path_buf())));
        }
        if path.exists() {
            return Err(CheckpointError::IsAFile { model });
        }
        if is_spelled_as_path(&model) {
            return Err(CheckpointError::NoSuchFolder { model });
        }
        if HubId::parse(&model).is_none() {
            return Err(CheckpointError::NotAModel { model });
        }
        Ok(None)
    }

    /// The files of a folder. What is in it is looked at only when it is asked for.
    ///
    /// # Errors
    /// If there is no folder at that path.
    pub fn from_folder(path: impl Into<PathBuf>) -> Result<Self, CheckpointError> {
        let path = path.into();
        if !path.is_dir() {
            return Err(CheckpointError::NotAFolder(path));
        }
        Ok(Self::of(path.display().to_string(), path))
    }

    /// Files that are in memory already, each under its path in the model's folder, `onnx/model.onnx` say.
    pub fn from_memory(name: &str, files: impl IntoIterator<Item = (&'static str, Bytes)>) -> Self {
        Self::of(name.to_owned(), files.into_iter().collect::<BTreeMap<_, _>>())
    }

    /// The model, as the user gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder, of a model on the hub that in the cache; `None` if the files are in memory.
    pub fn folder(&self) -> Option<&Path> {
        self.source.folder()
    }

    /// The folder in which these files lie themselves, which is one within [`ModelFiles::folder`]
    /// for those of [`ModelFiles::transformer`]; `None` if they are in memory.
    pub fn place(&self) -> Option<PathBuf> {
        Some(self.folder()?.join(&self.base))
    }

    /// Whether files that are not here yet are downloaded.
    pub fn is_on_hub(&self) -> bool {
        self.source.is_on_hub()
    }

    /// The modules of a sentence-transformers model, in their order; `None` if the model has no
    /// modules.json.
    ///
    /// # Errors
    /// As [`ModelFiles::read`], and if modules.json is not a list of modules.
    pub fn modules(&self) -> Result<Option<Vec<ListedModule>>, CheckpointError> {
        let Some(bytes) = self.read(MODULES)? else { return Ok(None) };
        from_json(&bytes).map_err(|source| CheckpointError::Modules { file: self.shown(MODULES), source })
    }

    /// The files of the transformer itself: these, or those of the folder in which modules.json
    /// says that it lies. Folders of sentence-transformers before 2.0 have it in `0_Transformer` or
    /// `0_BERT`, with config, weights and tokenizer.
    ///
    /// # Errors
    /// As [`ModelFiles::modules`], and if the folder is not within the model's.
    pub fn transformer(&self) -> Result<Self, CheckpointError> {
        // The hub is not asked for this alone: a model with a config.json at its top has no other.
        let is_away = |file| self.source.is_away(&self.within(file));
        if is_away(MODULES) && !is_away(CONFIG) {
            return Ok(self.clone());
        }
        let path = self
            .modules()?
            .and_then(|modules| modules.into_iter().find(ListedModule::is_transformer))
            .map_or(String::new(), |module| module.folder);
        if path.is_empty() || !self.base.is_empty() {
            return Ok(self.clone());
        }
        let file = format!("{path}/{CONFIG}");
        if !is_inside(&file) {
            return Err(CheckpointError::Outside { file });
        }
        Ok(Self { base: format!("{}/", path.trim_end_matches('/')), ..self.clone() })
    }

    /// The bytes of a file, mapped; `None` if the model has none of that name. `file` is relative to the model's folder.
    ///
    /// # Errors
    /// If `file` leads out of the folder, is a git-lfs pointer or a broken link, cannot be mapped,
    /// or cannot be downloaded; if it is JSON or a list of words (`.json`, `.txt`) that would take
    /// more memory than [`engine::memory::allowed_memory`] says.
    pub fn read(&self, file: &str) -> Result<Option<Bytes>, CheckpointError> {
        // Such names may come from another file of the model (modules.json).
        if !is_inside(file) {
            return Err(CheckpointError::Outside { file: file.to_owned() });
        }
        let bytes = self.source.read(&self.within(file))?;
        if let Some(bytes) = &bytes {
            refuse_lfs_pointer(&self.shown(file), bytes)?;
            weigh(file, &self.shown(file), bytes)?;
        }
        Ok(bytes)
    }

    /// The bytes of a file that must be there.
    ///
    /// # Errors
    /// As [`ModelFiles::read`], and if the model does not have it: the error lists what it has.
    pub fn require(&self, file: &str) -> Result<Bytes, CheckpointError> {
        if let Some(bytes) = self.read(file)? {
            return Ok(bytes);
        }
        self.source.be_certain_without(&self.within(file))?;
        Err(CheckpointError::Missing {
            model: self.shown_model(),
            file: file.to_owned(),
            has: self.source.listing(&self.base, &self.within(file)),
        })
    }

    /// Tells the user, once and by `Progress::notice`, of those of these files that are not here though the model may have them, because
    /// the hub could not be asked; `consequence` is what comes of it. Elsewhere what is not here does not exist, and nothing is told.
    pub fn tell_unknown(&self, files: &[&str], consequence: &str) {
        let files: Vec<String> = files.iter().map(|file| self.within(file)).collect();
        self.source.tell_unknown(&files, consequence);
    }

    /// The bytes of the transformer's config.json: see [`ModelFiles::transformer`].
    ///
    /// # Errors
    /// As [`ModelFiles::require`] and [`ModelFiles::transformer`].
    pub fn config(&self) -> Result<Bytes, CheckpointError> {
        self.transformer()?.require(CONFIG)
    }

    /// The transformer's tensors: of model.safetensors if it is there, else of the shards that
    /// model.safetensors.index.json lists, else of pytorch_model.bin, else of the shards that
    /// pytorch_model.bin.index.json lists.
    ///
    /// # Errors
    /// As [`ModelFiles::read`], [`Checkpoint::from_safetensors`] and [`Checkpoint::from_torch`]; if an index and its shards do
    /// not fit; if there is no checkpoint, or in another form only.
    pub fn checkpoint(&self) -> Result<Checkpoint, CheckpointError> {
        let files = self.transformer()?;
        for (weights, format) in shards::WEIGHTS {
            if let Some(bytes) = files.read(weights)? {
                return format.read(weights, &files.shown(weights), &bytes);
            }
            let index = shards::index_of(weights);
            if let Some(bytes) = files.read(&index)? {
                return shards::read(&files, &index, &bytes, format);
            }
        }
        for found in OTHER_WEIGHTS {
            if files.read(found)?.is_some() {
                return Err(CheckpointError::OtherFormat { model: files.shown_model(), found });
            }
        }
        for (weights, _) in shards::WEIGHTS {
            files.source.be_certain_without(&files.within(weights))?;
        }
        Err(CheckpointError::NoCheckpoint { model: files.shown_model(), has: files.listing() })
    }

    /// A file's path from the top of the source.
    fn within(&self, file: &str) -> String {
        format!("{}{file}", self.base)
    }

    /// A file, as errors call it: with its folder, or with the model's name.
    pub(crate) fn shown(&self, file: &str) -> String {
        let file = self.within(file);
        match self.folder() {
            Some(folder) => folder.join(file).display().to_string(),
            None => format!("{}/{file}", self.name),
        }
    }

    fn shown_model(&self) -> String {
        let folder = match self.folder() {
            Some(folder) if !self.is_on_hub() => folder.display().to_string(),
            _ => self.name.clone(),
        };
        match self.base.trim_end_matches('/') {
            "" => folder,
            base => format!("{folder}/{base}"),
        }
    }

    /// What the model has, for a person to read.
    pub(crate) fn listing(&self) -> String {
        self.source.listing(&self.base, &self.base)
    }
}

impl fmt::Debug for ModelFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ModelFiles");
        debug.field("name", &self.name);
        match self.folder() {
            Some(folder) => debug.field("folder", &folder),
            None => debug.field("files", &self.listing()),
        };
        debug.finish()
    }
}

/// Whether a path leads to something within the model's folder.
fn is_inside(file: &str) -> bool {
    !file.is_empty()
        && !file.contains('\\')
        && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Whether a name can only have been meant as a path, so that a missing folder is the fault to report.
fn is_spelled_as_path(model: &str) -> bool {
    model.starts_with(['.', '/', '~'])
        || model.contains('\\')
        || model.ends_with('/')
        || [".onnx", ".safetensors", ".json", ".bin"].iter().any(|extension| model.ends_with(extension))
}

/// Refuses the small text that git leaves in place of a file that was not fetched.
pub(crate) fn refuse_lfs_pointer(shown: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
    if bytes.len() < LFS_POINTER_BYTES && bytes.starts_with(b"version https://git-lfs") {
        return Err(CheckpointError::GitLfs { file: shown.to_owned() });
    }
    Ok(())
}

/// Refuses a table that would take far more memory than it has bytes: whoever asks for it makes
/// lists and maps of it next. Other files are weighed by who knows their format.
fn weigh(file: &str, shown: &str, bytes: &[u8]) -> Result<(), OverBudget> {
    let mut budget = Budget::of(shown, bytes.len() as u64);
    match Path::new(file).extension().and_then(OsStr::to_str) {
        Some("json") => budget.spend_json(bytes),
        Some("txt") => budget.spend_lines(bytes),
        _ => Ok(()),
    }
}

/// What a folder has, for a person to read. At most [`LISTED`] names are looked at.
pub(crate) fn listing(folder: &Path) -> String {
    let Ok(entries) = fs::read_dir(folder) else { return "nothing that can be listed".to_owned() };
    joined(entries.filter_map(Result::ok).map(|entry| {
        let slash = if entry.path().is_dir() { "/" } else { "" };
        format!("{}{slash}", entry.file_name().to_string_lossy())
    }))
}

pub(crate) fn joined(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.take(LISTED + 1).collect();
    let has_more = names.len() > LISTED;
    names.truncate(LISTED);
    names.sort();
    match (names.is_empty(), has_more) {
        (true, _) => "nothing".to_owned(),
        (false, false) => names.join(", "),
        (false, true) => format!("{}, …", names.join(", ")),
    }
}

#[cfg(test)]
mod tests;
