//! `parity predict` and `parity embed`: what transformers answers, in the files that were asked for.

use std::path::Path;

use crate::common::{Folder, house, in_fixture};
use bert_pipeline::pipeline::{Embeddings, FeatureExtraction, Options, Pipeline as _};
use candle_bert::BertConfig;
use checkpoint::ModelFiles;
use engine::Engine as _;
use onnx_session::{EngineKind, Session};
use serde_json::{Value as Json, json};

/// How far a score may be from transformers': the pipelines' own tolerance.
const SCORE_TOLERANCE: f64 = 1e-5;

struct Case {
    model: String,
    settings: Json,
    inputs: Json,
    expected: Json,
}

/// The answers of a pipeline in tests/fixtures/pipelines.
fn cases(file: &str) -> Vec<Case> {
    let path = house().join("tests/fixtures/pipelines").join(file);
    let cases: Vec<Json> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let case = |case: &Json| Case {
        model: house()
            .join("tests/fixtures/heads")
            .join(case["model"].as_str().unwrap())
            .display()
            .to_string(),
        settings: case["settings"].clone(),
        inputs: case["inputs"].clone(),
        expected: case["expected"].clone(),
    };
    cases.iter().map(case).collect()
}

/// What `parity predict … --json -` writes.
fn predict(model: &str, args: &[&str]) -> Json {
    let run = Folder::new().run(&[&["predict", model], args, &["--json", "-"]].concat());
    // What was cut is noted on stderr.
    assert!(run.code == 0 && !run.stderr.contains("error"), "{run}");
    run.json()
}

fn same(found: &Json, expected: &Json) {
    match (found, expected) {
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).for_each(|(a, b)| same(a, b))
        }
        (Json::Object(a), Json::Object(b)) if a.len() == b.len() => {
            a.iter().for_each(|(key, a)| same(a, &b[key]))
        }
        (Json::Number(a), Json::Number(b)) if b.is_f64() => {
            assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= SCORE_TOLERANCE, "{a} {b}");
        }
        _ => assert_eq!(found, expected),
    }
}

/// The first case with these settings, and how a command line asks for it.
#[test]
fn predictions_are_those_of_transformers() {
    let first =
        |file: &str, settings: Json| cases(file).into_iter().find(|case| case.settings == settings).unwrap();
    let text = |input: &Json| input.as_str().unwrap().to_owned();

    let case = first("text_classification.json", json!({}));
    same(&predict(&case.model, &["--text", &text(&case.inputs[1])]), &case.expected[1]);
    let case = first("text_classification.json", json!({ "top_k": 2 }));
    same(&predict(&case.model, &["--text", &text(&case.inputs[0]), "--top-k", "2"]), &case.expected[0]);
    let all: Vec<String> = case.inputs.as_array().unwrap().iter().map(text).collect();
    let mut args = vec!["--top-k", "2"];
    args.extend(all.iter().flat_map(|text| ["--text", text]));
    same(&predict(&case.model, &args), &case.expected);
    let pairs = cases("text_classification.json").into_iter().find(|case| case.inputs[0].is_array()).unwrap();
    let [a, b] = [0, 1].map(|i| text(&pairs.inputs[2][i]));
    same(&predict(&pairs.model, &["--text", &a, "--pair", &b]), &pairs.expected[2]);

    for aggregation in ["none", "simple", "first", "average", "max"] {
        let case = first("token_classification.json", json!({ "aggregation": aggregation }));
        for text_number in [2, 5] {
            let args = ["--text", &text(&case.inputs[text_number]), "--aggregation", aggregation];
            same(&predict(&case.model, &args), &case.expected[text_number]);
        }
    }
    let case = first("token_classification.json", json!({ "aggregation": "simple", "stride": 5 }));
    let args = ["--text", &text(&case.inputs[0]), "--aggregation", "simple", "--stride", "5"];
    same(&predict(&case.model, &args), &case.expected[0]);

    for (settings, more) in [(json!({}), &[][..]), (json!({ "top_k": 3 }), &["--top-k", "3"])] {
        let case = first("question_answering.json", settings);
        // The last context is one word, which has one answer.
        let cases = case.inputs.as_array().unwrap().iter().zip(case.expected.as_array().unwrap());
        for (pair, expected) in cases.take(6) {
            let [question, context] = [0, 1].map(|i| text(&pair[i]));
            same(
                &predict(&case.model, &[&["--text", &question, "--context", &context], more].concat()),
                expected,
            );
        }
    }

    let case = first("fill_mask.json", json!({}));
    same(&predict(&case.model, &["--text", &text(&case.inputs[3])]), &case.expected[3]);
    same(
        &predict(&case.model, &["--text", &text(&case.inputs[0]), "--engine", "reference"]),
        &case.expected[0],
    );

    let case = first("multiple_choice.json", json!({}));
    let choices: Vec<String> = case.inputs[1].as_array().unwrap().iter().map(text).collect();
    let question = text(&case.inputs[0]);
    let mut args = vec!["--text", &question];
    args.extend(choices.iter().flat_map(|choice| ["--choice", choice]));
    same(&predict(&case.model, &args), &case.expected);

    let case = first("text_ranking.json", json!({}));
    let documents: Vec<String> = case.inputs[1].as_array().unwrap().iter().map(text).collect();
    let query = text(&case.inputs[0]);
    let mut args = vec!["--task", "text-ranking", "--text", &query];
    args.extend(documents.iter().flat_map(|document| ["--pair", document]));
    same(&predict(&case.model, &args), &case.expected);

    let case = first("feature_extraction.json", json!({}));
    same(
        &predict(&case.model, &["--task", "feature-extraction", "--text", &text(&case.inputs[0])]),
        &case.expected[0],
    );
}

