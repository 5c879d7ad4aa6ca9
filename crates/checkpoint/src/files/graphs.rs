//! The exported graphs among a model's files.

use std::borrow::Cow;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::{ModelFiles, is_inside};
use crate::CheckpointError;

/// What the exported graph is called, in the order in which these are looked for.
const GRAPHS: [&str; 2] = ["onnx/model.onnx", "model.onnx"];

/// The folders that graphs of other names are looked for in.
const FOLDERS: [&str; 2] = ["", "onnx/"];

/// How the name of a graph ends.
const ENDING: &str = ".onnx";

/// What exporters call a second file that holds a graph's weights: these, after the graph's own
/// name. Others are known from the graph alone.
const GRAPH_DATA: [&str; 2] = ["_data", ".data"];

/// Where a model's exported graph is.
#[derive(Clone)]
pub enum OnnxSource {
    /// A file; external data lies beside it.
    File(PathBuf),
    /// A whole graph in memory.
    Memory {
        /// What to call it in messages.
        name: String,
        /// The file's bytes.
        bytes: Bytes,
    },
}

impl ModelFiles {
    /// The exported graph: onnx/model.onnx, else model.onnx; else either of them in the folder of
    /// the transformer, where it has one of its own; `None` if the model has none of these.
    ///
    /// # Errors
    /// As [`ModelFiles::read`] and [`ModelFiles::transformer`].
    pub fn onnx(&self) -> Result<Option<OnnxSource>, CheckpointError> {
        for files in self.with_graphs()? {
            for file in GRAPHS {
                if let Some(graph) = files.onnx_at(file)? {
                    return Ok(Some(graph));
                }
            }
        }
        GRAPHS
            .iter()
            .try_for_each(|file| self.source.be_certain_without(&self.within(file)))
            .unwrap_or_else(|error| self.source.notice(error.to_string()));
        Ok(None)
    }

    /// The exported graph, whatever it is called: [`ModelFiles::onnx`], else the only file that
    /// ends in `.onnx`, at the model's top or in `onnx`; `None` if there is none at all.
    ///
    /// # Errors
    /// As [`ModelFiles::onnx`]; and if there are several, none of them with a usual name. The error
    /// lists them as [`ModelFiles::graph_named`] takes them.
    pub fn any_onnx(&self) -> Result<Option<OnnxSource>, CheckpointError> {
        if let Some(graph) = self.onnx()? {
            return Ok(Some(graph));
        }
        let mut others: Vec<String> = Vec::new();
        for files in self.with_graphs()? {
            let folders = FOLDERS.map(|folder| files.within(folder));
            // A hidden file is one that is still being written, or another system's.
            let is_hidden = |file: &String| file.rsplit('/').next().is_some_and(|name| name.starts_with('.'));
            others
                .extend(self.source.ending_in(ENDING, &folders).into_iter().filter(|file| !is_hidden(file)));
        }
        others.sort();
        others.dedup();
        match others.as_slice() {
            [] => Ok(None),
            [only] => Self { base: String::new(), ..self.clone() }.onnx_at(only),
            _ => Err(CheckpointError::SeveralGraphs {
                model: self.shown_model(),
                graphs: others.iter().map(|file| self.typed(file)).collect(),
            }),
        }
    }

    /// The graph of that name: a file on this machine, else one of the model's own, such as
    /// `onnx/model_O4.onnx`. Of a model on the hub it is downloaded.
    ///
    /// # Errors
    /// As [`ModelFiles::read`], and if a model on the hub does not have it: the error lists what it
    /// has.
    pub fn graph_named(&self, path: &Path) -> Result<OnnxSource, CheckpointError> {
        let here = || OnnxSource::File(path.into());
        if path.exists() || path.as_os_str() == engine::STDIN {
            return Ok(here());
        }
        // Out of a folder on this machine leads only what is on this machine.
        let Some(file) = file_of_model(path).filter(|file| self.is_on_hub() || is_inside(file)) else {
            return Ok(here());
        };
        match self.onnx_at(&file)? {
            Some(graph) => Ok(graph),
            None => {
                // The error that lists what the repository has; of a folder, whoever opens the
                // file says that it is not there.
                if self.is_on_hub() {
                    self.require(&file)?;
                }
                Ok(here())
            }
        }
    }

    /// The graph in that file of the model's, `onnx/model_O4.onnx` say; `None` if the model does
    /// not have it.
    ///
    /// On the hub, what exporters call a graph's external data is downloaded with it. A graph may
    /// name other files: those are for whoever reads it to ask for, with [`ModelFiles::read`].
    ///
    /// # Errors
    /// As [`ModelFiles::read`].
    pub fn onnx_at(&self, file: &str) -> Result<Option<OnnxSource>, CheckpointError> {
        let Some(bytes) = self.read(file)? else { return Ok(None) };
        let path = self.within(file);
        for data in GRAPH_DATA.map(|end| format!("{path}{end}")) {
            if self.source.is_away(&data) {
                self.source.read(&data)?;
            }
        }
        Ok(Some(match self.folder() {
            Some(folder) => OnnxSource::File(folder.join(path)),
            None => OnnxSource::Memory { name: self.shown(file), bytes },
        }))
    }

    /// These files, and those of the transformer's own folder, where it has one.
    fn with_graphs(&self) -> Result<Vec<Self>, CheckpointError> {
        let transformer = self.transformer()?;
        let own = (transformer.base != self.base).then_some(transformer);
        Ok([self.clone()].into_iter().chain(own).collect())
    }

    /// A file from the top of the source as it is typed to be found again.
    fn typed(&self, file: &str) -> String {
        match self.folder() {
            Some(folder) if !self.is_on_hub() => folder.join(file).display().to_string(),
            _ => file.to_owned(),
        }
    }
}

impl OnnxSource {
    /// What to call the graph in messages: its path, or its name.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            OnnxSource::File(path) => path.to_string_lossy(),
            OnnxSource::Memory { name, .. } => Cow::Borrowed(name),
        }
    }
}

impl fmt::Display for OnnxSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

impl fmt::Debug for OnnxSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnnxSource::File(path) => f.debug_tuple("File").field(path).finish(),
            OnnxSource::Memory { name, bytes } => write!(f, "Memory({name:?}, {} bytes)", bytes.len()),
        }
    }
}

/// A path as the name of one of a model's files; `None` if it can only be one on this machine. On
/// Windows it may have been typed with that system's slashes.
fn file_of_model(path: &Path) -> Option<String> {
    if path.has_root() || path.is_absolute() {
        return None;
    }
    let parts = path.components().filter(|part| *part != Component::CurDir);
    let parts: Vec<&str> = parts.map(|part| part.as_os_str().to_str()).collect::<Option<_>>()?;
    (!parts.is_empty()).then(|| parts.join("/"))
}
