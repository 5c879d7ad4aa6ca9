//! What a user may get wrong: each gives exit code 2 and one line on stderr that names the thing and, where there is one, the cure.

use crate::common::{Folder, Run, fixture, in_fixture, plain_inputs, with, without};
use engine::{NamedValues, Value};
use serde_json::Value as Json;

/// The limits of the fixture `baseline`, and those of the embedded model.
const VOCABULARY: i64 = 48;
const POSITIONS: usize = 24;
const DEFAULT_VOCABULARY: i64 = 2048;
const DEFAULT_POSITIONS: usize = 512;

/// A mistake in a check: the line on stderr, and with `--json -` the same message as JSON, beside it.
#[track_caller]
fn check_mistake(folder: &Folder, args: &[&str], words: &[&str]) {
    let message = folder.run(args).is_mistake(words);
    let run = folder.run(&[args, &["--json", "-"]].concat());
    let report = run.json();
    assert_eq!(report["schema"], "parity-report/1", "{run}");
    assert_eq!(report["verdict"], "error", "{run}");
    assert_eq!(report["error"], message, "{run}");
    assert_eq!(report["checks"], Json::Array(vec![]), "{run}");
    assert_eq!((run.code, run.stderr.as_str()), (2, format!("error: {message}\n").as_str()), "{run}");
}

/// A graph that fits the fixture `baseline`.
fn graph() -> String {
    in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx")
}

#[test]
fn a_model_that_is_not_there() {
    let folder = Folder::new();
    check_mistake(&folder, &["./no/such/folder"], &["no folder './no/such/folder'"]);
    check_mistake(
        &folder,
        &["check", "nobody/nothing"],
        &["there is no folder 'nobody/nothing' here", "models--nobody--nothing", "HF_HOME"],
    );
    check_mistake(&folder, &["a b c"], &["there is no folder 'a b c' here", "hub id"]);
    check_mistake(&folder, &[&graph()], &["is a graph", "--onnx", "parity run"]);
    check_mistake(
        &folder,
        &[&in_fixture("baseline", "model.safetensors")],
        &["model.safetensors", "is a file", "folder"],
    );

    // The cache has the model, but not that revision.
    folder.write("home/hub/models--org--name/refs/main", "0123");
    folder.write("home/hub/models--org--name/snapshots/0123/config.json", "{}");
    let run = Run::of(folder.parity(&["org/name@v2"]).env("HF_HOME", folder.at("home")));
    run.is_mistake(&["org/name", "v2", "0123"]);
    let run = Run::of(folder.parity(&["org/name"]).env("HF_HOME", folder.at("home")));
    assert_eq!(run.code, 2, "{run}");
    // Offline, nobody knows whether it has a graph: that is noted before.
    let last = run.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: model.safetensors of org/name is not in the hub cache"), "{run}");
}

#[test]
fn a_folder_without_its_files() {
    let folder = Folder::new();
    folder.write("empty/notes.txt", "nothing here");
    check_mistake(&folder, &["empty"], &["empty", "config.json", "notes.txt"]);

    folder.copy_fixture("baseline", "model");
    std::fs::remove_file(folder.at("model/model.safetensors")).unwrap();
    check_mistake(&folder, &["model", "--onnx", &graph()], &["model.safetensors", "config.json"]);
    folder.write("model/pytorch_model.bin", b"PK\x03\x04");
    check_mistake(&folder, &["model", "--onnx", &graph()], &["pytorch_model.bin", "damaged or cut short"]);
}

/// The config of `baseline` with one field set.
fn config_with(field: &str, value: impl Into<Json>) -> String {
    let mut config: Json =
        serde_json::from_slice(&std::fs::read(fixture("baseline").join("config.json")).unwrap()).unwrap();
    config[field] = value.into();
    config.to_string()
}

#[test]
fn a_config_that_is_none_or_contradicts_itself() {
    let folder = Folder::new();
    folder.copy_fixture("baseline", "model");
    for (config, words) in [
        ("", &["config.json is not JSON"][..]),
        ("<!DOCTYPE html>\n<html>\n", &["config.json is not JSON"]),
        ("{\n  \"hidden_size\":\n  16,,\n}", &["config.json is not JSON", "line 3"]),
        ("[1, 2]", &["JSON object"]),
        (&config_with("num_attention_heads", 3), &["hidden_size 16", "num_attention_heads 3"]),
        (&config_with("hidden_size", 0), &["hidden_size is 0"]),
        (&config_with("hidden_size", "sixteen\nor so"), &["hidden_size", "whole number"]),
        (&config_with("num_hidden_layers", -1), &["num_hidden_layers"]),
        (&config_with("num_hidden_layers", u64::MAX), &["num_hidden_layers"]),
        (&config_with("hidden_act", "frobnicate\nit"), &["hidden_act", "frobnicate", "gelu_new"]),
        (&config_with("model_type", "reformer"), &["reformer", "roberta", "parity run GRAPH"]),
        (&config_with("pad_token_id", 48), &["pad_token_id 48", "48 tokens"]),
    ] {
        folder.write("model/config.json", config);
        check_mistake(&folder, &["model", "--onnx", &graph()], words);
    }
}