#[test]
fn a_table_is_shown_and_what_was_cut_is_said() {
    let folder = Folder::new();
    let model = house().join("tests/fixtures/heads/token_classification").display().to_string();
    let run = folder
        .run(&["predict", &model, "--text", "Maria lives in Berlin", "--json", "entities.json"])
        .exits(0);
    assert!(run.stdout.contains("maria") && run.stdout.contains("PER"), "{run}");
    assert_eq!(folder.listing(), ["entities.json"]);
    let run = folder.run(&["predict", &model, "--text", &"river ".repeat(60)]);
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stderr.contains("text number 1 is longer than the model takes"), "{run}");
    let run = folder.run(&["predict", &model, "--text", ""]).exits(0);
    assert!(run.stdout.contains("nothing found"), "{run}");
}

/// A file has one text a line, or an object with what the task needs; there is an answer for each.
#[test]
fn predictions_for_the_lines_of_a_file() {
    let folder = Folder::new();
    let ask = |model: &str, file: &str, more: &[&str]| {
        let model = in_fixture("heads", model);
        let run = folder.run(&[&["predict", &model, "--file", file], more, &["--json", "-"]].concat());
        run.exits(0).json()
    };
    folder.write("texts.txt", "Maria lives in Berlin\nThe river bank\n");
    folder.write(
        "pairs.jsonl",
        "{\"text\": \"a\", \"text_pair\": \"the bank\"}\n{\"text\": \"The river bank\"}\n",
    );
    folder.write(
        "one.jsonl",
        "{\"question\": \"Who lives in Berlin?\", \"context\": \"Maria lives in Berlin\"}\n",
    );
    folder.write("choices.jsonl", "{\"text\": \"Maria\", \"choices\": [\"lives\", \"works\"]}\n");
    let one = |model: &str, args: &[&str]| predict(&in_fixture("heads", model), args);
    let labels = ask("sequence_classification", "texts.txt", &[]);
    let single = |text: &str| one("sequence_classification", &["--text", text]);
    same(&labels, &Json::Array(vec![single("Maria lives in Berlin"), single("The river bank")]));
    let pair = one("sequence_classification", &["--text", "a", "--pair", "the bank"]);
    let pairs = ask("sequence_classification", "pairs.jsonl", &[]);
    same(&pairs, &Json::Array(vec![pair, single("The river bank")]));
    // Of one line, it is still a list.
    let args = ["--text", "Who lives in Berlin?", "--context", "Maria lives in Berlin"];
    same(&ask("question_answering", "one.jsonl", &[]), &Json::Array(vec![one("question_answering", &args)]));
    let args = ["--text", "Maria", "--choice", "lives", "--choice", "works"];
    same(&ask("multiple_choice", "choices.jsonl", &[]), &Json::Array(vec![one("multiple_choice", &args)]));

    folder.write("typo.jsonl", "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n");
    let mistake = |model: &str, file: &str, words: &[&str]| {
        folder.run(&["predict", &in_fixture("heads", model), "--file", file]).is_mistake(words);
    };
    mistake("token_classification", "typo.jsonl", &["typo.jsonl", "line 2", "txt"]);
    mistake("question_answering", "texts.txt", &["item 1 of texts.txt", "needs a --context"]);
    mistake("token_classification", "one.jsonl", &["item 1", "\"context\" means nothing"]);
}

