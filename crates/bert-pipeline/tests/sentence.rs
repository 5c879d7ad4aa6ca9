//! A folder of sentence-transformers' is a program, and a model's tokenizer is what transformers
//! makes of several files. The answers, and the script that made them, are in
//! tests/fixtures/sentence.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::path::{Path, PathBuf};

use bert_pipeline::pipeline::{Embeddings, EngineChoice, Options, TextRanking};
use bert_pipeline::{PipelineError, Text, Tokenizer};
use candle_bert::{BertConfig, Task};
use checkpoint::ModelFiles;
use onnx_session::{EngineKind, Model};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// How far an element of a vector may be from sentence-transformers', relative to the largest: a
/// few f32 roundings, 6e-8 each, in each of two layers with gains of up to 1.8, and in a LayerNorm
/// after them with gains of up to 2.5.
const RELATIVE_TOLERANCE: f64 = 5e-6;

/// How far a cross-encoder's score may be from sentence-transformers' (issue: within 1e-5). Both
/// round to f32 in every layer, in another order.
const SCORE_TOLERANCE: f64 = 1e-5;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn cases<T: for<'a> Deserialize<'a>>(file: &str) -> Vec<T> {
    let bytes = fs::read(fixtures().join("sentence").join(file)).unwrap();
    let cases: Vec<T> = serde_json::from_slice(&bytes).unwrap();
    assert!(cases.len() > 10);
    cases
}

/// Copies a folder's files, and those of its folders.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A model of ../heads with the files of a variant, and its transformer in the folder `layout`.
fn model(base: &str, variant: &str, layout: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixtures().join("heads").join(base), &folder.path().join(layout));
    if !variant.is_empty() {
        copy(&fixtures().join("sentence").join(variant), folder.path());
    }
    if !layout.is_empty() {
        let own = "sentence_bert_config.json";
        fs::rename(folder.path().join(own), folder.path().join(layout).join(own)).unwrap();
        change(folder.path(), "modules.json", |modules| {
            modules[0]["path"] = layout.into();
            // sentence-transformers before 0.2.6 had a class for BERT.
            let class = if layout.ends_with("BERT") { "BERT" } else { "Transformer" };
            modules[0]["type"] = format!("sentence_transformers.models.{class}").into();
        });
    }
    folder
}

