//! Transfers that break, and answers that cannot be right.

use std::fs;
use std::time::{Duration, Instant};

use super::{FIXTURE, World, fixture_file, large};
use crate::common::hub_server::{COMMIT, Fault, LARGE, etag};
use crate::common::in_fixture;
use checkpoint::HubError;

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
