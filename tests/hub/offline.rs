//! Without a network.

use std::sync::{Arc, Mutex};

use super::{World, repository};
use crate::common::Run;
use bert_pipeline::Pooling;
use checkpoint::Progress;

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
    world.open().read("config.json").unwrap();
    let (guessed, notices) = pooling();
    assert_eq!((guessed, notices.len()), (Pooling::Mean, 1), "{notices:?}");
    for part in [
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "made by mean pooling",
        "Hub::offline",
    ] {
        assert!(notices[0].contains(part), "{part}: {notices:?}");
    }
    // Once the hub was asked, it is certain.
    assert_eq!(Pooling::from_files(&world.open()).unwrap().0, Pooling::Cls);
    assert_eq!(pooling(), (Pooling::Cls, Vec::new()));
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
    // It may be a folder with a slip in its name.
    let message = run.is_mistake(&["there is no folder 'org/other' here: check its spelling"]);
    assert!(message.find("no folder") < message.find(&nobody.to_string()), "{message}");
    run.is_mistake(&[&nobody.to_string(), "cannot be reached", "check the network", "HF_HUB_OFFLINE"]);
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