/// Vectors in batches of any size are the same; a graph is named, and lengths are 1 where asked.
#[test]
fn vectors_as_they_are_asked_for() {
    let folder = Folder::new();
    let vectors = |more: &[&str]| -> Vec<Vec<f64>> {
        let texts = ["embed", "--text", "a cat", "--text", "the river bank is wide", "--text", "a"];
        let json = folder.run(&[&texts[..], more, &["--json", "-"]].concat()).exits(0).json();
        serde_json::from_value(json["embeddings"].clone()).unwrap()
    };
    let near = |a: &[Vec<f64>], b: &[Vec<f64>]| {
        a.iter().flatten().zip(b.iter().flatten()).all(|(a, b)| (a - b).abs() < SCORE_TOLERANCE)
    };
    let plain = vectors(&[]);
    assert!(near(&plain, &vectors(&["--batch-size", "1"])));
    let unit = vectors(&["--normalize"]);
    for (row, plain) in unit.iter().zip(&plain) {
        let length = plain.iter().map(|x| x * x).sum::<f64>().sqrt();
        let expected: Vec<f64> = plain.iter().map(|x| x / length).collect();
        assert!(near(std::slice::from_ref(row), &[expected]), "{row:?}");
    }
    let (_, graph) = bert_tiny::FILES.iter().find(|(name, _)| *name == "onnx/model.onnx").unwrap();
    folder.write("mine.onnx", graph);
    for engine in [&[][..], &["--engine", "candle"]] {
        assert!(near(&plain, &vectors(&[&["--onnx", "mine.onnx"], engine].concat())));
    }
    let args = ["embed", "--text", "a", "--onnx", "mine.onnx", "--engine", "reference"];
    folder.run(&args).is_mistake(&["runs the checkpoint and no graph", "leave out --onnx"]);
}

#[test]
fn predictions_that_cannot_be() {
    let folder = Folder::new();
    let model = |name: &str| house().join("tests/fixtures/heads").join(name).display().to_string();
    let mistake = |name: &str, args: &[&str], words: &[&str]| {
        folder.run(&[&["predict", model(name).as_str(), "--text", "a"], args].concat()).is_mistake(words);
    };
    mistake("masked_lm", &[], &["text number 1 has no '[MASK]'"]);
    mistake("masked_lm", &["--task", "ner"], &["no head for token-classification", "BertForMaskedLM"]);
    mistake("next_sentence_prediction", &[], &["no pipeline for next-sentence-prediction"]);
    mistake("question_answering", &[], &["needs a --context"]);
    mistake("multiple_choice", &[], &["needs a --choice"]);
    mistake("regression", &["--choice", "b"], &["--choice means nothing to text-classification"]);
    mistake("regression", &["--task", "text-ranking"], &["needs the documents"]);
    mistake("token_classification", &["--stride", "3"], &["aggregation strategy"]);
    mistake("token_classification", &["--engine", "candle"], &["has 2 graphs", "ts17-eager.onnx"]);
    mistake("masked_lm_untied", &["--engine", "candle"], &["no ONNX graph"]);
    assert_eq!(folder.run(&["predict", &model("regression")]).code, 2);
    assert_eq!(folder.run(&["predict", &model("regression"), "--text", "a", "--task", "poetry"]).code, 2);
}

