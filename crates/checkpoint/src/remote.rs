//! A model on the hub: its files, downloaded into the hub cache one by one, as they are asked for.
//!
//! Built on hf-hub 0.5, the release whose client is synchronous and small: 1.x brings tokio, reqwest and xet, about 170 crates. From it are
//! the URLs of a repository and the form of its list of files; it also brings ureq, with rustls. The transfer itself is done here, on that
//! ureq, because hf-hub 0.5
//!
//! * sends the token to wherever the hub redirects (its `metadata` asks the storage server with all headers);
//! * takes a response for the whole file: a server that ignores `Range` corrupts a download that is resumed, and no length is compared;
//! * gives an HTTP status where a person needs to be told what it means: gated, private, no such revision;
//! * knows neither `HF_HUB_CACHE`, `HF_TOKEN` nor `HF_HUB_OFFLINE`, and not that a file is *absent*, so that every run would ask again.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hf_hub::api::RepoInfo;
use hf_hub::{Repo, RepoType};

use crate::files::source::{Source, is_in, map_if_there};
use crate::files::{joined, listing};
use crate::hub::{HubId, is_one_name};
use crate::{CheckpointError, HubCache, ModelFiles};

mod client;
mod download;
mod error;
mod settings;

pub use error::HubError;

use client::Client;
use settings::{Settings, Token};

/// What is told of a download while it runs. Every method does nothing by itself; `()` is told nothing.
#[allow(unused_variables, reason = "their names say what they are")]
pub trait Progress: Send + Sync {
    /// So many bytes of a file are there, out of how many if that is known. Called when the download begins, and with each piece.
    fn downloading(&self, file: &str, done: u64, total: Option<u64>) {}

    /// The download of a file ended, well or not.
    fn stopped(&self, file: &str) {}

    /// Something that the user should know and that is no error: the hub cannot be reached, and the cache is used alone.
    fn notice(&self, message: &str) {}
}

impl Progress for () {}

/// The Hugging Face hub, or a server that behaves like it, and the cache that is downloaded into.
///
/// ```no_run
/// use checkpoint::Hub;
///
/// let hub = Hub::from_env().ok_or("neither HF_HOME nor a home folder")?;
/// let model = hub.open("sentence-transformers/all-MiniLM-L6-v2")?;
/// let checkpoint = model.checkpoint()?; // downloads model.safetensors, unless it is in the cache
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Hub {
    cache: HubCache,
    endpoint: String,
    token: Option<Token>,
    silence: Duration,
    /// Why nothing may be asked, if so.
    offline: Option<String>,
    progress: Arc<dyn Progress>,
}

impl Hub {
    /// The hub that the environment names, as Python's huggingface_hub reads it: `HF_ENDPOINT`; the token of `HF_TOKEN`, else of the file
    /// `HF_TOKEN_PATH`, else of `token` in `HF_HOME`, where a login leaves it; the cache of [`HubCache::from_env`]; and no request at all
    /// where `HF_HUB_OFFLINE` is set. `None` if there is no place for a cache.
    pub fn from_env() -> Option<Self> {
        let cache = HubCache::from_env()?;
        let settings = Settings::from_variables(|name| env::var_os(name), env::home_dir());
        Some(Self {
            token: settings.token,
            offline: settings
                .offline
                .map(|variable| format!("{variable} is set: unset it, or run once where there is a network")),
            ..Self::new(&settings.endpoint, cache)
        })
    }

    /// The hub at that address, without a token: `https://huggingface.co`, say.
    pub fn new(endpoint: &str, cache: HubCache) -> Self {
        Self {
            cache,
            endpoint: endpoint.to_owned(),
            token: None,
            silence: client::SILENCE,
            offline: None,
            progress: Arc::new(()),
        }
    }

    /// With that token. It is sent to the hub's own address alone, never to where the hub redirects.
    #[must_use]
    pub fn with_token(self, secret: &str) -> Self {
        Self { token: Some(Token { secret: secret.to_owned(), origin: "that was given".to_owned() }), ..self }
    }

