//! Every pipeline gives what transformers' pipeline of that name gives, and sentence-transformers: from the checkpoint, and from every graph
//! that lies beside it. The answers, and the script that made them, are in tests/fixtures/pipelines.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::path::{Path, PathBuf};

use bert_pipeline::pipeline::{
    Aggregation, Embeddings, EngineChoice, FeatureExtraction, FillMask, MultipleChoice, Options, Output,
    Pipeline, QuestionAnswering, ScoreFunction, TextClassification, TextRanking, TokenClassification,
};
use bert_pipeline::{PipelineError, Text};
use checkpoint::ModelFiles;
use onnx_session::EngineKind;
use serde::Deserialize;
use serde_json::Value;

/// How far a score may be from transformers' (issue: within 1e-5). Both round to f32 in every layer, in another order.
const SCORE_TOLERANCE: f64 = 1e-5;

/// How far an element of a vector may be from sentence-transformers', where the vector has length 1 (issue: within 1e-6).
const UNIT_TOLERANCE: f64 = 1e-6;

/// The same for vectors and hidden states that are not normalised, relative to the largest value: a few f32 roundings, 6e-8 each, in each
/// of two layers with gains of up to 1.8.
const RELATIVE_TOLERANCE: f64 = 2e-6;

#[derive(Deserialize)]
struct Case {
    model: String,
    settings: Value,
    inputs: Value,
    expected: Value,
}

impl Case {
    fn texts(&self) -> Vec<Text<'_>> {
        self.inputs.as_array().unwrap().iter().map(as_text).collect()
    }

    fn size(&self, setting: &str) -> Option<usize> {
        self.settings[setting].as_u64().map(|size| size as usize)
    }

    fn text(&self, setting: &str) -> Option<&str> {
        self.settings[setting].as_str()
    }

    fn flag(&self, setting: &str) -> Option<bool> {
        self.settings[setting].as_bool()
    }

    fn list(&self, setting: &str) -> Option<Vec<&str>> {
        Some(self.settings[setting].as_array()?.iter().map(|item| item.as_str().unwrap()).collect())
    }

    /// The options with the settings that belong there.
    fn options(&self, options: &Options) -> Options {
        match self.flag("truncation") {
            Some(truncation) => options.clone().with_truncation(truncation),
            None => options.clone(),
        }
    }
}

fn as_text(input: &Value) -> Text<'_> {
    match input {
        Value::String(text) => Text::from(text.as_str()),
        pair => Text::from((pair[0].as_str().unwrap(), pair[1].as_str().unwrap())),
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn head(model: &str) -> ModelFiles {
    ModelFiles::from_folder(fixtures().join("heads").join(model)).unwrap()
}

fn cases(file: &str) -> Vec<Case> {
    let cases: Vec<Case> =
        serde_json::from_slice(&std::fs::read(fixtures().join("pipelines").join(file)).unwrap()).unwrap();
    assert!(!cases.is_empty());
    cases
}

/// The checkpoint, and each graph of a model. Small batches, so that there are several.
fn ways(model: &str) -> Vec<(String, Options)> {
    let options = Options::default().with_batch_size(3);
    let mut ways = vec![("native".to_owned(), options.clone().with_engine(EngineChoice::Native))];
    let folder = fixtures().join("heads").join(model).join("onnx");
    let graphs = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let kinds = [Some(EngineKind::Compiled), cfg!(feature = "candle-onnx").then_some(EngineKind::Candle)];
    for graph in graphs.filter(|path| path.extension().is_some_and(|extension| extension == "onnx")) {
        for kind in kinds.into_iter().flatten() {
            let engine = EngineChoice::Session(kind);
            let way = format!("{} on {kind:?}", graph.display());
            ways.push((way, options.clone().with_engine(engine).with_onnx(&graph)));
        }
    }
    ways
}

/// Runs a check on every case by every way, and sees to it that graphs were among them.
fn everywhere(file: &str, least_graphs: usize, check: impl Fn(&Case, &Options) -> Value) {
    let mut graphs = std::collections::BTreeSet::new();
    for case in cases(file) {
        for (way, options) in ways(&case.model) {
            let place = format!("{file}, {}, {way}, {}", case.model, case.settings);
            let found = check(&case, &case.options(&options));
            same(&found, &without_impossible_spans(file, &case), &place);
            if options.onnx.is_some() {
                graphs.insert(way);
            }
        }
    }
    assert!(graphs.len() >= least_graphs, "{graphs:?}");
}

/// Where a context has fewer spans than are asked for, transformers fills the list with spans of score 0, among them such as end before they
/// begin, in the order in which numpy's partition leaves them. They are no answers, and not given here.
fn without_impossible_spans(file: &str, case: &Case) -> Value {
    let mut expected = case.expected.clone();
    if file == "question_answering.json" {
        for answers in expected.as_array_mut().unwrap() {
            if let Value::Array(list) = answers {
                list.retain(|answer| answer["score"].as_f64() != Some(0.));
                if let [one] = list.as_slice() {
                    *answers = one.clone();
                }
            }
        }
    }
    expected
}

/// Scores within the tolerance, all else equal.
fn same(found: &Value, expected: &Value, place: &str) {
    match (found, expected) {
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{place}: {found} {expected}");
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                same(a, b, &format!("{place}[{i}]"));
            }
        }
        (Value::Object(a), Value::Object(b)) => {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{place}");
            for (key, a) in a {
                same(a, &b[key], &format!("{place}.{key} of {expected}"));
            }
        }
        (Value::Number(a), Value::Number(b)) if b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= SCORE_TOLERANCE, "{place}: {a} {b}");
        }
        _ => assert_eq!(found, expected, "{place}"),
    }
}

