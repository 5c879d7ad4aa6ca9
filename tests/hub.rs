//! Models from the hub: the real client and the real binary, against a server on this machine that plays the hub.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::hub_server::{Access, COMMIT, Fault, HubServer, LARGE, Request, etag};
use crate::common::{Folder, Run, in_fixture};
use bert_pipeline::Pooling;
use checkpoint::{CheckpointError, Hub, HubCache, HubError, ModelFiles, Progress};
use onnx_graph::{External, Model};

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

#[test]
fn a_fresh_download_has_the_files_that_are_needed_in_a_cache_as_pythons_client_writes_it() {
    let world = World::new();
    let run = world.run(&["org/tiny"]).exits(0);
    assert!(run.stdout.starts_with("PASS") && run.stdout.contains("org/tiny"), "{run}");

    let requests = world.server.requests();
    assert_eq!(files_of(&requests), ["config.json", "onnx/model.onnx", "model.safetensors"]);
    let lists = requests.iter().filter(|request| request.path.starts_with("/api/")).count();
    assert_eq!(lists, 1, "{requests:?}");

    assert_eq!(fs::read_to_string(world.in_cache("refs/main")).unwrap(), COMMIT);
    for (file, bytes) in repository() {
        let pointer = world.in_cache(&format!("snapshots/{COMMIT}/{file}"));
        let is_needed = ["config.json", "model.safetensors", "onnx/model.onnx"].contains(&file);
        assert_eq!(pointer.exists(), is_needed, "{file}");
        if is_needed {
            assert_eq!(fs::read(&pointer).unwrap(), bytes, "{file}");
            #[cfg(unix)]
            assert_eq!(
                fs::read_link(&pointer).unwrap(),
                PathBuf::from("../".repeat(2 + file.matches('/').count()) + "blobs").join(etag(&bytes)),
                "{file}"
            );
        }
    }
    // What the repository does not have, in the place where Python's client notes it.
    assert!(world.in_cache(&format!(".no_exist/{COMMIT}/tokenizer.json")).exists());
    for blob in fs::read_dir(world.in_cache("blobs")).unwrap() {
        assert!(!blob.unwrap().path().to_str().unwrap().ends_with("incomplete"));
    }
}

#[test]
fn a_second_run_makes_no_request() {
    let world = World::new();
    let first = world.run(&["org/tiny"]).exits(0);
    assert!(!world.server.requests().is_empty());
    let second = world.run(&["org/tiny"]).exits(0);
    assert!(world.server.requests().is_empty());
    assert_eq!(first.stdout.lines().next(), second.stdout.lines().next());

    // What the first did not need is asked for when it is needed, and then not again.
    world.run(&["org/tiny", "--onnx", "onnx/model_O4.onnx"]).exits(0);
    assert_eq!(files_of(&world.server.requests()), ["onnx/model_O4.onnx"]);
    world.run(&["org/tiny", "--onnx", "onnx/model_O4.onnx"]).exits(0);
    assert!(world.server.requests().is_empty());
}

#[test]
fn what_another_client_downloaded_is_used_and_the_rest_asked_for_at_the_same_commit() {
    let world = World::new();
    // transformers leaves this, and no notes on what does not exist. The branch has moved since.
    for file in ["config.json", "model.safetensors"] {
        let path = format!("home/hub/models--org--tiny/snapshots/{COMMIT}/{file}");
        world.folder.write(&path, fixture_file(file));
    }
    world.folder.write("home/hub/models--org--tiny/refs/main", COMMIT);
    let model = world.open();
    assert_eq!(model.config().unwrap(), fixture_file("config.json"));
    assert!(world.server.requests().is_empty());
    assert!(model.onnx().unwrap().is_some());
    let requests = world.server.requests();
    assert_eq!(requests[0].path, format!("/api/models/org/tiny/revision/{COMMIT}"));
    assert_eq!(files_of(&requests), ["onnx/model.onnx"]);
}