#[test]
fn vectors_come_in_every_form() {
    let folder = Folder::new();
    // More than is read ahead at once.
    let texts: Vec<String> =
        (0..700).map(|i| format!("line {} {}", i % 90, "of text ".repeat(i % 5))).collect();
    folder.write("texts.txt", texts.join("\n"));
    let lines: Vec<String> =
        texts.iter().map(|text| json!({ "text": text, "other": 1 }).to_string()).collect();
    folder.write("texts.jsonl", lines.join("\n\n"));
    let files = ["--json", "a.json", "--jsonl", "a.jsonl", "--safetensors", "a.safetensors"];
    let run = folder.run(&[&["embed", "--file", "texts.txt"][..], &files].concat()).exits(0);
    assert!(run.stdout.contains("600 more"), "{run}");
    let json: Json = serde_json::from_slice(&std::fs::read(folder.at("a.json")).unwrap()).unwrap();
    let rows: Vec<Vec<f32>> = serde_json::from_value(json["embeddings"].clone()).unwrap();
    assert_eq!((rows.len(), &json["dimension"]), (700, &json!(128)));
    // The same text is the same vector, wherever it stands.
    assert_eq!(texts[3], texts[453]);
    assert_eq!(rows[3].len(), 128);

    let lines = std::fs::read_to_string(folder.at("a.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 700);
    for ((line, text), row) in lines.lines().zip(&texts).zip(&rows) {
        let line: Json = serde_json::from_str(line).unwrap();
        let vector: Vec<f32> = serde_json::from_value(line["embedding"].clone()).unwrap();
        assert_eq!((line["text"].as_str(), &vector), (Some(text.as_str()), row));
    }
    let values = parity::tensors::read(folder.at("a.safetensors")).unwrap();
    let value = values.get("embeddings").unwrap();
    assert_eq!(value.shape(), [700, 128]);
    assert_eq!(value.as_slice::<f32>().unwrap(), rows.concat());

    let again = folder.run(&["embed", "--file", "texts.jsonl", "--json", "-"]).exits(0).json();
    assert_eq!(again, json);

    // A line that is none leaves no file behind.
    folder.write("bad.jsonl", "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n");
    let before = folder.listing();
    folder.run(&["embed", "--file", "bad.jsonl", "--json", "b.json"]).is_mistake(&[
        "bad.jsonl",
        "line 2",
        "{\"text\": …}",
    ]);
    folder
        .run(&["embed", "--text", "a", "--text", &"the ".repeat(600), "--jsonl", "b.jsonl"])
        .is_mistake(&["text number 2", "602 tokens"]);
    folder
        .run(&["embed", "--text", "a", "--json", "-", "--jsonl", "-"])
        .is_mistake(&["only one of --json and --jsonl"]);
    folder.run(&["embed", "--text", "a", "--safetensors", "-"]).is_mistake(&["safetensors", "stdout"]);
    assert_eq!(folder.listing(), before);
}

/// Copies what is in a folder, and in the folders within.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let place = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &place);
        } else {
            std::fs::copy(entry.path(), place).unwrap();
        }
    }
}

/// The files of a head's model, with those that sentence-transformers keeps beside a model, if any.
fn sentence_model(folder: &Folder, beside: Option<&str>) -> ModelFiles {
    let (fixtures, model) = (house().join("tests/fixtures"), folder.at("model"));
    copy(&fixtures.join("heads/sequence_classification"), &model);
    if let Some(name) = beside {
        copy(&fixtures.join("pipelines/sentence").join(name), &model);
    }
    ModelFiles::from_folder(model).unwrap()
}

/// A graph of that model, on both engines.
fn sessions(files: &ModelFiles) -> [Session; 2] {
    let config = BertConfig::from_json(&files.config().unwrap()).unwrap();
    let graph =
        onnx_export::export(&files.checkpoint().unwrap(), &config, &onnx_export::Options::default()).unwrap();
    [EngineKind::Candle, EngineKind::Compiled].map(|kind| Session::new(&graph, kind).unwrap())
}

/// Rows of numbers, as transformers gives them.
fn same_rows(found: &[Vec<f32>], expected: &Json, what: &str) {
    let expected: Vec<Vec<f64>> = serde_json::from_value(expected.clone()).unwrap();
    let largest = expected.iter().flatten().fold(1f64, |largest, x| largest.max(x.abs()));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (f64::from(*found) - expected).abs() <= SCORE_TOLERANCE * largest,
                "{what}: {found} {expected}"
            );
        }
    }
}

fn texts(case: &Case) -> Vec<String> {
    serde_json::from_value(case.inputs.clone()).unwrap()
}

#[test]
fn features_from_a_graph_are_those_of_transformers() {
    let mut compared = 0;
    for case in cases("feature_extraction.json") {
        // The other cases are of models with a head of their own, whose graphs the golden tests of the pipelines run.
        if !case.model.ends_with("heads/sequence_classification") {
            continue;
        }
        let folder = Folder::new();
        let files = sentence_model(&folder, None);
        for session in sessions(&files) {
            let name = session.name().to_string();
            let pipeline =
                FeatureExtraction::with_engine(&files, Box::new(session), &Options::default()).unwrap();
            let found = pipeline.run(&texts(&case)).unwrap();
            for (found, expected) in found.iter().zip(case.expected.as_array().unwrap()) {
                same_rows(found, &expected[0], &name);
                compared += 1;
            }
        }
    }
    assert!(compared > 4, "{compared}");
}