    /// Telling this of downloads.
    #[must_use]
    pub fn with_progress(self, progress: impl Progress + 'static) -> Self {
        Self { progress: Arc::new(progress), ..self }
    }

    /// Giving up on a server that is silent for so long; 30 seconds, if this is not called.
    #[must_use]
    pub fn with_timeout(self, silence: Duration) -> Self {
        Self { silence, ..self }
    }

    /// Asking the hub never, or only for what the cache does not have.
    #[must_use]
    pub fn offline(self, is_offline: bool) -> Self {
        let offline = is_offline.then(|| self.offline.clone().unwrap_or_else(|| OFFLINE.to_owned()));
        Self { offline, ..self }
    }

    /// The folder at that path if there is one, else the model of that id: `name`, `org/name`, `org/name/sub/folder`, or any of these with
    /// `@revision`.
    ///
    /// A file is downloaded when it is first read, so that only those are that somebody needs. What is in the cache, and what the
    /// cache knows not to exist, is not asked for again: a second run makes no request. A branch therefore stays at the commit it had when
    /// it was first downloaded; a later commit can be named as the revision.
    ///
    /// Where the cache has the model, but the hub cannot be asked for the rest of its files, those count as absent.
    ///
    /// # Errors
    /// As [`ModelFiles::open`], and [`HubError`] where the model is not in the cache and the hub cannot be asked, does not know it, or
    /// does not give it.
    pub fn open(&self, model: &str) -> Result<ModelFiles, CheckpointError> {
        match ModelFiles::local(model)? {
            Some(files) => Ok(files),
            None => Ok(ModelFiles::of(model.to_owned(), Remote::open(self.clone(), model)?)),
        }
    }
}

