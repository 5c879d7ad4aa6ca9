use std::io;
use std::path::PathBuf;

/// Why something could not be had from the hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// `HF_ENDPOINT`, or what was given in its place, is not a server's address.
    #[error("the hub's address '{endpoint}' {reason}: HF_ENDPOINT must be such as https://huggingface.co")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The token cannot be one.
    #[error(
        "the token {origin} has characters that no token has: log in again with `hf auth login`, or set HF_TOKEN"
    )]
    MalformedToken {
        /// Where it is from.
        origin: String,
    },
    /// The hub does not know the model, or does not show it.
    #[error(
        "there is no folder '{model}' here, and {endpoint} has no model '{name}' that it shows: check the spelling; {cure}"
    )]
    NoModel {
        /// The model, as given.
        model: String,
        /// The repository.
        name: String,
        /// The hub.
        endpoint: String,
        /// What helps if the model is private.
        cure: &'static str,
    },
    /// The repository does not have that branch, tag or commit.
    #[error(
        "{endpoint}/{name} has no revision '{revision}': its branches and tags are listed at {endpoint}/{name}/tree/main"
    )]
    NoRevision {
        /// The repository.
        name: String,
        /// What was asked for.
        revision: String,
        /// The hub.
        endpoint: String,
    },
    /// The repository does not have that folder.
    #[error("{endpoint}/{name} has no folder '{subfolder}'; it has {has}")]
    NoSubfolder {
        /// The repository.
        name: String,
        /// What was asked for.
        subfolder: String,
        /// The hub.
        endpoint: String,
        /// What is there instead, for a person to read.
        has: String,
    },
    /// The owners of the model decide who may have it.
    #[error("{name} is gated: ask for access at {endpoint}/{name}, then {cure}")]
    Gated {
        /// The repository.
        name: String,
        /// The hub.
        endpoint: String,
        /// What to do next.
        cure: &'static str,
    },
    /// The hub does not know the token.
    #[error(
        "{endpoint} does not accept the token {origin}: log in again with `hf auth login`, or set HF_TOKEN to a valid one"
    )]
    BadToken {
        /// The hub.
        endpoint: String,
        /// Where the token is from.
        origin: String,
    },
    /// Another answer than what was asked for.
    #[error("{url} answers {status}{said}")]
    Refused {
        /// What was asked for.
        url: String,
        /// HTTP's number for it.
        status: u16,
        /// What the server says, and what helps.
        said: String,
    },
    /// No answer.
    #[error(
        "{host} cannot be reached ({source}): check the network; with HF_HUB_OFFLINE=1 the cache is used alone"
    )]
    Unreachable {
        /// The server.
        host: String,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
    /// An answer that the hub would not give.
    #[error("{url} does not answer as the hub does: {reason}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The transfer ended early, again and again.
    #[error(
        "the download of {file} was cut short at {found} of {promised} bytes ({reason}): run the command again, it goes on from there"
    )]
    CutShort {
        /// The file.
        file: String,
        /// How much has come.
        found: u64,
        /// How much there is.
        promised: String,
        /// How it ended.
        reason: String,
    },
    /// The disk is full.
    #[error("no space left for {file} in the hub cache {}: make room, or set HF_HOME to a place that has some", cache.display())]
    NoSpace {
        /// The file.
        file: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The cache cannot be written.
    #[error("cannot write {} in the hub cache: {source}", path.display())]
    Store {
        /// The path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process has been downloading the same file for too long.
    #[error("another process is downloading {file} (it holds {}): wait for it, or end it", lock.display())]
    Busy {
        /// The file.
        file: String,
        /// The lock.
        lock: PathBuf,
    },
    /// The cache does not have it, and the hub was not asked.
    #[error("{missing}; it was not downloaded, because {why}")]
    NotAsked {
        /// What is missing.
        missing: String,
        /// Why the hub was not asked, and what helps.
        why: String,
    },
}

impl HubError {
    /// Of a write in the cache, while `file` was being stored.
    pub(super) fn store(
        file: &str,
        cache: &std::path::Path,
        path: &std::path::Path,
        source: io::Error,
    ) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::NoSpace { file: file.to_owned(), cache: cache.to_path_buf() }
        } else {
            Self::Store { path: path.to_path_buf(), source }
        }
    }
}
