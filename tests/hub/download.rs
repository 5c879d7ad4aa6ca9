//! What is downloaded, where it goes, and what is said of what is not there.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::{FIXTURE, World, files_of, fixture_file, large, repository};
use crate::common::hub_server::{COMMIT, HubServer, etag};
use crate::common::{Folder, Run, in_fixture};
use checkpoint::{HubCache, ModelFiles, Progress};
use onnx_graph::{External, Model};

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

/// Of a model on the hub, what the list of its files has counts, and not only what is here.
#[test]
fn a_graph_of_another_name_is_found_in_the_list_of_files() {
    let without = |names: &[&str]| {
        World::with(repository().into_iter().filter(|(name, _)| !names.contains(name)).collect::<Vec<_>>())
    };
    let world = without(&["onnx/model.onnx"]);
    let run = world.run(&["org/tiny"]).exits(0);
    assert!(run.stdout.contains("model_O4.onnx is the only graph of org/tiny"), "{run}");
    // Known to be the only one, it is not asked for again.
    world.run(&["org/tiny"]).exits(0);
    world.server.requests();
    world.run(&["org/tiny"]).exits(0);
    assert!(world.server.requests().is_empty());

    let mut files = repository();
    files.retain(|(name, _)| *name != "onnx/model.onnx");
    files.push(("onnx/model_O3.onnx", fixture_file("onnx/ts17-sdpa-dynamic.onnx")));
    let world = World::with(files);
    for _ in 0..2 {
        world.run(&["org/tiny"]).is_mistake(&[
            "org/tiny has 2 graphs",
            "parity org/tiny --onnx onnx/model_O3.onnx",
            "parity org/tiny --onnx onnx/model_O4.onnx",
        ]);
    }
    world.run(&["org/tiny", "--onnx", "onnx/model_O3.onnx"]).exits(0);

    // None at all is known, too.
    let world = without(&["onnx/model.onnx", "onnx/model_O4.onnx"]);
    let run = world.run(&["org/tiny"]).exits(0);
    assert!(run.stdout.contains("made in memory"), "{run}");
    world.server.requests();
    world.run(&["org/tiny"]).exits(0);
    assert!(world.server.requests().is_empty());
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