fn json<T: serde::Serialize>(outputs: Vec<Output<T>>) -> Value {
    serde_json::to_value(outputs).unwrap()
}

#[test]
fn text_classification() {
    everywhere("text_classification.json", 4, |case, options| {
        let mut pipe = TextClassification::from_files(&head(&case.model), options).unwrap();
        if let Some(top_k) = case.size("top_k") {
            pipe = pipe.with_top_k(Some(top_k));
        }
        pipe = match case.text("function") {
            Some("softmax") => pipe.with_function(ScoreFunction::Softmax),
            Some("sigmoid") => pipe.with_function(ScoreFunction::Sigmoid),
            Some("none") => pipe.with_function(ScoreFunction::None),
            _ => pipe,
        };
        let outputs = pipe.run(&case.texts()).unwrap();
        assert!(outputs.iter().all(|output| output.truncated == case.flag("truncation").is_some()));
        json(outputs)
    });
}

#[test]
fn token_classification() {
    everywhere("token_classification.json", 2, |case, options| {
        let aggregation: Aggregation = case.text("aggregation").unwrap().parse().unwrap();
        let mut pipe = TokenClassification::from_files(&head(&case.model), options)
            .unwrap()
            .with_aggregation(aggregation)
            .unwrap();
        if let Some(stride) = case.size("stride") {
            pipe = pipe.with_stride(stride).unwrap();
        }
        if let Some(labels) = case.list("ignore_labels") {
            pipe = pipe.with_ignored_labels(&labels);
        }
        let outputs = pipe.run(&case.texts()).unwrap();
        let long = case.texts().iter().position(|text| text.first.len() > 500);
        let truncated = outputs.iter().position(|output| output.truncated);
        assert_eq!(truncated, long.filter(|_| case.size("stride").is_none()));
        json(outputs)
    });
}

#[test]
fn question_answering() {
    everywhere("question_answering.json", 2, |case, options| {
        let mut pipe = QuestionAnswering::from_files(&head(&case.model), options).unwrap();
        if let Some(top_k) = case.size("top_k") {
            pipe = pipe.with_top_k(top_k).unwrap();
        }
        if let Some(length) = case.size("max_answer_len") {
            pipe = pipe.with_max_answer_len(length).unwrap();
        }
        if let Some(length) = case.size("max_seq_len") {
            pipe = pipe.with_rows(length, case.size("doc_stride")).unwrap();
        }
        pipe = pipe
            .with_impossible_answers(case.flag("handle_impossible_answer").unwrap_or(false))
            .with_whole_words(case.flag("align_to_words").unwrap_or(true));
        json(pipe.run(&case.texts()).unwrap())
    });
}

#[test]
fn fill_mask() {
    everywhere("fill_mask.json", 3, |case, options| {
        let mut pipe = FillMask::from_files(&head(&case.model), options).unwrap();
        if let Some(top_k) = case.size("top_k") {
            pipe = pipe.with_top_k(top_k).unwrap();
        }
        if let Some(targets) = case.list("targets") {
            pipe = pipe.with_targets(&targets).unwrap();
        }
        json(pipe.run(&case.texts()).unwrap())
    });
}