#[test]
fn a_wrong_id_is_told_with_both_cures() {
    let world = World::new();
    let message = world.run(&["org/tinny"]).is_mistake(&[
        "'org/tinny'",
        "check the spelling",
        "hf auth login",
        "HF_TOKEN",
    ]);
    assert!(message.contains(&world.server.endpoint), "{message}");
    let run = Run::of(world.command(&["org/tinny"]).env("HF_TOKEN", "good"));
    run.is_mistake(&["'org/tinny'", "the token that was sent may not see it"]);
    assert!(!world.folder.at("home/hub").exists(), "nothing is written for a model that is not there");
}

#[test]
fn a_missing_file_is_named_with_what_is_there() {
    let world = World::with([("notes.txt", vec![1]), ("vocab.txt", vec![2])]);
    world.run(&["org/tiny"]).is_mistake(&["org/tiny has no config.json", "notes.txt, vocab.txt"]);
    let world = World::with([("config.json", fixture_file("config.json")), ("notes.txt", vec![1])]);
    world.run(&["export", "org/tiny", "-o", "x.onnx"]).is_mistake(&[
        "org/tiny has no checkpoint",
        "pytorch_model.bin",
        "config.json, notes.txt",
    ]);
    // A graph that was asked for by name: the others are listed before all else.
    let world = World::new();
    world
        .run(&["org/tiny", "--onnx", "onnx/model_O9.onnx"])
        .is_mistake(&["org/tiny has no onnx/model_O9.onnx", "onnx/model.onnx, onnx/model_O4.onnx"]);
}

#[test]
fn a_revision_may_be_a_branch_with_slashes_or_a_commit_and_an_unknown_one_is_told() {
    let world = World::new();
    world.server.change("org/tiny", |repository| repository.branches.push("refs/pr/3"));
    for revision in ["main", "refs/pr/3", COMMIT] {
        let model = world.hub().open(&format!("org/tiny@{revision}")).unwrap();
        assert_eq!(model.config().unwrap(), fixture_file("config.json"), "{revision}");
        let reference = world.in_cache("refs").join(revision);
        assert_eq!(reference.exists(), revision != COMMIT, "{revision}");
    }
    // One blob for all three.
    let blobs = world
        .server
        .requests()
        .iter()
        .filter(|request| request.method == "GET" && request.path.ends_with("config.json"))
        .count();
    assert_eq!(blobs, 1);
    world.run(&["org/tiny@v9"]).is_mistake(&["org/tiny has no revision 'v9'", "/tree/main"]);
}

#[test]
fn another_commit_with_the_same_file_downloads_it_once() {
    let world = World::new();
    world.open().config().unwrap();
    world.server.requests();
    world.server.change("org/tiny", |repository| {
        repository.commit = "f".repeat(40);
        repository.branches.push("next");
    });
    let model = world.hub().open("org/tiny@next").unwrap();
    assert_eq!(model.config().unwrap(), fixture_file("config.json"));
    let methods: Vec<String> = world.server.requests().into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["GET", "HEAD"], "the list, and what the file is; not the file");
}

#[test]
fn a_cut_transfer_goes_on_where_it_broke_off() {
    let bytes = large();
    let world = World::with([("model.safetensors", bytes.clone())]);
    world.server.fault("model.safetensors", Fault::Cut(bytes.len() / 2 - 3), 2);
    assert_eq!(world.open().read("model.safetensors").unwrap().unwrap(), bytes);
    let ranges: Vec<Option<String>> = world
        .server
        .requests()
        .into_iter()
        .filter(|request| !request.to_hub)
        .map(|request| request.range)
        .collect();
    let half = bytes.len() / 2 - 3;
    assert_eq!(ranges, [None, Some(format!("bytes={half}-")), Some(format!("bytes={}-", 2 * half))]);

    // The same where the server knows no ranges: from the beginning, and not one byte twice.
    for fault in [Fault::CutWithoutRanges(LARGE), Fault::NoRanges] {
        let world = World::with([("model.safetensors", bytes.clone())]);
        world.server.fault("model.safetensors", fault, 1);
        assert_eq!(world.open().read("model.safetensors").unwrap().unwrap(), bytes, "{fault:?}");
    }
}

