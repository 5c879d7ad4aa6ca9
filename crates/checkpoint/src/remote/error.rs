use std::io;
use std::path::{Path, PathBuf};

/// Why something could not be had from the hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum HubError {
    /// `HF_ENDPOINT`, or what was given in its place, is not a server's address.
    #[error("the hub's address '{endpoint}' {reason}: HF_ENDPOINT must be such as https://huggingface.co")]
    Endpoint { endpoint: String, reason: &'static str },
    /// The token cannot be one.
    #[error(
        "the token {origin} has characters that no token has: log in again with `hf auth login`, or set HF_TOKEN"
    )]
    MalformedToken { origin: String },
    /// The hub does not know the model, or does not show it.
    #[error(
        "there is no folder '{model}' here, and {endpoint} has no model '{name}' that it shows: check the spelling; if it is private, {cure}"
    )]
    NoModel { model: String, name: String, endpoint: String, cure: &'static str },
    /// The repository does not have that branch, tag or commit.
    #[error(
        "{endpoint}/{name} has no revision '{revision}': its branches and tags are listed at {endpoint}/{name}/tree/main"
    )]
    NoRevision { name: String, revision: String, endpoint: String },
    /// The repository does not have that folder.
    #[error("{endpoint}/{name} has no folder '{subfolder}'; it has {has}")]
    NoSubfolder { name: String, subfolder: String, endpoint: String, has: String },
    /// The owners of the model decide who may have it.
    #[error("{name} is gated: ask for access at {endpoint}/{name}, then {cure}")]
    Gated { name: String, endpoint: String, cure: &'static str },
    /// The hub does not know the token.
    #[error(
        "{endpoint} does not accept the token {origin}: log in again with `hf auth login`, or set HF_TOKEN to a valid one"
    )]
    BadToken { endpoint: String, origin: String },
    /// Another answer than what was asked for.
    #[error("{url} answers {status}{said}")]
    Refused { url: String, status: u16, said: String },
    /// No answer.
    #[error(
        "{host} cannot be reached ({source}): check the network; with HF_HUB_OFFLINE=1 the cache is used alone"
    )]
    Unreachable { host: String, source: Box<ureq::Error> },
    /// An answer that the hub would not give.
    #[error(
        "{url} does not answer as the hub does: {reason}; check the network, and HF_ENDPOINT where it is set"
    )]
    Answer { url: String, reason: String },
    /// The transfer ended early, again and again.
    #[error(
        "the download of {file} was cut short at {found} of {promised} bytes ({reason}): run the command again, it goes on from there"
    )]
    CutShort { file: String, found: u64, promised: String, reason: String },
    /// The disk is full.
    #[error("no space left for {file} in the hub cache {}: make room, or set HF_HOME to a place that has some", cache.display())]
    NoSpace { file: String, cache: PathBuf },
    /// The cache cannot be written.
    #[error("cannot write {} in the hub cache: {source}{}", path.display(), elsewhere(source))]
    Store { path: PathBuf, source: io::Error },
    /// Another process has been downloading the same file for too long.
    #[error("another process is downloading {file} (it holds {}): wait for it, or end it", lock.display())]
    Busy { file: String, lock: PathBuf },
    /// What was given is no folder here, and the hub cannot tell whether it has it.
    #[error(
        "there is no folder '{model}' here: check its spelling; as the id of a model on the hub, {source}"
    )]
    NoFolder { model: String, source: Box<HubError> },
    /// The cache does not have it, and the hub was not asked.
    #[error("{missing}; it was not downloaded, because {why}")]
    NotAsked { missing: String, why: String },
}

/// What helps where the cache may not be written.
fn elsewhere(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ": set HF_HOME to a place that can be written"
        }
        _ => "",
    }
}

impl HubError {
    /// Of a model that may be a folder with a slip in its name. Where the hub knows the model, or
    /// says that it does not, its message stands.
    pub(super) fn of_no_folder(self, model: &str) -> Self {
        match self {
            Self::NoModel { .. } | Self::NoRevision { .. } | Self::Gated { .. } => self,
            other => Self::NoFolder { model: model.to_owned(), source: Box::new(other) },
        }
    }

    /// Of a write in the cache, while `file` was being stored.
    pub(super) fn store(file: &str, cache: &Path, path: &Path, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::NoSpace { file: file.to_owned(), cache: cache.to_path_buf() }
        } else {
            Self::Store { path: path.to_path_buf(), source }
        }
    }
}