impl ModelFiles {
    /// As [`ModelFiles::open`], but what the cache lacks is downloaded: see [`Hub::from_env`] and
    /// [`Hub::open`].
    ///
    /// # Errors
    /// As [`Hub::open`].
    pub fn fetch(model: &str, progress: impl Progress + 'static) -> Result<Self, CheckpointError> {
        match Self::local(model)? {
            Some(files) => Ok(files),
            None => Hub::from_env()
                .ok_or_else(|| CheckpointError::NoCache { model: model.to_owned() })?
                .with_progress(progress)
                .open(model),
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the token.
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl From<HubError> for CheckpointError {
    fn from(error: HubError) -> Self {
        Self::Hub(Box::new(error))
    }
}

/// One revision of a model on the hub.
pub(crate) struct Remote {
    hub: Hub,
    model: String,
    /// `name` or `org/name`.
    name: String,
    commit: String,
    /// With a slash at its end; empty for the top of the repository.
    subfolder: String,
    /// The repository's folder in the cache.
    repository: PathBuf,
    /// Where the model's files lie in it, or will.
    folder: PathBuf,
    known: Mutex<Known>,
    /// The notices that were given.
    told: Mutex<BTreeSet<String>>,
}

/// What is known of the files that a repository has.
enum Known {
    /// Nothing: nobody asked yet.
    Nothing,
    /// All of them.
    Files(BTreeSet<String>),
    /// Nothing, for this reason, and nobody will ask.
    Never(String),
}

impl Remote {
    fn open(hub: Hub, model: &str) -> Result<Self, CheckpointError> {
        let id = HubId::parse(model).ok_or_else(|| CheckpointError::NotAModel { model: model.to_owned() })?;
        let mut this = Self {
            model: model.to_owned(),
            name: id.name.to_owned(),
            commit: String::new(),
            subfolder: id.subfolder.map(|folder| format!("{folder}/")).unwrap_or_default(),
            repository: hub.cache.repository(id.name),
            folder: PathBuf::new(),
            told: Mutex::default(),
            known: Mutex::new(hub.offline.clone().map_or(Known::Nothing, Known::Never)),
            hub,
        };
        match (this.hub.cache.commit(&id)?, this.hub.offline.clone()) {
            (Some(commit), _) => this.commit = commit,
            (None, Some(why)) => {
                let missing = match this.hub.cache.snapshot(model) {
                    Ok(_) => return Err(CheckpointError::NotAModel { model: model.to_owned() }),
                    Err(error) => error.to_string(),
                };
                return Err(HubError::NotAsked { missing, why }.into());
            }
            (None, None) => {
                let (commit, files) = this.ask(id.revision).map_err(|error| error.of_no_folder(model))?;
                this.has_subfolder(&files)?;
                this.known = Mutex::new(Known::Files(files));
                this.commit = commit;
                this.adopt(id.revision)?;
            }
        }
        this.folder = this.snapshot().join(id.subfolder.unwrap_or_default());
        if !this.folder.is_dir() {
            match &*this.files_known() {
                Known::Files(files) => this.has_subfolder(files)?,
                Known::Never(why) => {
                    let missing =
                        format!("folder '{}' of {} is not in the hub cache", this.subfolder, this.name);
                    return Err(HubError::NotAsked { missing, why: why.clone() }.into());
                }
                Known::Nothing => {}
            }
        }
        Ok(this)
    }

    fn snapshot(&self) -> PathBuf {
        self.repository.join("snapshots").join(&self.commit)
    }

    /// Where the hub's clients note that a repository does not have a file of the model's.
    fn absent(&self, file: &str) -> PathBuf {
        self.repository.join(".no_exist").join(&self.commit).join(&self.subfolder).join(file)
    }

    /// A cache that cannot be written only means that the hub will be asked again.
    fn note_absent(&self, file: &str) {
        let path = self.absent(file);
        if path.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok()) {
            let _ = File::create(path);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the files, once the hub was asked. It is asked once, for the commit that is in the cache.
    fn files_known(&self) -> MutexGuard<'_, Known> {
        let mut known = self.known();
        if matches!(*known, Known::Nothing) {
            *known = match self.ask(&self.commit) {
                Ok((_, files)) => Known::Files(files),
                Err(error) => {
                    let notice = format!("of {} only what is in the cache is used: {error}", self.model);
                    self.hub.progress.notice(&notice);
                    Known::Never(error.to_string())
                }
            };
        }
        known
    }

    fn client(&self) -> Result<Client, HubError> {
        Client::new(&self.hub.endpoint, self.hub.token.clone(), self.hub.silence)
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.name.clone(), RepoType::Model, revision.to_owned())
    }

    /// The commit at a revision, and the files in it.
    fn ask(&self, revision: &str) -> Result<(String, BTreeSet<String>), HubError> {
        let (client, repo) = (self.client()?, self.repo(revision));
        let json = client.repository(&repo, &self.model)?;
        let wrong = |reason: String| HubError::Answer {
            url: format!("{}/api/{}", client.endpoint(), repo.api_url()),
            reason,
        };
        let info: RepoInfo = serde_json::from_slice(&json).map_err(|error| wrong(error.to_string()))?;
        if !is_one_name(&info.sha) {
            return Err(wrong(format!("its commit is '{}'", info.sha)));
        }
        Ok((info.sha, info.siblings.into_iter().map(|sibling| sibling.rfilename).collect()))
    }

    fn has_subfolder(&self, files: &BTreeSet<String>) -> Result<(), HubError> {
        if files.iter().any(|file| file.starts_with(&self.subfolder)) || self.subfolder.is_empty() {
            return Ok(());
        }
        Err(HubError::NoSubfolder {
            name: self.name.clone(),
            subfolder: self.subfolder.trim_end_matches('/').to_owned(),
            endpoint: self.hub.endpoint.clone(),
            has: joined(files.iter().cloned()),
        })
    }

    /// Notes in the cache which commit a revision is.
    fn adopt(&self, revision: &str) -> Result<(), HubError> {
        let make = |path: &Path| {
            fs::create_dir_all(path)
                .map_err(|source| HubError::store("a snapshot", self.hub.cache.folder(), path, source))
        };
        make(&self.snapshot())?;
        if revision != self.commit {
            let path = self.repository.join("refs").join(revision);
            make(path.parent().unwrap_or(&path))?;
            engine::replace_file(&path, self.commit.as_bytes())
                .map_err(|source| HubError::store("a ref", self.hub.cache.folder(), &path, source))?;
        }
        Ok(())
    }
}

impl Source for Remote {
    /// A file that is not in the cache is downloaded, unless the model does not have it.
    fn read(&self, file: &str) -> Result<Option<Bytes>, CheckpointError> {
        let path = self.folder.join(file);
        if path.exists() || self.absent(file).exists() {
            return map_if_there(&path);
        }
        let in_repository = format!("{}{file}", self.subfolder);
        let has_it = match &*self.files_known() {
            Known::Files(files) => files.contains(&in_repository),
            // A link whose file is gone is told as such.
            Known::Never(_) | Known::Nothing => return map_if_there(&path),
        };
        if has_it {
            return map_if_there(&self.download(&in_repository)?);
        }
        self.note_absent(file);
        Ok(None)
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.folder)
    }

    fn listing(&self, _base: &str, file: &str) -> String {
        let Known::Files(files) = &*self.known() else { return listing(&self.folder) };
        let own = || files.iter().filter_map(|file| file.strip_prefix(&self.subfolder));
        let kind = Path::new(file).extension();
        let (alike, others): (Vec<_>, Vec<_>) = own().partition(|file| Path::new(file).extension() == kind);
        joined(alike.into_iter().chain(others).map(str::to_owned))
    }

    /// The hub is asked unless it is known that it has none beside those in the cache. That is
    /// noted under the ending alone, as if it were a file that is absent.
    fn ending_in(&self, ending: &str, folders: &[String]) -> Vec<String> {
        let here = || self.folder.ending_in(ending, folders);
        if self.absent(ending).exists() {
            return here();
        }
        let all: Vec<String> = match &*self.files_known() {
            Known::Files(files) => files
                .iter()
                .filter_map(|file| file.strip_prefix(&self.subfolder))
                .filter(|file| file.ends_with(ending) && is_in(file, folders))
                .map(str::to_owned)
                .collect(),
            Known::Never(_) | Known::Nothing => return here(),
        };
        let here = here();
        if all.iter().all(|file| here.contains(file)) {
            self.note_absent(ending);
        }
        all
    }

    fn is_on_hub(&self) -> bool {
        true
    }

    fn is_away(&self, file: &str) -> bool {
        !self.folder.join(file).exists()
    }

    fn be_certain_without(&self, file: &str) -> Result<(), CheckpointError> {
        match &*self.known() {
            Known::Never(why) if !self.absent(file).exists() => {
                let cache = self.hub.cache.folder().display();
                let missing = format!("{file} of {} is not in the hub cache {cache}", self.model);
                Err(HubError::NotAsked { missing, why: why.clone() }.into())
            }
            _ => Ok(()),
        }
    }

    fn tell_unknown(&self, files: &[String], consequence: &str) {
        let why = match &*self.known() {
            Known::Never(why) => why.clone(),
            Known::Nothing | Known::Files(_) => return,
        };
        let is_unknown = |file: &&String| self.is_away(file) && !self.absent(file).exists();
        let unknown: Vec<&str> = files.iter().filter(is_unknown).map(String::as_str).collect();
        if !unknown.is_empty() {
            self.notice(format!(
                "{consequence}: of {} the hub cache has no {}, and whether the model has it was not asked, because {why}",
                self.model,
                unknown.join(", "),
            ));
        }
    }

    fn notice(&self, message: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(message.clone()) {
            self.hub.progress.notice(&message);
        }
    }
}

/// Why nothing is asked, where no variable says so.
const OFFLINE: &str =
    "the client was set offline (Hub::offline): do not, or run once where there is a network";
