//! Folders as exporters leave them: graphs of other names, a graph without its weights, and files
//! beside the graph that are not the checkpoint's.

use std::fs;

use crate::common::{Folder, change_weight, fixture, in_fixture, node};
use onnx_graph::Model;
use serde_json::{Value as Json, json};

const HEAD: &str = "heads/sequence_classification";

/// The files of a model that are no weights.
const BESIDE: [&str; 5] =
    ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"];

/// A new folder with `model`, a classifier, and `export`, its graph with files of its own.
fn world() -> Folder {
    let folder = Folder::new();
    for file in BESIDE {
        let bytes = fs::read(fixture(HEAD).join(file)).unwrap();
        folder.write(&format!("model/{file}"), &bytes);
        folder.write(&format!("export/{file}"), &bytes);
    }
    folder.write("model/model.safetensors", fs::read(fixture(HEAD).join("model.safetensors")).unwrap());
    folder.write("export/model.onnx", right());
    folder
}

fn right() -> Vec<u8> {
    fs::read(in_fixture(HEAD, "onnx/optimum.onnx")).unwrap()
}

/// The graph with another weight.
fn wrong() -> Vec<u8> {
    let mut model = Model::from_bytes(right().into()).unwrap();
    change_weight(&mut model, "bert.embeddings.word_embeddings.weight", |weight, _| weight[70] += 0.5);
    model.to_bytes()
}

/// Changes a JSON file.
fn edit(folder: &Folder, file: &str, change: impl FnOnce(&mut Json)) {
    let mut json: Json = serde_json::from_slice(&fs::read(folder.at(file)).unwrap()).unwrap();
    change(&mut json);
    folder.write(file, json.to_string());
}

#[test]
fn a_graph_of_any_name_is_the_folders() {
    let folder = world();
    folder.write("model/onnx/model_quantized.onnx", wrong());
    // What is still being written is none.
    folder.write("model/onnx/.model.onnx", "");
    let (code, report) = folder.report(&["model"]);
    assert_eq!((code, &report["onnx"]), (1, &"model/onnx/model_quantized.onnx".into()), "{report:#}");
    assert!(report["notes"].to_string().contains("model_quantized.onnx is the only graph of model"));

    fs::remove_file(folder.at("model/onnx/model_quantized.onnx")).unwrap();
    folder.write("model/model_O4.onnx", right());
    let (code, report) = folder.report(&["model"]);
    assert_eq!((code, &report["onnx"]), (0, &"model/model_O4.onnx".into()), "{report:#}");

    // Of two, each is named with the command that judges it.
    folder.write("model/onnx/model_optimized.onnx", wrong());
    let commands = ["model/model_O4.onnx", "model/onnx/model_optimized.onnx"]
        .map(|graph| format!("parity check model --onnx {graph}"));
    let run = folder.run(&["check", "model"]);
    run.is_mistake(&["model has 2 graphs", &commands[0], &commands[1]]);
    for (command, code) in commands.iter().zip([0, 1]) {
        let args: Vec<&str> = command.split(' ').skip(1).collect();
        folder.run(&args).exits(code);
    }
    // A name within the model's folder will do.
    folder.run(&["model", "--onnx", "onnx/model_optimized.onnx"]).exits(1);
    folder.run(&["model", "--onnx", "onnx/model_O9.onnx"]).is_mistake(&["onnx/model_O9.onnx"]);

    // The usual name is preferred.
    folder.write("model/onnx/model.onnx", right());
    let (code, report) = folder.report(&["model"]);
    assert_eq!((code, &report["onnx"]), (0, &"model/onnx/model.onnx".into()));
}

/// The only difference that a check of the exported folder finds.
fn difference(folder: &Folder, fails: bool) -> Json {
    let (code, report) = folder.report(&["model", "export"]);
    let found = report["folder"].as_array().cloned().unwrap_or_default();
    assert_eq!((code, found.len()), (i32::from(fails), 1), "{report:#}");
    // Where the graph is named, its folder is the same.
    let (same, named) = folder.report(&["model", "--onnx", "export/model.onnx"]);
    assert_eq!((same, &named["folder"]), (code, &report["folder"]));
    assert_eq!(found[0]["fails"], fails, "{found:?}");
    found[0].clone()
}

