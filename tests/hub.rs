//! Models from the hub: the real client and the real binary, against a server on this machine that plays the hub.

mod access;
mod download;
mod offline;
mod transfer;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::common::hub_server::{COMMIT, HubServer, LARGE, Request, etag};
use crate::common::{Folder, Run, in_fixture};
use checkpoint::{CheckpointError, Hub, HubCache, HubError, ModelFiles};

/// What a client without a network waits for here.
const SILENCE: Duration = Duration::from_millis(300);

/// The fixture whose exports are within 1e-6 in f32, so that a check of it passes.
const FIXTURE: &str = "types1";

fn fixture_file(file: &str) -> Vec<u8> {
    fs::read(in_fixture(FIXTURE, file)).unwrap()
}

/// A model with everything that a repository has, and more.
fn repository() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("README.md", b"# A model".to_vec()),
        ("config.json", fixture_file("config.json")),
        ("model.safetensors", fixture_file("model.safetensors")),
        ("onnx/model.onnx", fixture_file("onnx/ts17-sdpa-dynamic.onnx")),
        ("onnx/model_O4.onnx", fixture_file("onnx/ts18-eager-dynamic.onnx")),
        ("pytorch_model.bin", vec![7; 2 * LARGE]),
    ]
}

/// A large file of which every part is different.
fn large() -> Vec<u8> {
    (0..20 * LARGE as u32).flat_map(|number| (number as u16).to_le_bytes()).collect()
}

/// A hub with one model, a cache in an empty folder, and a client between them.
struct World {
    folder: Folder,
    server: HubServer,
}

impl World {
    fn with<'a>(files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Self {
        let server = HubServer::start();
        server.add("org/tiny", files);
        Self { folder: Folder::new(), server }
    }

    fn new() -> Self {
        Self::with(repository())
    }

    fn hub(&self) -> Hub {
        Hub::new(&self.server.endpoint, HubCache::at(self.folder.at("home/hub"))).with_timeout(SILENCE)
    }

    fn open(&self) -> ModelFiles {
        self.hub().open("org/tiny").unwrap()
    }

    /// The error of reading that file of the model's.
    #[track_caller]
    fn error_of(&self, hub: Hub, file: &str) -> HubError {
        hub_error(hub.open("org/tiny").and_then(|model| model.require(file)))
    }

    /// `parity`, whose hub is the one here.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.folder.parity(args);
        command
            .env("HF_ENDPOINT", &self.server.endpoint)
            .env("HF_HOME", self.folder.at("home"))
            .env_remove("HF_HUB_OFFLINE")
            .env_remove("TRANSFORMERS_OFFLINE");
        command
    }

    fn run(&self, args: &[&str]) -> Run {
        Run::of(&mut self.command(args))
    }

    fn in_cache(&self, name: &str) -> PathBuf {
        self.folder.at("home/hub/models--org--tiny").join(name)
    }

    fn blob(&self, bytes: &[u8]) -> PathBuf {
        self.in_cache("blobs").join(etag(bytes))
    }

    fn incomplete(&self, bytes: &[u8]) -> PathBuf {
        self.in_cache("blobs").join(format!("{}.parity-incomplete", etag(bytes)))
    }
}

#[track_caller]
fn hub_error<T>(result: Result<T, CheckpointError>) -> HubError {
    match result {
        Err(CheckpointError::Hub(error)) => *error,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("no error"),
    }
}

/// The files that were asked for, each once, in the order of the requests.
fn files_of(requests: &[Request]) -> Vec<String> {
    let mut files = Vec::new();
    for request in requests {
        let resolved = request.path.split_once(&format!("/resolve/{COMMIT}/"));
        if let Some((_, file)) = resolved.filter(|(_, file)| files.iter().all(|known| known != file)) {
            files.push(file.to_owned());
        }
    }
    files
}