#[test]
fn embeddings_from_a_graph_are_those_of_sentence_transformers() {
    for case in cases("embeddings.json") {
        let variant = case.model.rsplit('/').next().unwrap();
        let folder = Folder::new();
        let files = sentence_model(&folder, Some(variant));
        for session in sessions(&files) {
            let what = format!("{variant} {} on {}", case.settings, session.name());
            let mut pipeline =
                Embeddings::with_engine(&files, Box::new(session), &Options::default().with_batch_size(2))
                    .unwrap();
            if let Some(name) = case.settings["prompt_name"].as_str() {
                pipeline = pipeline.with_prompt_name(name).unwrap();
            }
            if let Some(prompt) = case.settings["prompt"].as_str() {
                pipeline = pipeline.with_prompt(prompt).unwrap();
            }
            same_rows(&pipeline.embed(&texts(&case)).unwrap(), &case.expected, &what);
        }
    }
}

#[test]
fn the_binary_follows_the_files_of_sentence_transformers() {
    let (fixtures, folder) = (house().join("tests/fixtures"), Folder::new());
    // The transformer in a folder of its own, as versions before 2.0 wrote it.
    copy(&fixtures.join("sentence/layer_norm"), &folder.at("old"));
    copy(&fixtures.join("heads/sequence_classification"), &folder.at("old/0_Transformer"));
    let modules = std::fs::read_to_string(folder.at("old/modules.json")).unwrap();
    let moved = modules.replacen("\"path\": \"\"", "\"path\": \"0_Transformer\"", 1);
    assert_ne!(moved, modules);
    folder.write("old/modules.json", moved);
    let out = folder.run(&["embed", "old", "--text", "Berlin", "--text", "Paris"]);
    assert_eq!(out.code, 0, "{}", out.stderr);
    for words in ["weightedmean pooling, layer norm, normalized", "−euclidean distance to the first"] {
        assert!(out.stdout.contains(words), "{}", out.stdout);
    }
    let out = folder.run(&["check", "old", "--onnx", "old/0_Transformer/onnx/optimum.onnx"]);
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);

    // A prompt by its name; the default one is used without.
    copy(&fixtures.join("sentence/without_prompt"), &folder.at("prompts"));
    copy(&fixtures.join("heads/sequence_classification"), &folder.at("prompts"));
    let vector = |name: &[&str]| {
        let out = folder.run(&[&["embed", "prompts", "--text", "Berlin", "--json", "-"], name].concat());
        assert_eq!(out.code, 0, "{}", out.stderr);
        serde_json::from_str::<Json>(&out.stdout).unwrap()["embeddings"].clone()
    };
    assert_eq!(vector(&[]), vector(&["--prompt-name", "city"]));
    assert_ne!(vector(&[]), vector(&["--prompt-name", "query"]));
    let out = folder.run(&["embed", "prompts", "--text", "a", "--prompt-name", "town"]);
    assert_eq!(out.code, 2);
    assert!(out.stderr.contains("there is no prompt 'town'"), "{}", out.stderr);

    // A cross-encoder ranks, though its architecture is that of an encoder.
    copy(&fixtures.join("sentence/reranker"), &folder.at("reranker"));
    copy(&fixtures.join("heads/sequence_classification"), &folder.at("reranker"));
    let ranks = ["predict", "reranker", "--text", "a", "--pair", "Berlin", "--pair", "Paris"];
    let out = folder.run(&ranks);
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(out.stdout.contains("corpus_id"), "{}", out.stdout);
}

#[test]
fn a_tokenizer_that_is_not_done_here_leaves_the_check_without_sentences() {
    let folder = Folder::new();
    copy(&house().join("tests/fixtures/heads/sequence_classification"), &folder.at("model"));
    let config = std::fs::read_to_string(folder.at("model/tokenizer_config.json")).unwrap();
    let mut config: Json = serde_json::from_str(&config).unwrap();
    config["tokenizer_class"] = "BertJapaneseTokenizer".into();
    folder.write("model/tokenizer_config.json", config.to_string());
    let out = folder.run(&["check", "model", "--onnx", "onnx/optimum.onnx"]);
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
    let all = out.stdout + &out.stderr;
    assert!(
        all.contains("no sentences are among the inputs") && all.contains("BertJapaneseTokenizer"),
        "{all}"
    );
    let check = ["check", "model", "--onnx", "onnx/optimum.onnx", "--text", "a"];
    for arguments in [&["embed", "model", "--text", "a"][..], &check] {
        let out = folder.run(arguments);
        assert_eq!(out.code, 2);
        assert!(out.stderr.contains("asks for the tokenizer 'BertJapaneseTokenizer'"), "{}", out.stderr);
    }
}