#[test]
fn files_beside_an_exported_graph_are_the_checkpoints() {
    let folder = world();
    let (code, report) = folder.report(&["check", "model", "export"]);
    assert_eq!((code, &report["folder"]), (0, &Json::Null), "{report:#}");
    assert_eq!(report["onnx"], "export/model.onnx");

    type Change = fn(&mut Json);
    let changes: [(&str, Change, &str, [&str; 2]); 6] = [
        (
            "config.json",
            |json| json["id2label"] = json!({"0": "positive", "1": "neutral", "2": "negative"}),
            "labels",
            ["0 = negative", "0 = positive"],
        ),
        (
            "config.json",
            |json| json["problem_type"] = "multi_label_classification".into(),
            "problem_type",
            ["not set", "multi_label_classification"],
        ),
        (
            "tokenizer_config.json",
            |json| json["model_max_length"] = 16.into(),
            "the maximum length",
            ["40 tokens", "16 tokens"],
        ),
        (
            "tokenizer_config.json",
            |json| json["mask_token"] = "[UNK]".into(),
            "the mask token",
            ["[MASK]", "[UNK]"],
        ),
        (
            "tokenizer.json",
            |json| {
                // Two words that none of the texts has which tokenizers are tried on.
                let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
                let [a, b] = ["berlin", "london"].map(|word| vocabulary[word].clone());
                vocabulary.extend([("berlin".to_owned(), b), ("london".to_owned(), a)]);
            },
            "the token of id",
            ["berlin", "london"],
        ),
        ("tokenizer.json", |json| json["normalizer"] = Json::Null, "token ", ["", ""]),
    ];
    for (file, change, what, [checkpoint, export]) in changes {
        let folder = world();
        edit(&folder, &format!("export/{file}"), change);
        let found = difference(&folder, true);
        assert_eq!(found["file"], file, "{found}");
        for (key, words) in [("what", what), ("checkpoint", checkpoint), ("export", export)] {
            assert!(found[key].as_str().unwrap().contains(words), "{file}: {key} of {found}");
        }
        assert_ne!(found["checkpoint"], found["export"]);
    }
}

#[test]
fn a_changed_label_stands_in_every_form() {
    let folder = world();
    edit(&folder, "export/config.json", |json| {
        json["id2label"] = json!({"0": "positive", "1": "neutral", "2": "negative"});
    });
    let forms = ["--json", "r.json", "--markdown", "r.md", "--html", "r.html", "--junit", "r.xml"];
    let run = folder.run(&[&["check", "model", "export"], &forms[..]].concat()).exits(1);
    assert!(run.stdout.starts_with("FAIL"), "{run}");
    let rendered = folder.run(&["render", "r.json"]).exits(0);
    assert_eq!(rendered.stdout, run.stdout);
    let files =
        ["r.json", "r.md", "r.html", "r.xml"].map(|file| fs::read_to_string(folder.at(file)).unwrap());
    for form in files.iter().chain([&run.stdout]) {
        for words in ["labels", "0 = negative, 1 = neutral", "0 = positive, 1 = neutral"] {
            assert!(form.contains(words), "{words}: {form}");
        }
    }
    assert!(files[3].contains("<failure"), "{}", files[3]);
}