#[test]
fn multiple_choice() {
    everywhere("multiple_choice.json", 2, |case, options| {
        let pipe = MultipleChoice::from_files(&head(&case.model), options).unwrap();
        let choices: Vec<&str> =
            case.inputs[1].as_array().unwrap().iter().map(|choice| choice.as_str().unwrap()).collect();
        serde_json::to_value(pipe.choose(case.inputs[0].as_str().unwrap(), &choices).unwrap()).unwrap()
    });
}

#[test]
fn text_ranking() {
    everywhere("text_ranking.json", 1, |case, options| {
        let files = match case.text("activation") {
            None => head(&case.model),
            Some(activation) => {
                let mut config: Value = serde_json::from_slice(&head(&case.model).config().unwrap()).unwrap();
                config["sentence_transformers"] =
                    serde_json::json!({ "activation_fn": format!("torch.nn.modules.linear.{activation}") });
                with(&head(&case.model), &[("config.json", config.to_string().into())])
            }
        };
        let pipe = TextRanking::from_files(&files, options).unwrap();
        let documents: Vec<&str> =
            case.inputs[1].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        let ranking = pipe.rank(case.inputs[0].as_str().unwrap(), &documents).unwrap();
        assert!(ranking.iter().any(|ranked| ranked.truncated));
        serde_json::to_value(ranking).unwrap()
    });
}

/// A model's files with others in place of some, in memory.
fn with(files: &ModelFiles, others: &[(&'static str, bytes::Bytes)]) -> ModelFiles {
    const FILES: [&str; 5] =
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"];
    let own = FILES.into_iter().filter(|name| !others.iter().any(|(other, _)| other == name));
    let own: Vec<_> = own.filter_map(|name| Some((name, files.read(name).unwrap()?))).collect();
    ModelFiles::from_memory("changed", own.into_iter().chain(others.iter().cloned()))
}

/// Vectors within a tolerance that is relative to the largest element.
fn same_vectors(found: &[Vec<f32>], expected: &Value, tolerance: f64, place: &str) {
    let expected: Vec<Vec<f64>> = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(found.len(), expected.len(), "{place}");
    let largest = expected.iter().flatten().fold(0f64, |max, x| max.max(x.abs()));
    for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{place}");
        for (i, (&a, &b)) in found.iter().zip(expected).enumerate() {
            let distance = (f64::from(a) - b).abs();
            assert!(distance <= tolerance * largest.max(1.), "{place}[{row}][{i}]: {a} {b}");
        }
    }
}

#[test]
fn feature_extraction() {
    for case in cases("feature_extraction.json") {
        let pipe = FeatureExtraction::from_files(&head(&case.model), &Options::default()).unwrap();
        let found = pipe.run(&case.texts()).unwrap();
        assert_eq!(found.len(), case.expected.as_array().unwrap().len());
        for (found, expected) in found.iter().zip(case.expected.as_array().unwrap()) {
            // transformers has the batch around it, of size 1.
            same_vectors(found, &expected[0], RELATIVE_TOLERANCE, &case.model);
        }
    }
}

/// A model with the files that sentence-transformers keeps beside it.
fn sentence_model(variant: &str) -> ModelFiles {
    let folder = fixtures().join("pipelines/sentence").join(variant);
    let base = head("sequence_classification");
    const FILES: [&str; 11] = [
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "2_Dense/pytorch_model.bin",
        "3_Dense/config.json",
        "3_Dense/model.safetensors",
        "3_Dense/pytorch_model.bin",
        "4_Dense/config.json",
    ];
    let mut files: Vec<_> = FILES
        .into_iter()
        .chain(["4_Dense/pytorch_model.bin"])
        .filter_map(|name| Some((name, std::fs::read(folder.join(name)).ok()?.into())))
        .collect();
    files.sort_by_key(|(name, _)| *name);
    with(&base, &files)
}

#[test]
fn embeddings() {
    for case in cases("embeddings.json") {
        let options = Options::default().with_batch_size(2);
        let mut pipe = Embeddings::from_files(&sentence_model(&case.model), &options).unwrap();
        if let Some(name) = case.text("prompt_name") {
            pipe = pipe.with_prompt_name(name).unwrap();
        }
        if let Some(prompt) = case.text("prompt") {
            pipe = pipe.with_prompt(prompt).unwrap();
        }
        let place = format!("{} {}: {}", case.model, case.settings, pipe.recipe());
        same_vectors(&pipe.embed(&case.texts()).unwrap(), &case.expected, RELATIVE_TOLERANCE, &place);
        let truncated: Vec<bool> =
            pipe.run(&case.texts()).unwrap().iter().map(|output| output.truncated).collect();
        // At twelve tokens the third text is cut, too.
        assert_eq!(truncated, [false, false, case.model == "mean", false, false, true], "{place}");
    }
}

#[test]
fn minilm() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/hf");
    let homes = [std::env::var_os("HF_HOME").map(PathBuf::from), Some(here)];
    let cache = "hub/models--sentence-transformers--all-MiniLM-L6-v2";
    let Some(home) = homes.into_iter().flatten().find(|home| home.join(cache).is_dir()) else {
        eprintln!("skipped: neither HF_HOME nor shared/hf beside the checkout has all-MiniLM-L6-v2");
        return;
    };
    let cache = checkpoint::HubCache::at(home.join("hub"));
    for case in cases("minilm.json") {
        let files = ModelFiles::open_in(&case.model, &cache).unwrap();
        for engine in [EngineChoice::Native, EngineChoice::Auto] {
            let pipe = Embeddings::from_files(&files, &Options::default().with_engine(engine)).unwrap();
            assert_eq!(pipe.engine() == "reference", engine == EngineChoice::Native, "{:?}", pipe.note());
            same_vectors(&pipe.embed(&case.texts()).unwrap(), &case.expected, UNIT_TOLERANCE, pipe.engine());
        }
    }
}