#[test]
fn a_checkpoint_that_is_cut_short_or_none() {
    let folder = Folder::new();
    folder.copy_fixture("baseline", "model");
    let bytes = std::fs::read(folder.at("model/model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for cut in [0, 1, 8, 9, 100, header - 1, header, header + 1, bytes.len() / 2, bytes.len() - 1] {
        folder.write("model/model.safetensors", &bytes[..cut]);
        check_mistake(&folder, &["model", "--onnx", &graph()], &["model.safetensors"]);
    }
    let longer = [&bytes[..], b"more"].concat();
    let absurd = [&u64::MAX.to_le_bytes()[..], &bytes[8..]].concat();
    let overflowing = br#"{"w":{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,4]}}"#;
    let overflowing = [&(overflowing.len() as u64).to_le_bytes()[..], overflowing, &[0; 4]].concat();
    for (bytes, word) in [
        (&longer[..], "belong to no tensor"),
        (&absurd, "header"),
        (&overflowing, "model.safetensors"),
        (b"PK\x03\x04 and so on", "PyTorch"),
        (b"<html>\n<body>404</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    ] {
        folder.write("model/model.safetensors", bytes);
        check_mistake(&folder, &["model", "--onnx", &graph()], &["model.safetensors", word]);
    }
}

#[test]
fn tensors_that_do_not_fit_the_config() {
    const BIAS: &str = "encoder.layer.1.output.dense.bias";
    const QUERY: &str = "encoder.layer.0.attention.self.query.weight";
    let folder = Folder::new();
    folder.copy_fixture("baseline", "model");
    let tensors = folder.values("model/model.safetensors");
    let refused = |tensors: &NamedValues, words: &[&str]| {
        folder.write_values("model/model.safetensors", tensors);
        check_mistake(&folder, &["model", "--onnx", &graph()], words);
    };
    refused(&without(tensors.clone(), BIAS), &[BIAS, "[16]", "missing"]);
    let wide = Value::new([16, 17], vec![0f32; 16 * 17]).unwrap();
    refused(&with(tensors.clone(), QUERY, wide.clone()), &[QUERY, "[16, 17]", "[16, 16]"]);
    // All of them, not the first only; on the one line there is.
    refused(&without(with(tensors.clone(), QUERY, wide), BIAS), &[QUERY, BIAS]);
    folder.write("model/config.json", config_with("hidden_size", 32));
    refused(&tensors, &["embeddings.word_embeddings.weight is [48, 16]", "[48, 32]", "more"]);
    folder.copy_fixture("baseline", "model");
    let ints = Value::new([16], vec![0i64; 16]).unwrap();
    refused(&with(tensors, BIAS, ints), &[BIAS, "i64", "float"]);
    let other = NamedValues::from_iter([("conv1.weight", Value::scalar(1f32))]);
    refused(&other, &["conv1.weight", "BERT"]);
}

#[test]
fn a_graph_that_is_not_there_cut_short_or_none() {
    let folder = Folder::new();
    let model = fixture("baseline");
    let model = model.to_str().unwrap();
    check_mistake(&folder, &[model, "--onnx", "missing.onnx"], &["missing.onnx"]);
    check_mistake(&folder, &["--onnx", "."], &["cannot read ."]);

    let bytes = std::fs::read(graph()).unwrap();
    let mut cuts: Vec<usize> = (1..16).map(|part| bytes.len() * part / 16).collect();
    cuts.extend([1, 2, 10, 100, 1000, bytes.len() - 20, bytes.len() - 2, bytes.len() - 1]);
    for cut in cuts {
        folder.write("cut.onnx", &bytes[..cut]);
        check_mistake(&folder, &[model, "--onnx", "cut.onnx"], &["cut"]);
        let args = ["run", "cut.onnx", "--inputs", "in.safetensors", "--outputs", "out.safetensors"];
        folder.write_values("in.safetensors", &plain_inputs([1, 1], &[1]));
        folder.run(&args).is_mistake(&["cut"]);
    }
    for (bytes, word) in [
        (&b""[..], "empty"),
        (
            b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x10\x00\x00\x00\x10\x08\x06\x00\x00\x00",
            "PNG image",
        ),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01", "JPEG image"),
        (b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git"),
        (&std::fs::read(fixture("baseline").join("model.safetensors")).unwrap(), "safetensors"),
        (&[0xff; 64], "not an ONNX model"),
    ] {
        folder.write("other.onnx", bytes);
        check_mistake(&folder, &[model, "--onnx", "other.onnx"], &["other.onnx", word]);
        check_mistake(&folder, &["--onnx", "other.onnx"], &["other.onnx", word]);
    }
}

#[test]
fn inputs_that_the_model_does_not_take() {
    let folder = Folder::new();
    let model = fixture("baseline");
    let model = model.to_str().unwrap();
    let graph = graph();
    let fits = || plain_inputs([1, 4], &[1, 2, 3, 4]);
    let of = |elements: [i64; 4]| Value::new([1, 4], elements.to_vec()).unwrap();
    let shaped = |shape: &[usize]| Value::new(shape, vec![1i64; shape.iter().product()]).unwrap();
    let long = plain_inputs([1, POSITIONS + 1], &[1; POSITIONS + 1]);
    let (vocabulary, positions, tokens) =
        (VOCABULARY.to_string(), POSITIONS.to_string(), (POSITIONS + 1).to_string());
    for (inputs, words) in [
        (
            with(fits(), "input_ids", of([1, 2, VOCABULARY, 3])),
            &["input_ids[0, 2]", &vocabulary, "vocabulary"][..],
        ),
        (with(fits(), "input_ids", of([1, -1, 2, 3])), &["input_ids[0, 1] is -1", &vocabulary]),
        (with(fits(), "input_ids", of([i64::MAX, 1, 2, 3])), &["input_ids"]),
        (with(fits(), "input_ids", of([1, 2, i64::MIN, 3])), &["input_ids"]),
        (with(fits(), "token_type_ids", of([0, 0, 0, 2])), &["token_type_ids[0, 3] is 2", "2 token type"]),
        (with(fits(), "token_type_ids", of([-1, 0, 0, 0])), &["token_type_ids[0, 0] is -1"]),
        (with(fits(), "attention_mask", of([1, 2, 1, 1])), &["attention_mask[0, 1] is 2", "padding"]),
        (long, &[&tokens, &positions]),
        (with(fits(), "ids", of([0; 4])), &["'ids'", "input_ids", "attention_mask", "token_type_ids"]),
        (with(fits(), "input_ids", Value::new([1, 4], vec![1f32; 4]).unwrap()), &["input_ids", "f32", "i64"]),
        (with(fits(), "input_ids", shaped(&[4])), &["input_ids", "[4]"]),
        (with(fits(), "input_ids", shaped(&[1, 4, 1])), &["input_ids", "[1, 4, 1]"]),
        (with(fits(), "input_ids", Value::scalar(1i64)), &["input_ids", "[]"]),
        (with(fits(), "attention_mask", shaped(&[1, 3])), &["attention_mask", "3", "4"]),
        (with(fits(), "token_type_ids", shaped(&[2, 4])), &["token_type_ids", "2"]),
        (plain_inputs([1, 0], &[]), &["input_ids", "[1, 0]"]),
        (plain_inputs([0, 4], &[]), &["input_ids", "[0, 4]"]),
        (without(fits(), "input_ids"), &["input_ids", "not among those given"]),
        (NamedValues::new(), &["input_ids", "not among those given"]),
    ] {
        folder.write_values("in.safetensors", &inputs);
        check_mistake(&folder, &[model, "--onnx", &graph, "--inputs", "in.safetensors"], words);
        let out = ["--inputs", "in.safetensors", "--outputs", "out.safetensors"];
        folder.run(&[&["run", model], &out[..]].concat()).is_mistake(words);
    }
    assert_eq!(folder.listing(), ["in.safetensors"], "nothing is written");
}

#[test]
fn inputs_that_a_graph_does_not_take() {
    let folder = Folder::new();
    let graph = graph();
    let run = ["run", &graph, "--inputs", "in.safetensors", "--outputs", "out.safetensors"];
    let fits = || plain_inputs([1, 4], &[1, 2, 3, 4]);
    let ids = |elements: [i64; 4]| with(fits(), "input_ids", Value::new([1, 4], elements.to_vec()).unwrap());
    for (inputs, word) in [
        (ids([1, 2, VOCABULARY, 3]), "word_embeddings"),
        (ids([1, 2, -VOCABULARY - 1, 3]), "word_embeddings"),
        (ids([i64::MAX, 1, 2, 3]), "word_embeddings"),
        // The graph is any graph here, so it is its node that is named.
        (plain_inputs([1, POSITIONS + 1], &[1; POSITIONS + 1]), "embeddings/Add"),
        (with(fits(), "more", Value::scalar(1i64)), "'more'"),
        (without(fits(), "attention_mask"), "attention_mask"),
        (with(fits(), "attention_mask", Value::new([1, 4], vec![true; 4]).unwrap()), "attention_mask"),
        (with(fits(), "attention_mask", Value::new([1, 3], vec![1i64; 3]).unwrap()), "attention_mask"),
    ] {
        folder.write_values("in.safetensors", &inputs);
        folder.run(&run).is_mistake(&[word]);
    }
    // A graph of one size, given another.
    let fixed = in_fixture("baseline", "onnx/ts17-eager-static.onnx");
    folder.write_values("in.safetensors", &fits());
    folder
        .run(&["run", &fixed, "--inputs", "in.safetensors", "--outputs", "out.safetensors"])
        .is_mistake(&["[2, 8]", "[1, 4]"]);
    let model = fixture("baseline");
    check_mistake(
        &folder,
        &[model.to_str().unwrap(), "--onnx", &fixed, "--inputs", "in.safetensors"],
        &["[2, 8]", "[1, 4]"],
    );
}

#[test]
fn ids_that_the_default_model_does_not_have() {
    let folder = Folder::new();
    folder.write_values("in.safetensors", &plain_inputs([1, 2], &[1, DEFAULT_VOCABULARY]));
    check_mistake(
        &folder,
        &["--inputs", "in.safetensors"],
        &["input_ids[0, 1] is 2048", "vocabulary of 2048"],
    );
    folder.run(&["bench", "--inputs", "in.safetensors"]).is_mistake(&["input_ids[0, 1] is 2048"]);
}

#[test]
fn a_text_that_is_too_long() {
    let folder = Folder::new();
    let text = "the ".repeat(600);
    let limit = DEFAULT_POSITIONS.to_string();
    let words = ["602 tokens", limit.as_str(), "shorten"];
    check_mistake(&folder, &["check", "--text", &text], &words);
    for engine in ["reference", "candle"] {
        folder.run(&["embed", "--engine", engine, "--text", &text]).is_mistake(&words);
        folder
            .run(&["embed", "--engine", engine, "--text", "the file", "--text", &text, "--json", "-"])
            .is_mistake(&words);
    }
    // The longest that fits, with its two special tokens.
    folder.run(&["embed", "--text", &"the ".repeat(DEFAULT_POSITIONS - 2)]).exits(0);
    folder.run(&["bench", "--seq", "513"]).is_mistake(&["513", &limit]);
}

#[test]
fn an_inputs_file_that_is_none() {
    let folder = Folder::new();
    check_mistake(&folder, &["--inputs", "missing.safetensors"], &["missing.safetensors"]);
    check_mistake(&folder, &["--inputs", "."], &["cannot read ."]);
    for bytes in
        [&b""[..], b"input_ids: [101, 102]\n", b"PK\x03\x04", &[0xff; 40], br#"{"input_ids": [[101, 102]]}"#]
    {
        folder.write("in.safetensors", bytes);
        check_mistake(&folder, &["--inputs", "in.safetensors"], &["in.safetensors"]);
        folder
            .run(&["run", &graph(), "--inputs", "in.safetensors", "--outputs", "out.safetensors"])
            .is_mistake(&["in.safetensors"]);
    }
}

#[test]
fn a_run_that_cannot_be() {
    let folder = Folder::new();
    folder.write_values("in.safetensors", &plain_inputs([1, 2], &[1, 2]));
    let (model, graph) = (fixture("baseline"), graph());
    folder.copy_fixture("baseline", "plain");
    let model = model.to_str().unwrap();
    let run = |args: &[&str], outputs: &str, words: &[&str]| {
        let files = ["--inputs", "in.safetensors", "--outputs", outputs];
        folder.run(&[&["run"], args, &files].concat()).is_mistake(words);
    };
    run(&[&graph, "--engine", "reference"], "out", &["is a graph", "--engine candle"]);
    run(&[&graph, "--engine", "candle", "--dtype", "f64"], "out", &["candle", "f64", "reference", "oracle"]);
    run(&["plain", "--engine", "candle"], "out", &["no ONNX graph"]);
    run(&[model, "--engine", "candle"], "out", &["has 21 graphs", "--onnx", "and 13 more"]);
    run(&["missing.onnx"], "out", &["missing.onnx"]);
    run(&["nobody/nothing"], "out", &["nobody/nothing"]);
    run(&[model], "no/such/folder/out", &["cannot write no/such/folder/out"]);
    std::fs::create_dir(folder.at("taken")).unwrap();
    run(&[model], "taken", &["cannot write taken"]);
    // No half of a file is left behind either.
    assert_eq!(folder.listing(), ["in.safetensors", "plain", "taken"]);
}

#[test]
fn an_embedding_that_cannot_be() {
    let folder = Folder::new();
    folder.copy_fixture("baseline", "model");
    folder.write("empty.txt", "");
    folder.write("latin1.txt", b"caf\xe9\n");
    folder.run(&["embed", "model", "--text", "a"]).is_mistake(&["model", "tokenizer.json", "vocab.txt"]);
    check_mistake(&folder, &["model", "--onnx", &graph(), "--text", "a"], &["tokenizer.json"]);
    folder.run(&["embed", "--file", "missing.txt"]).is_mistake(&["missing.txt"]);
    folder.run(&["embed", "--file", "empty.txt"]).is_mistake(&["empty.txt", "no lines"]);
    folder.run(&["embed", "--file", "latin1.txt"]).is_mistake(&["latin1.txt", "UTF-8"]);
    folder
        .run(&["embed", "--text", "a", "--json", "no/such/folder/a.json"])
        .is_mistake(&["cannot write no/such"]);
    for (tokenizer, word) in
        [("", "tokenizer.json"), ("{}", "tokenizer.json"), ("<html>\n", "tokenizer.json")]
    {
        folder.write("model/tokenizer.json", tokenizer);
        folder.run(&["embed", "model", "--text", "a"]).is_mistake(&[word]);
    }
}

#[test]
fn a_report_that_cannot_be_written() {
    let run = Folder::new().run(&["--json", "no/such/folder/report.json"]);
    assert_eq!(run.code, 2, "{run}");
    assert!(run.stderr.starts_with("error: cannot write no/such/folder/report.json"), "{run}");
    assert_eq!(run.stderr.lines().count(), 1, "{run}");
}

#[test]
fn a_usage_that_is_wrong() {
    let folder = Folder::new();
    for args in [
        &["--frobnicate"][..],
        &["--atol", "nan"],
        &["--atol", "-1e-6"],
        &["--atol", "small"],
        &["--engine", "warp"],
        &["--inputs", "a", "--text", "b"],
        &["run", "model"],
        &["embed"],
        &["embed", "--text", "a", "--file", "b"],
        &["bench", "--runs", "3"],
        &["bench", "--threads", "0"],
        &["bench", "--batch", "0"],
        &["check", "a", "b", "c"],
    ] {
        let run = folder.run(args);
        assert_eq!(run.code, 2, "{run}");
        assert!(run.stdout.is_empty(), "{run}");
        assert!(run.stderr.starts_with("error: ") && run.stderr.contains("--help"), "{run}");
    }
}

/// A shell command in which `$PARITY` is the binary; gives what it wrote to stderr.
#[cfg(unix)]
fn shell(script: &str) -> String {
    let folder = Folder::new();
    let run = Run::of(folder.command("sh").args(["-c", script]).env("PARITY", env!("CARGO_BIN_EXE_parity")));
    run.stderr
}

/// Whoever reads the output may have had enough: no panic, no message; and the verdict is what it is.
#[cfg(unix)]
#[test]
fn output_that_is_closed_early() {
    for args in ["", "--json -", "embed --text a", "embed --text a --json -", "bench --engine reference"] {
        for reader in ["true", "head -n 1 > /dev/null"] {
            let stderr = shell(&format!("{{ \"$PARITY\" {args}; echo $? >&2; }} | {reader}"));
            assert_eq!(stderr, "0\n", "parity {args} | {reader}");
        }
    }
    for args in [
        "--atol 1e-9 --strict",
        "--atol 1e-9 --strict --json -",
        "--atol 1e-9 --strict --markdown /dev/stdout",
    ] {
        assert_eq!(shell(&format!("{{ \"$PARITY\" {args}; echo $? >&2; }} | true")), "1\n", "parity {args}");
    }
}

/// Output that is lost for another reason is an error: the report was asked for and is not there.
#[cfg(target_os = "linux")]
#[test]
fn output_to_a_full_disk() {
    for args in ["", "--json -", "embed --text a", "embed --text a --json -"] {
        let stderr = shell(&format!("\"$PARITY\" {args} > /dev/full; echo $? >&2"));
        assert!(stderr.starts_with("error: ") && stderr.ends_with("\n2\n"), "parity {args}: {stderr}");
        assert_eq!(stderr.lines().count(), 2, "parity {args}: {stderr}");
    }
}