#[test]
fn a_transfer_that_stays_cut_is_an_error_and_the_next_run_goes_on() {
    let bytes = large();
    let world =
        World::with([("config.json", fixture_file("config.json")), ("model.safetensors", bytes.clone())]);
    // One piece comes, and then never another byte.
    world.server.fault("model.safetensors", Fault::Cut(LARGE), 1);
    let _ = world.open().config();
    world.server.fault("model.safetensors", Fault::Cut(0), usize::MAX);
    fs::write(world.incomplete(&bytes), &bytes[..LARGE]).unwrap();
    let message = world.run(&["export", "org/tiny", "-o", "x.onnx"]).is_mistake(&[
        "model.safetensors",
        "cut short",
        "run the command again",
    ]);
    assert!(message.contains(&format!("{LARGE} of {} bytes", bytes.len())), "{message}");
    assert!(!world.blob(&bytes).exists());
    assert!(!world.in_cache(&format!("snapshots/{COMMIT}/model.safetensors")).is_symlink());
    assert_eq!(fs::read(world.incomplete(&bytes)).unwrap(), bytes[..LARGE]);

    world.server.requests();
    world.server.fault("model.safetensors", Fault::Cut(0), 0);
    assert_eq!(world.open().read("model.safetensors").unwrap().unwrap(), bytes);
    let requests = world.server.requests();
    assert_eq!(requests.last().unwrap().range, Some(format!("bytes={LARGE}-")), "{requests:?}");
    assert!(!world.incomplete(&bytes).exists());
}

#[test]
fn a_partial_file_that_cannot_be_the_beginning_is_thrown_away() {
    let bytes = large();
    let world = World::with([("config.json", vec![1]), ("model.safetensors", bytes.clone())]);
    world.open().config().unwrap();
    fs::write(world.incomplete(&bytes), vec![0; bytes.len() + 1]).unwrap();
    assert_eq!(world.open().read("model.safetensors").unwrap().unwrap(), bytes);
}

#[test]
fn a_partial_file_of_pythons_client_is_left_alone() {
    let bytes = large();
    let world = World::with([("config.json", vec![1]), ("model.safetensors", bytes.clone())]);
    world.open().config().unwrap();
    // Of the whole length, with a hole where a part is still to come.
    let foreign = world.in_cache("blobs").join(format!("{}.incomplete", etag(&bytes)));
    fs::write(&foreign, vec![0; bytes.len()]).unwrap();
    assert_eq!(world.open().read("model.safetensors").unwrap().unwrap(), bytes);
    assert_eq!(fs::read(&foreign).unwrap(), vec![0; bytes.len()]);
}

#[test]
fn a_file_of_another_length_than_the_hub_says_is_refused() {
    let bytes = large();
    for fault in [Fault::Short, Fault::Long] {
        let world = World::with([("model.safetensors", bytes.clone())]);
        world.server.fault("model.safetensors", fault, usize::MAX);
        let error = world.error_of(world.hub(), "model.safetensors");
        assert!(matches!(error, HubError::Answer { .. }), "{fault:?}: {error}");
        assert!(error.to_string().contains(&bytes.len().to_string()), "{fault:?}: {error}");
        assert!(!world.blob(&bytes).exists(), "{fault:?}");
    }
}

