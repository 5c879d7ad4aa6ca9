use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use engine::map_file;

use super::{joined, listing};
use crate::CheckpointError;
use crate::hub::is_absent;

/// A place where a model's files are. A file is named by its path from the top of the source.
///
/// What has a default is for sources that learn of their files only when they are asked; of the
/// others everything is known.
pub(crate) trait Source: Send + Sync {
    /// A file's bytes; `None` if there is none of that name.
    fn read(&self, file: &str) -> Result<Option<Bytes>, CheckpointError>;

    /// What there is below `base`, for a person to read; where all of it is known at once, first
    /// what is of the kind of `file`.
    fn listing(&self, base: &str, file: &str) -> String;

    /// The files in these folders (`""` for the top, else with a slash at the end) whose names end
    /// so, as far as they are known.
    fn ending_in(&self, ending: &str, folders: &[String]) -> Vec<String>;

    /// The folder in which the files lie, or will; `None` if they are in memory.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// Whether files that are not here yet are downloaded.
    fn is_on_hub(&self) -> bool {
        false
    }

    /// Whether a file is not here, and somebody would have to be asked for it.
    fn is_away(&self, _file: &str) -> bool {
        false
    }

    /// An error, where a file is not there only because nobody was asked for it.
    fn be_certain_without(&self, _file: &str) -> Result<(), CheckpointError> {
        Ok(())
    }

    /// Tells, once, which of these files are not here though the model may have them, and what
    /// follows.
    fn tell_unknown(&self, _files: &[String], _consequence: &str) {}

    /// Tells, once, that something may be missing.
    fn notice(&self, _message: String) {}
}

/// A folder, which a snapshot in the hub cache is too.
impl Source for PathBuf {
    fn read(&self, file: &str) -> Result<Option<Bytes>, CheckpointError> {
        map_if_there(&self.join(file))
    }

    fn folder(&self) -> Option<&Path> {
        Some(self)
    }

    fn listing(&self, base: &str, _file: &str) -> String {
        listing(&self.join(base))
    }

    fn ending_in(&self, ending: &str, folders: &[String]) -> Vec<String> {
        let in_folder = |folder: &String| {
            let entries = fs::read_dir(self.join(folder)).into_iter().flatten().filter_map(Result::ok);
            let names = entries
                .filter(|entry| !entry.path().is_dir())
                .filter_map(|entry| entry.file_name().into_string().ok());
            let named = names.filter(|name| name.ends_with(ending));
            named.map(|name| format!("{folder}{name}")).collect::<Vec<_>>()
        };
        folders.iter().flat_map(in_folder).collect()
    }
}

/// Files in memory, by their paths.
impl Source for BTreeMap<&'static str, Bytes> {
    fn read(&self, file: &str) -> Result<Option<Bytes>, CheckpointError> {
        Ok(self.get(file).cloned())
    }

    fn listing(&self, _base: &str, _file: &str) -> String {
        joined(self.keys().map(|&name| name.to_owned()))
    }

    fn ending_in(&self, ending: &str, folders: &[String]) -> Vec<String> {
        let names = self.keys().filter(|name| name.ends_with(ending) && is_in(name, folders));
        names.map(|&name| name.to_owned()).collect()
    }
}

/// Whether a file lies in one of these folders itself, and in none below.
pub(crate) fn is_in(file: &str, folders: &[String]) -> bool {
    let folder = &file[..file.rfind('/').map_or(0, |slash| slash + 1)];
    folders.iter().any(|known| known == folder)
}

/// Maps a file; `None` if there is nothing at that path. A link that leads nowhere is an error, not
/// nothing.
pub(crate) fn map_if_there(path: &Path) -> Result<Option<Bytes>, CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_path_buf(), source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if metadata.is_symlink() && !path.exists() {
        let target = fs::read_link(path).map_err(io)?;
        return Err(CheckpointError::BrokenLink { path: path.to_path_buf(), target });
    }
    Ok(Some(map_file(path)?))
}
