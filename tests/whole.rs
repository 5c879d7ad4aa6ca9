//! Every output is there as a whole, or what was there before is: when the disk is full, when
//! Ctrl-C is pressed, and however the place it goes to is made.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::{Folder, Run, fixture, in_fixture, plain_inputs};

/// How long anything here is waited for; a build machine may be busy.
const LONGEST: Duration = Duration::from_secs(60);

/// What is there before, and must be there afterwards.
const OLD: &str = "old";

/// `parity` behind something that a shell does first.
fn after(folder: &Folder, first: &str, args: &[&str]) -> Run {
    let script = format!("{first}; exec \"$0\" \"$@\"");
    Run::of(folder.command("sh").args(["-c", &script, env!("CARGO_BIN_EXE_parity")]).args(args))
}

/// No file may become larger than a kilobyte, which is what a full disk looks like to a program: a
/// write that fails.
const FULL: &str = "trap '' XFSZ; ulimit -f 1";

fn mode(folder: &Folder, name: &str) -> u32 {
    fs::metadata(folder.at(name)).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_full_disk_leaves_what_was_there_and_nothing_else() {
    let folder = Folder::new();
    folder.write_values("in.safetensors", &plain_inputs([4, 8], &[1; 32]));
    let (model, graph) = (fixture("baseline"), in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx"));
    let model = model.to_str().unwrap();
    for (args, outputs) in [
        (
            &["check", "--json", "a.json", "--markdown", "a.md", "--html", "a.html", "--junit", "a.xml"][..],
            &["a.json", "a.md", "a.html", "a.xml"][..],
        ),
        (
            &["embed", "--text", "a", "--json", "a.json", "--jsonl", "a.jsonl", "--safetensors", "a.st"],
            &["a.json", "a.jsonl", "a.st"],
        ),
        (&["run", &graph, "--inputs", "in.safetensors", "--outputs", "a.st"], &["a.st"]),
        (&["export", model, "-o", "a.onnx"], &["a.onnx"]),
        (&["export", model, "-o", "a.onnx", "--external-data"], &["a.onnx", "a.onnx.data"]),
        (&["inspect", &graph, "--json", "a.json"], &["a.json"]),
    ] {
        let others = folder.listing();
        let run = after(&folder, FULL, args);
        run.is_mistake(&["cannot write a."]);
        assert_eq!(folder.listing(), others, "{run}");
        outputs.iter().for_each(|output| folder.write(output, OLD));
        let all = folder.listing();
        after(&folder, FULL, args).is_mistake(&["cannot write a."]);
        assert_eq!(folder.listing(), all);
        for output in outputs {
            assert_eq!(fs::read_to_string(folder.at(output)).unwrap(), OLD, "{output}");
        }
        // It is the limit that keeps them out.
        let run = folder.run(args);
        assert_eq!(run.code, 0, "{run}");
        assert_eq!(folder.listing(), all, "{run}");
        for output in outputs {
            assert_ne!(fs::read(folder.at(output)).unwrap(), OLD.as_bytes(), "{output}");
            fs::remove_file(folder.at(output)).unwrap();
        }
    }
}

/// A check that fails, and the folder that replays it.
#[test]
fn a_folder_is_there_as_a_whole_or_not_at_all() {
    let folder = Folder::new();
    let model = fixture("baseline");
    let graph = in_fixture("forms", "baseline/ort-transformers-ts14-approximation.onnx");
    let args = ["check", model.to_str().unwrap(), "--onnx", &graph, "--repro", "made/replay"];
    let run = after(&folder, FULL, &args);
    assert!(run.code == 1 && run.stdout.contains("made/replay was not written: cannot write "), "{run}");
    assert!(folder.listing().is_empty(), "{:?}", folder.listing());
    assert_eq!(folder.run(&args).code, 1);
    let found: Vec<_> =
        fs::read_dir(folder.at("made/replay")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(found.iter().any(|name| name == "README.md") && found.len() == 6, "{found:?}");
    assert!(!found.iter().any(|name| name.to_string_lossy().starts_with('.')), "{found:?}");
}

#[test]
fn permissions_are_kept_and_new_files_follow_the_umask() {
    let folder = Folder::new();
    let args = ["--json", "a.json", "--markdown", "a.md", "--html", "a.html", "--junit", "a.xml"];
    let names = ["a.json", "a.md", "a.html", "a.xml"];
    for (umask, expected) in [("077", 0o600), ("022", 0o644), ("002", 0o664)] {
        assert_eq!(after(&folder, &format!("umask {umask}"), &args).code, 0);
        for name in names {
            assert_eq!(mode(&folder, name), expected, "{name}, umask {umask}");
            fs::remove_file(folder.at(name)).unwrap();
        }
    }
    for (name, kept) in names.into_iter().zip([0o600, 0o640, 0o666, 0o755]) {
        folder.write(name, OLD);
        fs::set_permissions(folder.at(name), Permissions::from_mode(kept)).unwrap();
    }
    assert_eq!(folder.run(&args).code, 0);
    for (name, kept) in names.into_iter().zip([0o600, 0o640, 0o666, 0o755]) {
        assert_eq!(mode(&folder, name), kept, "{name}");
        assert_ne!(fs::read(folder.at(name)).unwrap(), OLD.as_bytes(), "{name}");
    }
}

/// Links, pipes and devices stay what they are, and get all of it.
#[test]
fn outputs_go_where_they_are_sent() {
    let folder = Folder::new();
    folder.write("real/a.json", OLD);
    symlink("real/a.json", folder.at("link")).unwrap();
    folder
        .run(&["inspect", &in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx"), "--json", "link"])
        .exits(0);
    assert!(folder.at("link").is_symlink());
    let json = fs::read_to_string(folder.at("real/a.json")).unwrap();
    assert!(json.ends_with("}\n") && json.contains("ir_version"), "{json}");

    let graph = in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx");
    let script = format!(
        "mkfifo pipe; cat pipe > piped & \"$0\" inspect {graph} --json pipe > /dev/null; wait; \
         \"$0\" inspect {graph} --json /dev/stdout > both; \"$0\" inspect {graph} --json /dev/null > /dev/null; \
         \"$0\" inspect {graph} --json >(cat > substituted; echo > done) > /dev/null; while ! test -e done; do sleep 0.1; done"
    );
    let run = Run::of(folder.command("bash").args(["-c", &script, env!("CARGO_BIN_EXE_parity")]));
    run.exits(0);
    for name in ["piped", "substituted"] {
        assert_eq!(fs::read_to_string(folder.at(name)).unwrap(), json, "{name}");
    }
    assert!(fs::read_to_string(folder.at("both")).unwrap().starts_with(&json));
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

/// `parity` in the midst of writing three files: its texts come through a pipe that stays open.
fn in_the_midst(folder: &Folder, ignore: &str) -> (Child, File) {
    assert!(Command::new("mkfifo").arg(folder.at("texts")).status().unwrap().success());
    let script = format!("{ignore} exec \"$0\" \"$@\"");
    let args =
        ["embed", "--file", "texts", "--json", "a.json", "--jsonl", "a.jsonl", "--safetensors", "a.st"];
    let mut command = folder.command("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_parity")]).args(args);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = File::options().write(true).open(folder.at("texts")).unwrap();
    pipe.write_all(b"one\n").unwrap();
    let until = Instant::now() + LONGEST;
    while folder.listing().len() < 4 {
        assert!(Instant::now() < until, "nothing is written: {:?}", folder.listing());
        sleep(Duration::from_millis(10));
    }
    (child, pipe)
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_signal_leaves_nothing_behind() {
    // The numbers are those of every Unix.
    for (signal, number) in [("-INT", 2), ("-TERM", 15), ("-HUP", 1)] {
        let folder = Folder::new();
        let (mut child, pipe) = in_the_midst(&folder, "");
        send(signal, &child);
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(number), "{signal}: {status}");
        assert_eq!(folder.listing(), ["texts"], "{signal}");
        drop(pipe);
    }
}

/// As nohup and a shell's `&` have it.
#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let folder = Folder::new();
    let (child, pipe) = in_the_midst(&folder, "trap '' INT HUP;");
    send("-INT", &child);
    send("-HUP", &child);
    sleep(Duration::from_millis(300));
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(folder.listing(), ["a.json", "a.jsonl", "a.st", "texts"]);
}