#[test]
fn what_an_export_leaves_out_is_a_note() {
    let folder = world();
    for file in &BESIDE[1..] {
        fs::remove_file(folder.at(&format!("export/{file}"))).unwrap();
    }
    folder.write("model/sentence_bert_config.json", r#"{"max_seq_length": 16}"#);
    let (code, report) = folder.report(&["model", "export"]);
    assert_eq!((code, &report["folder"]), (0, &Json::Null), "{report:#}");
    assert!(report["notes"].to_string().contains("export has no tokenizer.json"), "{report:#}");
    // A tokenizer, but not the length that texts are cut to.
    let folder = world();
    folder.write("model/sentence_bert_config.json", r#"{"max_seq_length": 16}"#);
    let (code, report) = folder.report(&["model", "export"]);
    assert_eq!((code, &report["folder"]), (0, &Json::Null), "{report:#}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("the maximum length is 40 tokens in export, and 16 tokens in model"), "{notes}");

    fs::remove_file(folder.at("export/model.onnx")).unwrap();
    folder.run(&["model", "export"]).is_mistake(&["export has no ONNX graph", "--onnx FILE"]);
    folder.run(&["model", "exprot"]).is_mistake(&["there is no folder 'exprot'"]);
}

#[test]
fn pooling_and_prompts_of_an_export_are_the_checkpoints() {
    let pooling = |mode: &str| format!(r#"{{"word_embedding_dimension": 16, "pooling_mode_{mode}": true}}"#);
    let modules = r#"[{"type": "sentence_transformers.models.Transformer", "path": ""},
                      {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]"#;
    let prompts = |query: &str| format!(r#"{{"prompts": {{"query": "{query}"}}}}"#);
    let world = || {
        let folder = world();
        for place in ["model", "export"] {
            folder.write(&format!("{place}/modules.json"), modules);
            folder.write(&format!("{place}/1_Pooling/config.json"), pooling("cls_token"));
            folder.write(&format!("{place}/config_sentence_transformers.json"), prompts("query: "));
        }
        folder
    };
    assert_eq!(world().report(&["model", "export"]).0, 0);
    for (file, text, what, export) in [
        ("1_Pooling/config.json", pooling("mean_tokens"), "pooling", "mean pooling"),
        ("config_sentence_transformers.json", prompts("q: "), "the prompt 'query'", "\"q: \""),
    ] {
        let folder = world();
        folder.write(&format!("export/{file}"), text);
        let found = difference(&folder, true);
        assert_eq!((&found["what"], &found["export"]), (&what.into(), &export.into()));
    }
}

#[test]
fn a_graph_without_weights_answers() {
    let folder = world();
    let answer = |model: &str, more: &[&str]| {
        let args = [&["predict", model, "--text", "the river bank", "--top-k", "3"], more, &["--json", "-"]];
        folder.run(&args.concat()).exits(0).json()
    };
    let labels = |json: &Json| -> Vec<(String, f64)> {
        let label = |one: &Json| (one["label"].as_str().unwrap().to_owned(), one["score"].as_f64().unwrap());
        json.as_array().unwrap().iter().map(label).collect()
    };
    let native = labels(&answer("model", &["--engine", "reference"]));
    let same = |found: Vec<(String, f64)>| {
        let near = |(a, b): (&(String, f64), &(String, f64))| a.0 == b.0 && (a.1 - b.1).abs() < SCORES;
        assert!(found.len() == 3 && found.iter().zip(&native).all(near), "{found:?} {native:?}");
    };
    same(labels(&answer("export", &[])));
    // The outputs tell the task where config.json does not; the name of the graph does not matter.
    edit(&folder, "export/config.json", |json| json["architectures"] = Json::Null);
    fs::rename(folder.at("export/model.onnx"), folder.at("export/model_O2.onnx")).unwrap();
    same(labels(&answer("export", &[])));
    same(labels(&answer("export", &["--onnx", "model_O2.onnx"])));

    folder.write("export/model_O1.onnx", right());
    folder
        .run(&["predict", "export", "--text", "a"])
        .is_mistake(&["export has 2 graphs", "--onnx export/model_O1.onnx"]);
}

/// Two engines' scores of one text, in f32: as pipelines promise.
const SCORES: f64 = 1e-5;

#[test]
fn a_vector_that_the_graph_gives_is_the_texts() {
    let folder = world();
    let mut model = Model::from_bytes(right().into()).unwrap();
    model.graph.nodes.push(node("Identity", &["logits"], "sentence_embedding"));
    model.graph.outputs[0].name = "sentence_embedding".into();
    folder.write("export/model.onnx", model.to_bytes());
    let embed = ["embed", "export", "--text", "the river bank", "--json", "-"];
    let vectors = folder.run(&embed).exits(0).json();
    // What goes into it is what a tokenizer makes of the text.
    assert_eq!(vectors["dimension"], 3);
    let vector: Vec<f64> =
        vectors["embeddings"][0].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let scores = folder.run(&["predict", "model", "--text", "the river bank", "--top-k", "3", "--json", "-"]);
    let total: f64 = vector.iter().map(|x| x.exp()).sum();
    for label in scores.json().as_array().unwrap() {
        let place = ["negative", "neutral", "positive"].iter().position(|name| label["label"] == *name);
        let score = vector[place.unwrap()].exp() / total;
        assert!((score - label["score"].as_f64().unwrap()).abs() < SCORES, "{label} {score}");
    }
    let run = folder.run(&["embed", "export", "--text", "a", "--normalize"]).exits(0);
    assert!(run.stdout.contains("as the model gives it, normalized"), "{run}");

    // Modules are followed on the states of tokens, which this graph does not give.
    folder.write(
        "export/modules.json",
        r#"[{"type": "sentence_transformers.models.Transformer"},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]"#,
    );
    folder.run(&embed).is_mistake(&["no output 'last_hidden_state'", "it has sentence_embedding"]);
}
