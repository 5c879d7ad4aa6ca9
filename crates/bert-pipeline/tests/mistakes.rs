//! What cannot be answered is refused by name.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::path::{Path, PathBuf};

use bert_pipeline::PipelineError;
use bert_pipeline::pipeline::{
    Aggregation, Embeddings, EngineChoice, FeatureExtraction, FillMask, MultipleChoice, Options, Pipeline,
    QuestionAnswering, TextClassification, TextRanking, TokenClassification,
};
use bytes::Bytes;
use checkpoint::ModelFiles;
use serde_json::{Value, json};

fn folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/heads").join(model)
}

fn head(model: &str) -> ModelFiles {
    ModelFiles::from_folder(folder(model)).unwrap()
}

fn native() -> Options {
    Options::default().with_engine(EngineChoice::Native)
}

/// A model with a changed JSON file.
fn changed(model: &str, file: &'static str, change: impl FnOnce(&mut Value)) -> ModelFiles {
    const FILES: [&str; 5] =
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"];
    let files = head(model);
    let mut json: Value = serde_json::from_slice(&files.require(file).unwrap()).unwrap();
    change(&mut json);
    let others = FILES.into_iter().filter(|name| *name != file);
    let others: Vec<(&'static str, Bytes)> =
        others.filter_map(|name| Some((name, files.read(name).unwrap()?))).collect();
    ModelFiles::from_memory("changed", others.into_iter().chain([(file, json.to_string().into())]))
}

fn without_model_max_length(model: &str) -> ModelFiles {
    changed(model, "tokenizer_config.json", |config| config["model_max_length"] = json!(1e30))
}

fn says<T>(result: Result<T, PipelineError>, words: &[&str]) {
    let message = result.err().unwrap().to_string();
    for word in words {
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn a_model_for_something_else() {
    let files = head("masked_lm");
    says(
        TextClassification::from_files(&files, &native()),
        &["no head for text-classification", "BertForMaskedLM"],
    );
    says(MultipleChoice::from_files(&files, &native()), &["multiple-choice", "BertForMaskedLM"]);
    says(FillMask::from_files(&head("regression"), &native()), &["BertForSequenceClassification"]);
    // Every head stands on an encoder.
    assert!(FeatureExtraction::from_files(&files, &native()).is_ok());
    // A base model has no head, whatever is asked for.
    let base = changed("token_classification", "config.json", |config| {
        config["architectures"] = json!(["BertModel"])
    });
    says(TokenClassification::from_files(&base, &native()), &["BertModel"]);
    // Where config.json does not say, the tensors do.
    let silent = |model| changed(model, "config.json", |config| config["architectures"] = Value::Null);
    assert!(TokenClassification::from_files(&silent("token_classification"), &native()).is_ok());
    says(QuestionAnswering::from_files(&silent("token_classification"), &native()), &["qa_outputs"]);
    says(
        TextRanking::from_files(&head("sequence_classification"), &native()),
        &["3 labels", "must have one"],
    );
}

#[test]
fn labels_that_are_not_named() {
    // A graph gives three scores, and config.json names two labels.
    let files = changed("sequence_classification", "config.json", |config| {
        config["id2label"] = json!({"0": "no", "1": "yes"});
        config["label2id"] = Value::Null;
    });
    let graphs = std::fs::read_dir(folder("sequence_classification").join("onnx")).unwrap();
    let graph = graphs.map(|entry| entry.unwrap().path()).min().unwrap();
    let pipe = TextClassification::from_files(&files, &Options::default().with_onnx(&graph)).unwrap();
    says(pipe.run(&["a"]), &["3 scores", "2 labels", "id2label"]);
    // And the checkpoint does not fit such a config.
    says(TextClassification::from_files(&files, &native()), &["classifier"]);
}

#[test]
fn a_graph_without_what_the_task_needs() {
    let graph = folder("token_classification").join("onnx/ts17-eager.onnx");
    let options = Options::default().with_onnx(&graph);
    says(
        Embeddings::from_files(&head("token_classification"), &options),
        &["no output 'last_hidden_state'", "embeddings", "logits"],
    );
    says(
        QuestionAnswering::from_files(
            &changed("token_classification", "config.json", |config| config["architectures"] = Value::Null),
            &options,
        ),
        &["no output 'start_logits'", "it has logits"],
    );
    says(
        Embeddings::from_files(
            &head("token_classification"),
            &Options::default().with_engine(EngineChoice::Session(onnx_session::EngineKind::Compiled)),
        ),
        &["has 2 graphs, and none of them is called", "onnx/ts17-eager.onnx"],
    );
    says(
        Embeddings::from_files(&head("token_classification"), &Options::default().with_onnx("missing.onnx")),
        &["missing.onnx"],
    );
}

#[test]
fn texts_that_are_too_long() {
    let long = "river ".repeat(60);
    let options = native();
    let too_long = &["text number 2", "62 tokens", "at most 40"];
    says(TextClassification::from_files(&head("regression"), &options).unwrap().run(&["a", &long]), too_long);
    says(FeatureExtraction::from_files(&head("regression"), &options).unwrap().run(&["a", &long]), too_long);
    let mask = format!("[MASK] {}", "river ".repeat(59));
    says(FillMask::from_files(&head("masked_lm"), &options).unwrap().run(&["[MASK]", &mask]), too_long);
    says(
        MultipleChoice::from_files(&head("multiple_choice"), &options).unwrap().choose("a", &["b", &long]),
        &["text number 2", "at most 40"],
    );
    // transformers cuts to model_max_length, and where there is none it cuts nothing.
    let files = without_model_max_length("token_classification");
    let ner = TokenClassification::from_files(&files, &options).unwrap();
    says(ner.run(&["a", &long]), too_long);
    let ner = ner.with_aggregation(Aggregation::First).unwrap().with_stride(3).unwrap();
    assert!(!ner.run(&["a", &long]).unwrap()[1].truncated);
    // Asked to, every pipeline cuts, and says so.
    let cutting =
        TextClassification::from_files(&head("regression"), &options.with_truncation(true)).unwrap();
    let outputs = cutting.run(&["a", &long]).unwrap();
    assert_eq!([outputs[0].truncated, outputs[1].truncated], [false, true]);
}

#[test]
fn strides_that_leave_nothing_new() {
    let ner = || TokenClassification::from_files(&head("token_classification"), &native()).unwrap();
    says(ner().with_stride(5), &["aggregation strategy"]);
    let simple = || ner().with_aggregation(Aggregation::Simple).unwrap();
    says(simple().with_stride(38), &["stride of 38", "room for 38"]);
    assert!(simple().with_stride(37).is_ok());
    says(simple().with_stride(3).unwrap().with_aggregation(Aggregation::None), &["aggregation strategy"]);

    let qa = || QuestionAnswering::from_files(&head("question_answering"), &native()).unwrap();
    let (question, context) = ("who lives in Berlin?", "river ".repeat(60));
    let few = qa().with_rows(20, Some(13)).unwrap();
    says(few.run(&[(question, context.as_str())]), &["stride of 13", "room for 12"]);
    // A short context is not cut.
    assert!(few.answer(question, "the river").is_ok());
    says(qa().with_rows(10, Some(7)), &["stride of 7", "room for 7"]);
    says(qa().with_rows(41, None), &["41", "at most 40"]);
    says(qa().with_rows(3, Some(0)), &["special tokens leave no room"]);
    let long = "river ".repeat(37);
    says(qa().run(&[("who?", "a"), (&long, "a")]), &["question of text number 2", "37 tokens", "row of 40"]);
}

#[test]
fn texts_that_are_not_for_the_task() {
    let qa = QuestionAnswering::from_files(&head("question_answering"), &native()).unwrap();
    says(qa.run(&["who?"]), &["no context"]);
    says(qa.run(&[("", "a")]), &["the question of text number 1 is empty"]);
    says(qa.run(&[("who?", "a"), ("who?", "")]), &["the context of text number 2 is empty"]);
    says(qa.with_top_k(0), &["top_k must be 1 or more, found 0"]);

    let fill = || FillMask::from_files(&head("masked_lm"), &native()).unwrap();
    says(fill().run(&["[MASK]", "a"]), &["text number 2 has no '[MASK]'"]);
    says(fill().with_targets(&["working"]), &["'working'", "work ##ing"]);
    says(fill().with_targets(&["xyz"]), &["'xyz'", "[UNK]"]);
    says(fill().with_targets(&[""]), &["it is nothing"]);
    says(fill().with_targets(&[] as &[&str]), &["no targets"]);
    says(fill().run(&[("[MASK]", "b")]), &["is a pair", "fill-mask"]);
    let files =
        changed("masked_lm", "tokenizer_config.json", |config| config["mask_token"] = json!("<mask>"));
    says(FillMask::from_files(&files, &native()), &["no mask token '<mask>'"]);

    let choice = MultipleChoice::from_files(&head("multiple_choice"), &native()).unwrap();
    says(choice.choose("a", &[] as &[&str]), &["no choices"]);
    let ranking = TextRanking::from_files(&head("regression"), &native()).unwrap();
    says(ranking.rank("a", &[] as &[&str]), &["no documents"]);
    let embeddings = Embeddings::from_files(&head("regression"), &native()).unwrap();
    says(embeddings.with_prompt_name("city"), &["no prompt 'city'", "has document, query"]);
    let none = Embeddings::from_files(&head("regression"), &native()).unwrap();
    assert_eq!(none.embed(&[] as &[&str]).unwrap(), Vec::<Vec<f32>>::new());
    says(Embeddings::with_pooler(&head("token_classification"), &native()), &["no output 'pooler_output'"]);
    let pooled = Embeddings::with_pooler(&head("regression"), &native()).unwrap();
    assert_eq!(pooled.embed(&["a", ""]).unwrap()[1].len(), 16);

    let mut options = native();
    options.batch_size = 0;
    says(Embeddings::from_files(&head("regression"), &options), &["batch_size must be 1 or more"]);
}

#[test]
fn a_number_that_is_none_is_no_answer() {
    let files = head("regression");
    let mut weights = files.require("model.safetensors").unwrap().to_vec();
    let checkpoint = files.checkpoint().unwrap();
    let bias = checkpoint.get("classifier.bias").unwrap();
    let offset = usize::try_from(bias.offset.unwrap()).unwrap();
    weights[offset..offset + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let others = ["config.json", "tokenizer.json", "tokenizer_config.json"];
    let others = others.map(|name| (name, files.require(name).unwrap()));
    let files =
        ModelFiles::from_memory("nan", others.into_iter().chain([("model.safetensors", weights.into())]));
    let pipe = TextClassification::from_files(&files, &native()).unwrap();
    says(pipe.run(&["a"]), &["'logits'", "text number 1", "not finite"]);
}
