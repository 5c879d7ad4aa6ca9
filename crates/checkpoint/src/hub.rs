use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::CheckpointError;
use crate::files::listing;

mod id;

pub(crate) use id::HubId;

/// The folder where the Hugging Face hub's clients keep what they downloaded.
///
/// `models--org--name/refs/main` holds a commit, and `models--org--name/snapshots/<commit>/` the files: links into `blobs/`,
/// or plain files where links are not possible. Both are read. Nothing is written here; a `Hub` (feature `hub`) downloads into it.
#[derive(Debug, Clone)]
pub struct HubCache {
    folder: PathBuf,
}

impl HubCache {
    /// The cache in that folder, which holds `models--…` folders.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The cache that the environment names: `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE` (its old name), else `hub` in `HF_HOME`,
    /// else `huggingface/hub` in `XDG_CACHE_HOME`, else `.cache/huggingface/hub` in the home folder. An empty variable counts as
    /// not set, and `~/` at a start is the home folder. `None` if nothing is set and there is no home folder.
    pub fn from_env() -> Option<Self> {
        Self::from_variables(|name| env::var_os(name), env::home_dir())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<Self> {
        let folder = |name: &str| {
            let path = PathBuf::from(variable(name).filter(|value| !value.is_empty())?);
            match (path.strip_prefix("~"), &home) {
                (Ok(rest), Some(home)) => Some(home.join(rest)),
                _ => Some(path),
            }
        };
        folder("HF_HUB_CACHE")
            .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| folder("HF_HOME").map(|path| path.join("hub")))
            .or_else(|| folder("XDG_CACHE_HOME").map(|path| path.join("huggingface/hub")))
            .or_else(|| home.as_ref().map(|home| home.join(".cache/huggingface/hub")))
            .map(Self::at)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of a model's files. `model` is `name`, `org/name`, `org/name/sub/folder`, or any of these with `@revision`: a branch, a
    /// tag or a whole commit hash.
    ///
    /// # Errors
    /// If `model` is not spelled so, or the cache does not have it.
    pub fn snapshot(&self, model: &str) -> Result<PathBuf, CheckpointError> {
        let id = HubId::parse(model).ok_or_else(|| CheckpointError::NotAModel { model: model.to_owned() })?;
        let repository = self.repository(id.name);
        if !repository.is_dir() {
            return Err(CheckpointError::NotCached {
                model: model.to_owned(),
                cache: self.folder.clone(),
                folder: repository_name(id.name),
            });
        }
        let snapshots = repository.join("snapshots");
        let Some(commit) = self.commit(&id)? else {
            return Err(CheckpointError::RevisionNotCached {
                model: model.to_owned(),
                revision: id.revision.to_owned(),
                available: listing(&snapshots),
                repository,
            });
        };
        let snapshot = snapshots.join(commit);
        let folder = id.subfolder.map_or_else(|| snapshot.clone(), |subfolder| snapshot.join(subfolder));
        if !folder.is_dir() {
            return Err(CheckpointError::SubfolderNotCached {
                model: model.to_owned(),
                subfolder: id.subfolder.unwrap_or_default().to_owned(),
                has: listing(&snapshot),
            });
        }
        Ok(folder)
    }

    /// The folder in which everything of a repository lies.
    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        self.folder.join(repository_name(name))
    }

    /// The commit at a revision; `None` if there is no snapshot of it.
    pub(crate) fn commit(&self, id: &HubId<'_>) -> Result<Option<String>, CheckpointError> {
        let repository = self.repository(id.name);
        let reference = repository.join("refs").join(id.revision);
        // What is not a branch or a tag may be a commit.
        let commit = match fs::read_to_string(&reference) {
            Ok(commit) => commit.trim().to_owned(),
            Err(error) if is_absent(&error) || reference.is_dir() => id.revision.to_owned(),
            Err(source) => return Err(CheckpointError::Io { path: reference, source }),
        };
        let is_there = is_one_name(&commit) && repository.join("snapshots").join(&commit).is_dir();
        Ok(is_there.then_some(commit))
    }
}

fn repository_name(name: &str) -> String {
    format!("models--{}", name.replace('/', "--"))
}

/// Whether this is the name of one thing in a folder, not a way out of it.
pub(crate) fn is_one_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) && !name.contains(['/', '\\'])
}

pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache_from(variables: &[(&str, &str)], home: Option<&str>) -> Option<PathBuf> {
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        HubCache::from_variables(variable, home.map(PathBuf::from)).map(|cache| cache.folder)
    }

    #[test]
    fn the_environment_is_asked_in_the_order_of_the_hub_clients() {
        let all = [
            ("HF_HUB_CACHE", "/a"),
            ("HUGGINGFACE_HUB_CACHE", "/b"),
            ("HF_HOME", "/c"),
            ("XDG_CACHE_HOME", "/d"),
        ];
        let found = |skip: usize| cache_from(&all[skip..], Some("/home/me"));
        assert_eq!(found(0), Some("/a".into()));
        assert_eq!(found(1), Some("/b".into()));
        assert_eq!(found(2), Some("/c/hub".into()));
        assert_eq!(found(3), Some("/d/huggingface/hub".into()));
        assert_eq!(found(4), Some("/home/me/.cache/huggingface/hub".into()));
        assert_eq!(cache_from(&[], None), None);
        assert_eq!(
            cache_from(&[("HF_HUB_CACHE", ""), ("HF_HOME", "~/hf")], Some("/me")),
            Some("/me/hf/hub".into())
        );
    }

    #[test]
    fn a_commit_is_one_name() {
        assert!(is_one_name("22b7814"));
        for name in ["", ".", "..", "a/b", "a/", "/a", "../a", "a\\b"] {
            assert!(!is_one_name(name), "{name}");
        }
    }
}