#[test]
fn a_silent_server_is_given_up() {
    let world = World::with([("model.safetensors", large())]);
    world.server.fault("model.safetensors", Fault::Silence, usize::MAX);
    let begun = Instant::now();
    let error = world.error_of(world.hub(), "model.safetensors");
    assert!(matches!(error, HubError::CutShort { found: 0, .. }), "{error}");
    // Three times the silence, the pauses between, and a slow machine.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_gated_model_says_where_to_ask_and_to_log_in() {
    let world = World::new();
    world.server.change("org/tiny", |repository| repository.access = Access::Gated("good"));
    let page = format!("ask for access at {}/org/tiny", world.server.endpoint);
    world.run(&["org/tiny"]).is_mistake(&[
        "org/tiny is gated",
        &page,
        "log in with `hf auth login`",
        "HF_TOKEN",
    ]);
    let run = Run::of(world.command(&["org/tiny"]).env("HF_TOKEN", "of-somebody-else"));
    run.is_mistake(&["org/tiny is gated", &page, "the account that was let in"]);
    Run::of(world.command(&["org/tiny"]).env("HF_TOKEN", "good")).exits(0);
}

#[test]
fn a_token_goes_to_the_hub_alone() {
    let world = World::new();
    world.server.change("org/tiny", |repository| repository.access = Access::Private("good"));
    world.run(&["org/tiny"]).is_mistake(&["no model 'org/tiny'", "if it is private"]);
    world.server.requests();

    // From the variable, and from where a login leaves it.
    for place in ["variable", "home/token", "elsewhere"] {
        let mut command = world.command(&["org/tiny"]);
        match place {
            "variable" => _ = command.env("HF_TOKEN", "good"),
            "elsewhere" => {
                world.folder.write(place, "good\n");
                command.env("HF_TOKEN_PATH", world.folder.at(place));
            }
            file => world.folder.write(file, "good\n"),
        }
        Run::of(&mut command).exits(0);
        let requests = world.server.requests();
        let (own, storage): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.to_hub);
        assert!(!storage.is_empty(), "nothing was redirected: {requests:?}");
        for request in own {
            assert_eq!(request.authorization.as_deref(), Some("Bearer good"), "{place}: {request:?}");
        }
        for request in storage {
            assert_eq!(request.authorization, None, "{place}: {request:?}");
        }
        let _ = fs::remove_file(world.folder.at("home/token"));
        fs::remove_dir_all(world.folder.at("home/hub")).unwrap();
    }
}

#[test]
fn a_token_that_the_hub_does_not_know_is_told_as_such() {
    let world = World::new();
    let run = Run::of(world.command(&["org/tiny"]).env("HF_TOKEN", "wrong"));
    let message = run.is_mistake(&["does not accept the token in HF_TOKEN", "hf auth login"]);
    assert!(!message.contains("wrong"), "{message}");
    let run = Run::of(world.command(&["org/tiny"]).env("HF_TOKEN", "two words"));
    let message = run.is_mistake(&["the token in HF_TOKEN has characters"]);
    assert!(!message.contains("two words"), "{message}");
    assert!(!format!("{:?}", world.hub().with_token("good")).contains("good"));
}

/// A graph with its weights in a second file of that name.
fn with_external_data(data: &str) -> Vec<(&'static str, Vec<u8>)> {
    let folder = Folder::new();
    let graph = format!("{}.onnx", data.strip_suffix(".onnx.data").unwrap());
    Model::open(in_fixture(FIXTURE, "onnx/ts17-sdpa-dynamic.onnx"))
        .unwrap()
        .save_with(folder.at(&graph), &External { threshold: 64 })
        .unwrap();
    let mut files = repository();
    files.retain(|(file, _)| !file.starts_with("onnx/"));
    files.push(("onnx/model.onnx", fs::read(folder.at(&graph)).unwrap()));
    files.push((data.to_owned().leak(), fs::read(folder.at(data)).unwrap()));
    let (name, bytes) = files.pop().unwrap();
    files.push((format!("onnx/{name}").leak(), bytes));
    files
}