fn change(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let mut json = fs::read(&path).map_or(json!({}), |bytes| serde_json::from_slice(&bytes).unwrap());
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

fn files(folder: &TempDir) -> ModelFiles {
    ModelFiles::from_folder(folder.path()).unwrap()
}

/// The checkpoint, and a graph of it.
fn ways(folder: &TempDir, task: Task) -> [(&'static str, Options); 2] {
    let model = files(folder);
    let config = BertConfig::from_json(&model.config().unwrap()).unwrap();
    let how = onnx_export::Options { task, ..Default::default() };
    let graph = folder.path().join("exported.onnx");
    onnx_export::export(&model.checkpoint().unwrap(), &config, &how).unwrap().save(&graph).unwrap();
    let options = Options::default().with_batch_size(2);
    let native = options.clone().with_engine(EngineChoice::Native);
    let session = EngineChoice::Session(EngineKind::Compiled);
    [("native", native), ("compiled", options.with_engine(session).with_onnx(graph))]
}

fn near(found: f32, expected: f64, tolerance: f64, place: &str) {
    assert!((f64::from(found) - expected).abs() <= tolerance, "{place}: {found} {expected}");
}

#[derive(Deserialize)]
struct Embedded {
    model: String,
    layout: String,
    settings: Value,
    inputs: Vec<String>,
    expected: Vec<Vec<f64>>,
    similarity: Vec<Vec<f64>>,
}

#[test]
fn a_folder_is_run_as_the_program_that_it_is() {
    let mut runs = 0;
    for case in cases::<Embedded>("embeddings.json") {
        let folder = model("sequence_classification", &case.model, &case.layout);
        for (way, options) in ways(&folder, Task::FeatureExtraction) {
            let mut pipe = Embeddings::from_files(&files(&folder), &options).unwrap();
            if let Some(name) = case.settings["prompt_name"].as_str() {
                pipe = pipe.with_prompt_name(name).unwrap();
            }
            if let Some(prompt) = case.settings["prompt"].as_str() {
                pipe = pipe.with_prompt(prompt).unwrap();
            }
            if let Some(length) = case.settings["truncate_dim"].as_u64() {
                pipe = pipe.with_truncate_dim(Some(length as usize));
            }
            let place = format!("{} {} {}, {}, {way}", case.model, case.layout, case.settings, pipe.recipe());
            let found = pipe.embed(&case.inputs).unwrap();
            assert_eq!(found.len(), case.expected.len());
            let largest = case.expected.iter().flatten().fold(1f64, |max, x| max.max(x.abs()));
            for (row, (found, expected)) in found.iter().zip(&case.expected).enumerate() {
                assert_eq!(found.len(), expected.len(), "{place}");
                for (&found, &expected) in found.iter().zip(expected) {
                    near(found, expected, RELATIVE_TOLERANCE * largest, &format!("{place} [{row}]"));
                }
            }
            for (a, row) in found.iter().zip(&case.similarity) {
                for (b, &expected) in found.iter().zip(row) {
                    let found = pipe.similarity().between(a, b).unwrap();
                    // A sum over the numbers of two vectors.
                    let tolerance = RELATIVE_TOLERANCE * largest * a.len() as f64 * expected.abs().max(1.);
                    near(found, expected, tolerance, &place);
                }
            }
            runs += 1;
        }
    }
    assert!(runs > 30, "{runs}");
}

#[derive(Deserialize)]
struct Ranking {
    model: String,
    base: String,
    changes: Map<String, Value>,
    inputs: (String, Vec<String>),
    expected: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    corpus_id: usize,
    score: f64,
}

#[test]
fn cross_encoders_are_what_their_files_say() {
    for case in cases::<Ranking>("rankings.json") {
        let folder = model(&case.base, &case.model, "");
        for (file, changes) in &case.changes {
            change(folder.path(), file, |json| match changes.as_object() {
                Some(changes) => json.as_object_mut().unwrap().extend(changes.clone()),
                None => *json = changes.clone(),
            });
        }
        assert_eq!(
            TextRanking::is_meant_by(&files(&folder)).unwrap(),
            !case.model.is_empty() || case.changes.contains_key("modules.json")
        );
        let task = match case.model.as_str() {
            "" => Task::SequenceClassification,
            _ => Task::FeatureExtraction,
        };
        for (way, options) in ways(&folder, task) {
            let place = format!("{} {:?}, {way}", case.model, case.changes);
            let pipe = TextRanking::from_files(&files(&folder), &options).unwrap();
            let found = pipe.rank(&case.inputs.0, &case.inputs.1).unwrap();
            assert_eq!(found.len(), case.expected.len());
            for (found, expected) in found.iter().zip(&case.expected) {
                assert_eq!(found.corpus_id, expected.corpus_id, "{place}");
                near(found.score, expected.score, SCORE_TOLERANCE, &place);
            }
        }
    }
}

#[test]
fn a_cross_encoder_has_embeddings_as_a_model_without_modules_has() {
    let options = Options::default().with_engine(EngineChoice::Native);
    let vectors = |folder: &TempDir| {
        let pipe = Embeddings::from_files(&files(folder), &options).unwrap();
        assert_eq!(pipe.recipe(), "mean pooling");
        pipe.embed(&["Maria lives in Berlin", ""]).unwrap()
    };
    let reranker = model("sequence_classification", "reranker", "");
    change(reranker.path(), "sentence_bert_config.json", |json| {
        json["transformer_task"] = "sequence-classification".into();
        json["modality_config"] = json!({"text": {"method": "forward", "method_output_name": "logits"}});
        json["module_output_name"] = "scores".into();
    });
    assert_eq!(vectors(&reranker), vectors(&model("sequence_classification", "", "")));
}

#[test]
fn what_a_graph_calls_token_embeddings_is_only_taken_where_it_can_mean_one_thing() {
    for (variant, is_taken) in [("pooling_order", true), ("token_dense", false)] {
        let folder = model("sequence_classification", variant, "");
        let [_, (_, options)] = ways(&folder, Task::FeatureExtraction);
        let path = options.onnx.clone().unwrap();
        let mut graph = Model::open(&path).unwrap();
        // As sentence-transformers' exports have it: after all modules, a dense layer on tokens
        // among them.
        let renamed = |name: &mut String| {
            if name == "last_hidden_state" {
                *name = "token_embeddings".into();
            }
        };
        graph.graph.outputs.iter_mut().for_each(|output| renamed(&mut output.name));
        for node in &mut graph.graph.nodes {
            node.outputs.iter_mut().chain(&mut node.inputs).for_each(renamed);
        }
        graph.save(&path).unwrap();
        let made = Embeddings::from_files(&files(&folder), &options);
        assert_eq!(made.is_ok(), is_taken, "{variant}");
        if let Err(error) = made {
            assert!(matches!(error, PipelineError::NoOutput { output: "last_hidden_state", .. }), "{error}");
        }
    }
}

#[derive(Deserialize)]
struct Resolved {
    name: String,
    config: Option<Map<String, Value>>,
    normalizer: Value,
    model: Map<String, Value>,
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
}

#[test]
fn tokenizers_are_resolved_as_transformers_does() {
    for case in cases::<Resolved>("tokenizers.json") {
        let folder = model("sequence_classification", "", "");
        match &case.config {
            None => fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap(),
            // null takes a setting away: both count as not set.
            Some(config) => change(folder.path(), "tokenizer_config.json", |json| {
                json.as_object_mut().unwrap().extend(config.clone());
            }),
        }
        change(folder.path(), "tokenizer.json", |json| json["normalizer"] = case.normalizer.clone());
        change(folder.path(), "config.json", |json| {
            json.as_object_mut().unwrap().extend(case.model.clone());
        });
        let tokenizer = Tokenizer::from_files(&files(&folder), None).unwrap();
        for (text, ids) in case.texts.iter().zip(&case.ids) {
            let found = tokenizer.encode(&[Text::from(text)]).unwrap().input_ids;
            let found: Vec<u32> =
                found.flatten_all().unwrap().to_dtype(candle_core::DType::U32).unwrap().to_vec1().unwrap();
            assert_eq!(&found, ids, "{}: {text:?}", case.name);
        }
    }
}

#[test]
fn what_is_not_done_is_refused_by_name() {
    let refused = |variant: &str, file: &str, edit: fn(&mut Value)| {
        let folder = model("sequence_classification", variant, "");
        change(folder.path(), file, edit);
        let options = Options::default().with_engine(EngineChoice::Native);
        match variant {
            "reranker" => TextRanking::from_files(&files(&folder), &options).map(|_| ()),
            _ => Embeddings::from_files(&files(&folder), &options).map(|_| ()),
        }
        .unwrap_err()
        .to_string()
    };
    let modules = "modules.json";
    for (variant, file, edit, words) in [
        (
            "layer_norm",
            modules,
            (|json| json[2]["type"] = "sentence_transformers.models.WordWeights".into()) as fn(&mut Value),
            "a module of type 'sentence_transformers.models.WordWeights'",
        ),
        ("layer_norm", modules, |json| json[0]["type"] = "x.StaticEmbedding".into(), "'x.StaticEmbedding'"),
        ("layer_norm", modules, |json| *json = json!([]), "a model without modules"),
        // The layer norm before the pooling.
        (
            "layer_norm",
            modules,
            |json| json.as_array_mut().unwrap().swap(1, 2),
            "nothing gives 'sentence_embedding'",
        ),
        (
            "layer_norm",
            modules,
            |json| json.as_array_mut().unwrap().truncate(1),
            "nothing gives 'sentence_embedding'",
        ),
        ("reranker", modules, |json| json.as_array_mut().unwrap().truncate(4), "nothing gives 'scores'"),
        (
            "named",
            "3_Dense/config.json",
            |json| json["module_input_name"] = "else".into(),
            "nothing gives 'else'",
        ),
        (
            "named",
            "2_Dense/config.json",
            |json| json["activation_function"] = "my.code.Swish".into(),
            "the activation 'my.code.Swish'",
        ),
        ("layer_norm", "2_LayerNorm/config.json", |json| json["dimension"] = 15.into(), "must be [15]"),
        (
            "layer_norm",
            "config_sentence_transformers.json",
            |json| json["similarity_fn_name"] = "hamming".into(),
            "the similarity 'hamming'",
        ),
        (
            "reranker",
            "config_sentence_transformers.json",
            |json| json["activation_fn"] = "torch.nn.modules.activation.Hardtanh".into(),
            "Hardtanh",
        ),
        (
            "pooler",
            "sentence_bert_config.json",
            |json| json["modality_config"]["text"]["method_output_name"] = "hidden_states".into(),
            "the output 'hidden_states'",
        ),
        (
            "layer_norm",
            "sentence_bert_config.json",
            |json| json["tokenizer_args"] = json!({"do_lower_case": false}),
            "'do_lower_case' in 'tokenizer_args'",
        ),
    ] {
        let message = refused(variant, file, edit);
        assert!(message.contains(words), "{message}");
    }
    let folder = model("sequence_classification", "layer_norm", "");
    change(folder.path(), "tokenizer_config.json", |json| {
        json["tokenizer_class"] = "BertJapaneseTokenizer".into()
    });
    let error = Embeddings::from_files(&files(&folder), &Options::default()).err().unwrap();
    assert!(matches!(error, PipelineError::TokenizerClass { .. }), "{error}");
    let error = Embeddings::from_files(&files(&model("regression", "layer_norm", "")), &Options::default());
    assert!(matches!(error.unwrap().with_prompt_name("none"), Err(PipelineError::NoPrompt { .. })));
}