#[test]
fn fields_come_in_transformers_order() {
    let files = |model| head(model);
    let options = Options::default().with_engine(EngineChoice::Native);
    let keys = |json: String| {
        let words: Vec<String> = json.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        let mut keys: Vec<String> = Vec::new();
        for word in words {
            if json.contains(&format!("\"{word}\":")) && !keys.contains(&word) {
                keys.push(word);
            }
        }
        keys
    };
    let string = |value: &dyn erased::Json| keys(value.json());
    let ner = TokenClassification::from_files(&files("token_classification"), &options).unwrap();
    let text = "Maria lives in Berlin";
    assert_eq!(
        string(&ner.run_one(text).unwrap().prediction),
        ["entity", "score", "index", "word", "start", "end"]
    );
    let ner = ner.with_aggregation(Aggregation::Max).unwrap();
    assert_eq!(
        string(&ner.run_one(text).unwrap().prediction),
        ["entity_group", "score", "word", "start", "end"]
    );
    let qa = QuestionAnswering::from_files(&files("question_answering"), &options).unwrap();
    assert_eq!(string(&qa.answer("who?", text).unwrap()), ["score", "start", "end", "answer"]);
    let fill = FillMask::from_files(&files("masked_lm"), &options).unwrap();
    assert_eq!(
        string(&fill.run_one("[MASK] lives").unwrap().prediction),
        ["score", "token", "token_str", "sequence"]
    );
    let labels = TextClassification::from_files(&files("multi_label"), &options).unwrap();
    assert_eq!(string(&labels.run_one(text).unwrap().prediction), ["label", "score"]);
}

mod erased {
    pub trait Json {
        fn json(&self) -> String;
    }

    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> String {
            serde_json::to_string(self).unwrap()
        }
    }
}

#[test]
fn an_iteration_reads_no_further_than_it_must_and_says_which_text_is_wrong() {
    let mut options = Options::default().with_engine(EngineChoice::Native).with_batch_size(2);
    options.read_ahead = 2;
    let pipe = Embeddings::from_files(&head("sequence_classification"), &options).unwrap();
    let read = std::cell::Cell::new(0);
    let texts: Vec<String> = (0..20).map(|i| "the river ".repeat(1 + i * 7 % 5)).collect();
    let counted = texts.iter().inspect(|_| read.set(read.get() + 1));
    let mut iter = pipe.embed_iter(counted);
    let first = iter.next().unwrap().unwrap();
    assert_eq!(read.get(), 4);
    let rest: Vec<Vec<f32>> = iter.map(|output| output.unwrap().prediction).collect();
    assert_eq!(read.get(), 20);
    let all = pipe.embed(&texts).unwrap();
    assert_eq!(all.len(), 20);
    let streamed: Vec<Vec<f32>> = std::iter::once(first.prediction).chain(rest).collect();
    for (streamed, all) in streamed.iter().zip(&all) {
        assert!(streamed.iter().zip(all).all(|(a, b)| (a - b).abs() <= 1e-6));
    }

    let long = "river ".repeat(50);
    let texts = ["a", "b", "c", "d", "e", &long, "f"];
    let outputs: Vec<_> = pipe.embed_iter(texts).collect();
    assert_eq!(outputs.len(), 5);
    assert!(matches!(outputs[4], Err(PipelineError::TooLong { text: 5, tokens: 52, limit: 40 })));
}