#[test]
fn external_data_comes_with_its_graph_through_the_links_of_the_cache() {
    // By the name that exporters give it, and by one that only the graph knows.
    for data in ["model.onnx.data", "weights of it.onnx.data"] {
        let world = World::with(with_external_data(data));
        let run = world.run(&["org/tiny"]).exits(0);
        assert!(run.stdout.starts_with("PASS"), "{run}");
        assert!(world.in_cache(&format!("snapshots/{COMMIT}/onnx/{data}")).exists(), "{data}");
        world.server.requests();
        world.run(&["org/tiny"]).exits(0);
        let again = world.server.requests();
        assert!(again.is_empty(), "{data}: {again:?}");
    }
    let mut files = with_external_data("model.onnx.data");
    files.retain(|(file, _)| !file.ends_with(".data"));
    let world = World::with(files);
    world.run(&["org/tiny"]).is_mistake(&["org/tiny has no onnx/model.onnx.data", "onnx/model.onnx"]);
}

#[test]
fn a_subfolder_is_a_model_of_its_own() {
    let inner: Vec<(String, Vec<u8>)> =
        repository().into_iter().map(|(file, bytes)| (format!("models/small/{file}"), bytes)).collect();
    let world = World::with(inner.iter().map(|(file, bytes)| (file.as_str(), bytes.clone())));
    for id in ["org/tiny/models/small", "org/tiny/models/small@main"] {
        let run = world.run(&[id]).exits(0);
        assert!(run.stdout.starts_with("PASS") && run.stdout.contains(id), "{run}");
    }
    assert_eq!(
        files_of(&world.server.requests()),
        ["models/small/config.json", "models/small/onnx/model.onnx", "models/small/model.safetensors"]
    );
    // Without a network, and by the client that has none.
    Run::of(world.command(&["org/tiny/models/small"]).env("HF_HUB_OFFLINE", "1")).exits(0);
    let cache = HubCache::at(world.folder.at("home/hub"));
    let model = ModelFiles::open_in("org/tiny/models/small", &cache).unwrap();
    assert_eq!(model.config().unwrap(), fixture_file("config.json"));

    for folder in [Folder::new().path(), world.folder.path()] {
        let _ = folder;
        world
            .run(&["org/tiny/models/large"])
            .is_mistake(&["no folder 'models/large'", "models/small/config.json"]);
    }
    // A folder that is there is meant before all else.
    world.folder.write("org/tiny/models/small/notes.txt", "");
    world.run(&["org/tiny/models/small"]).is_mistake(&["config.json", "notes.txt"]);
}

#[test]
fn offline_means_no_request_at_all() {
    let world = World::new();
    let offline = |args: &[&str]| Run::of(world.command(args).env("HF_HUB_OFFLINE", "1"));
    offline(&["org/tiny"]).is_mistake(&[
        "'org/tiny'",
        "models--org--tiny",
        "HF_HUB_OFFLINE is set",
        "unset it",
    ]);
    assert!(world.server.requests().is_empty());

    // What is named is what was set.
    let run =
        Run::of(world.command(&["org/tiny"]).env_remove("HF_HUB_OFFLINE").env("TRANSFORMERS_OFFLINE", "1"));
    let message = run.is_mistake(&["TRANSFORMERS_OFFLINE is set", "unset it"]);
    assert!(!message.contains("HF_HUB_OFFLINE"), "{message}");
    let error = world.error_of(world.hub().offline(true), "config.json").to_string();
    assert!(error.contains("Hub::offline") && !error.contains("_OFFLINE"), "{error}");
    assert!(world.server.requests().is_empty());

    // The configuration is in the cache, the weights are not.
    world.open().config().unwrap();
    world.server.requests();
    offline(&["export", "org/tiny", "-o", "x.onnx"])
        .is_mistake(&["model.safetensors of org/tiny is not in the hub cache", "HF_HUB_OFFLINE"]);
    offline(&["org/tiny", "--onnx", "onnx/model_O4.onnx"])
        .is_mistake(&["onnx/model_O4.onnx of org/tiny", "HF_HUB_OFFLINE"]);

    world.run(&["org/tiny"]).exits(0);
    world.server.requests();
    let run = offline(&["org/tiny"]).exits(0);
    assert!(run.stdout.starts_with("PASS"), "{run}");
    assert!(world.server.requests().is_empty());
}

/// What was told beside errors.
#[derive(Clone, Default)]
struct Notices(Arc<Mutex<Vec<String>>>);

impl Progress for Notices {
    fn notice(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

#[test]
fn offline_a_pooling_that_is_only_guessed_is_told() {
    let mut files = repository();
    files.push(("1_Pooling/config.json", br#"{"pooling_mode_cls_token": true}"#.to_vec()));
    let world = World::with(files);
    let pooling = || {
        let notices = Notices::default();
        let model = world.hub().offline(true).with_progress(notices.clone()).open("org/tiny").unwrap();
        let (pooling, _) = Pooling::from_files(&model).unwrap();
        Pooling::from_files(&model).unwrap();
        let notices = notices.0.lock().unwrap().clone();
        (pooling, notices)
    };
    // As transformers leaves a model.
    world.open().config().unwrap();
    let (guessed, notices) = pooling();
    assert_eq!((guessed, notices.len()), (Pooling::Mean, 1), "{notices:?}");
    for part in [
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "pooled by mean",
        "Hub::offline",
    ] {
        assert!(notices[0].contains(part), "{part}: {notices:?}");
    }
    // Once the hub was asked, it is certain.
    assert_eq!(Pooling::from_files(&world.open()).unwrap().0, Pooling::Cls);
    assert_eq!(pooling(), (Pooling::Cls, Vec::new()));
}

#[test]
fn a_graph_that_is_nowhere_is_a_file_where_only_that_can_be_meant() {
    let world = World::new();
    let absolute = world.folder.at("none/model.onnx");
    let absolute = absolute.to_str().unwrap();
    world.run(&["org/tiny", "--onnx", absolute]).is_mistake(&[absolute, "No such file"]);
    assert_eq!(files_of(&world.server.requests()), ["config.json"]);
    world.run(&["org/tiny", "--onnx", "./onnx/./model_O4.onnx"]).exits(0);
    world
        .run(&["org/tiny", "--onnx", "../model.onnx"])
        .is_mistake(&["'../model.onnx'", "within the model's folder"]);
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt as _;
        let mut command = world.command(&["org/tiny", "--onnx"]);
        command.arg(std::ffi::OsStr::from_bytes(b"onnx\xff/model.onnx"));
        Run::of(&mut command).is_mistake(&["No such file"]);
    }
}

#[test]
fn without_a_network_the_cache_is_used_alone_and_that_is_said() {
    let world = World::new();
    world.run(&["export", "org/tiny", "-o", "x.onnx"]).exits(0);
    // A port where nobody listens: it was free a moment ago.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{nobody}");

    let run = Run::of(world.command(&["org/tiny", "--onnx", "x.onnx"]).env("HF_ENDPOINT", &endpoint));
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stdout.starts_with("PASS"), "{run}");
    assert!(run.stderr.starts_with("note: ") && run.stderr.contains(&nobody.to_string()), "{run}");
    assert_eq!(run.stderr.lines().count(), 1, "{run}");

    let run = Run::of(world.command(&["org/other"]).env("HF_ENDPOINT", &endpoint));
    run.is_mistake(&[&nobody.to_string(), "cannot be reached", "check the network", "HF_HUB_OFFLINE"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_under_an_export_is_told() {
    let world = World::new();
    std::os::unix::fs::symlink("/dev/full", world.folder.at("x.onnx")).unwrap();
    let run = world.run(&["export", in_fixture(FIXTURE, "").trim_end_matches('/'), "-o", "x.onnx"]);
    run.is_mistake(&["cannot write x.onnx", "No space left on device"]);
}

/// A disk that is full: what is written to this device fails with that.
#[cfg(target_os = "linux")]
#[test]
fn no_space_left_is_told_and_leaves_nothing() {
    let bytes = large();
    let world =
        World::with([("config.json", fixture_file("config.json")), ("model.safetensors", bytes.clone())]);
    world.open().config().unwrap();
    std::os::unix::fs::symlink("/dev/full", world.incomplete(&bytes)).unwrap();
    world.run(&["export", "org/tiny", "-o", "x.onnx"]).is_mistake(&[
        "no space left for model.safetensors",
        "home/hub",
        "HF_HOME",
    ]);
    assert!(!world.blob(&bytes).exists() && !world.incomplete(&bytes).is_symlink());
    assert!(!world.in_cache(&format!("snapshots/{COMMIT}/model.safetensors")).is_symlink());
}

#[test]
fn a_wrong_address_of_the_hub_is_told_only_where_it_is_needed() {
    let world = World::new();
    for (endpoint, reason) in [
        ("huggingface.co", "http"),
        ("ftp://host", "http"),
        ("http://", "http"),
        ("http://ho st", "URL"),
        ("https://me:secret@host", "password"),
        ("https://host/?x=1", "path"),
    ] {
        let run = Run::of(world.command(&["org/tiny"]).env("HF_ENDPOINT", endpoint));
        run.is_mistake(&["the hub's address", reason, "HF_ENDPOINT must be such as"]);
    }
    world.run(&["org/tiny"]).exits(0);
    for endpoint in ["nonsense", ""] {
        Run::of(world.command(&["org/tiny"]).env("HF_ENDPOINT", endpoint)).exits(0);
    }
}

#[test]
fn a_renamed_repository_is_followed_with_the_token() {
    let world = World::new();
    world.server.rename("org/tiny", "org/new");
    world.server.change("org/new", |repository| repository.access = Access::Private("good"));
    let model = world.hub().with_token("good").open("org/tiny").unwrap();
    assert_eq!(model.config().unwrap(), fixture_file("config.json"));
    assert_eq!(model.read("model.safetensors").unwrap().unwrap(), fixture_file("model.safetensors"));
    assert_eq!(
        fs::read_to_string(world.in_cache("refs/main")).unwrap(),
        COMMIT,
        "under the name that was asked for"
    );
}

#[test]
fn answers_that_no_hub_gives_are_refused() {
    let head = |lines: &str| format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{lines}\r\n\r\n");
    let list = |json: &str| head(&format!("Content-Length: {}", json.len())) + json;
    for (part, answer, said) in [
        ("/api/", list("<html>"), "does not answer as the hub"),
        ("/api/", list(r#"{"sha": "../../../x", "siblings": []}"#), "its commit is '../../../x'"),
        ("/api/", list(r#"{"sha": "", "siblings": []}"#), "its commit is ''"),
        ("/api/", head("Content-Length: 99") + "{", "cannot be reached"),
        ("/api/", "HTTP/1.1 302 Found\r\nLocation: /api/again\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into(), "redirects"),
        ("/api/", "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into(), "redirects to 'file:"),
        ("/api/", "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into(), "wait a while"),
        ("/api/", "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into(), "the fault is the server's"),
        ("/resolve/", head("Content-Length: 1") + "x", "there is no ETag"),
        ("/resolve/", head("Content-Length: 1\r\nETag: \"../../x\"") + "x", "its ETag is '../../x'"),
        ("/resolve/", head("ETag: \"x\"") + "x", "how long the file is"),
        ("/resolve/", "HTTP/1.1 404 Not Found\r\nX-Error-Code: EntryNotFound\r\nX-Error-Message: Entry not found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into(), "404: Entry not found"),
    ] {
        let world = World::new();
        world.server.fix(part, &answer);
        let error = world.error_of(world.hub(), "config.json").to_string();
        assert!(error.contains(said), "{answer:?}: {error}");
        assert!(!world.in_cache(&format!("snapshots/{COMMIT}/config.json")).exists(), "{answer:?}");
    }
}

#[test]
fn a_rest_that_cannot_be_is_refused() {
    for (range, length, said) in [
        ("5-9/10", u64::MAX, "bytes more after 5"),
        ("5-9/11", 5, "a file of 11 bytes, and the hub says it has 10"),
        ("4-9/10", 6, "asked for bytes from 5, it sends 'bytes 4-9/10'"),
    ] {
        let world = World::new();
        world.open();
        world.server.fix(
            "/resolve/",
            &format!(
                "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nETag: \"x\"\r\nX-Linked-Size: 10\r\n\
                 Content-Range: bytes {range}\r\nContent-Length: {length}\r\n\r\n67890"
            ),
        );
        world.folder.write("home/hub/models--org--tiny/blobs/x.parity-incomplete", "12345");
        let error = world.error_of(world.hub(), "config.json").to_string();
        assert!(error.contains(said), "{range}: {error}");
        assert!(!world.in_cache("blobs/x").exists(), "{range}");
    }
}

#[test]
fn progress_is_told_from_the_first_byte_to_the_last() {
    /// The file, how many bytes of it are there, and of how many.
    type Event = (String, u64, Option<u64>);
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<Event>>>);
    impl Progress for Heard {
        fn downloading(&self, file: &str, done: u64, total: Option<u64>) {
            self.0.lock().unwrap().push((file.into(), done, total));
        }
        fn stopped(&self, file: &str) {
            self.0.lock().unwrap().push((file.into(), u64::MAX, None));
        }
    }
    let bytes = large();
    let (world, heard) = (World::with([("model.safetensors", bytes.clone())]), Heard::default());
    world.hub().with_progress(heard.clone()).open("org/tiny").unwrap().read("model.safetensors").unwrap();
    let heard = heard.0.lock().unwrap();
    let total = bytes.len() as u64;
    assert!(heard.iter().all(|(file, _, _)| file == "model.safetensors"));
    assert_eq!((heard[0].1, heard[0].2), (0, Some(total)));
    assert!(heard.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    assert_eq!(heard[heard.len() - 2].1, total);
    assert_eq!(heard[heard.len() - 1].1, u64::MAX);
}

#[test]
fn two_at_once_download_a_file_once() {
    let bytes = large();
    let world = World::with([("model.safetensors", bytes.clone())]);
    world.open();
    world.server.requests();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(world.open().read("model.safetensors").unwrap().unwrap(), bytes));
        }
    });
    let sent = world.server.requests().iter().filter(|request| !request.to_hub).count();
    assert_eq!(sent, 1);
}

/// The notebook's model, in the shape it has on the hub: no safetensors, no tokenizer.json, no graph.
#[test]
fn a_repository_like_the_notebooks_is_checked_in_one_command_from_an_empty_cache() {
    let server = HubServer::start();
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let vocabulary: Vec<String> = words.into_iter().chain((5..48).map(|id| format!("word{id}"))).collect();
    server.add(
        "prajjwal1/bert-tiny",
        [
            ("config.json", fs::read(in_fixture("baseline", "config.json")).unwrap()),
            ("pytorch_model.bin", fs::read(in_fixture("checkpoints", "legacy/pytorch_model.bin")).unwrap()),
            ("vocab.txt", vocabulary.join("\n").into_bytes()),
        ],
    );
    let world = World { folder: Folder::new(), server };
    let run = world.run(&["check", "prajjwal1/bert-tiny"]);
    let snapshot = world.folder.at(&format!("home/hub/models--prajjwal1--bert-tiny/snapshots/{COMMIT}"));
    for file in ["config.json", "pytorch_model.bin", "vocab.txt"] {
        assert!(snapshot.join(file).exists(), "{file}: {run}");
    }
    // From here on it is the check's part: there is no graph, so one is exported in memory, judged, and that is said.
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stderr.is_empty(), "{run}");
    assert!(run.stdout.contains("prajjwal1/bert-tiny") && run.stdout.contains("in memory"), "{run}");
    world.server.requests();
    world.run(&["check", "prajjwal1/bert-tiny"]).exits(0);
    assert!(world.server.requests().is_empty());
}
