//! Heads against PyTorch: every fixture of tests/fixtures/heads, every case, every recorded module (its make.py makes them).

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use architecture::bind;
use candle_bert::{
    BertConfig, BertError, BertForMaskedLM, BertForQuestionAnswering, BertForSequenceClassification,
    BertForTask, BertModel, Family, Loaded, ProblemType, ReferenceEngine, Task,
};
use candle_core::{DType, Device, Tensor};
use checkpoint::{Checkpoint, ModelFiles, TensorEntry};
use engine::{Engine, NamedValues, Value};
use safetensors::tensor::{Dtype, TensorView};

/// How far f64 may be from PyTorch's f64, as a part of the largest absolute value of the tensor. The two add in different orders: 2.1e-15 was measured. A
/// constant that was rounded to f32 costs 1e-8.
const F64_BOUND: f64 = 1e-12;

/// How far the narrower dtypes may be, in units in the last place of the largest absolute value of the tensor: their roundings add up. Measured: 10 in f32,
/// 5 in f16, 6 in bf16.
const ULPS: f64 = 32.;

/// The fixtures, with their tasks.
const HEADS: [(&str, Task); 9] = [
    ("sequence_classification", Task::SequenceClassification),
    ("multi_label", Task::SequenceClassification),
    ("regression", Task::SequenceClassification),
    ("token_classification", Task::TokenClassification),
    ("question_answering", Task::QuestionAnswering),
    ("masked_lm", Task::MaskedLm),
    ("masked_lm_untied", Task::MaskedLm),
    ("multiple_choice", Task::MultipleChoice),
    ("next_sentence_prediction", Task::NextSentencePrediction),
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/heads").join(name)
}

fn read(name: &str) -> (BertConfig, Checkpoint) {
    let files = ModelFiles::from_folder(folder(name)).unwrap();
    (BertConfig::from_json(&files.config().unwrap()).unwrap(), files.checkpoint().unwrap())
}

fn load(name: &str, dtype: DType) -> Loaded<BertForTask> {
    let (config, checkpoint) = read(name);
    let task = config.task().unwrap();
    BertForTask::from_checkpoint(task, &checkpoint, &config, dtype, &Device::Cpu).unwrap()
}

fn golden(name: &str) -> BTreeMap<String, Tensor> {
    let path = folder(name).join("golden.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect()
}

fn cases(golden: &BTreeMap<String, Tensor>) -> Vec<&str> {
    golden.keys().filter_map(|key| key.strip_suffix("/input_ids")).collect()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest distance, and the largest absolute value that was expected. Neither may be a NaN.
fn distance(found: &Tensor, expected: &Tensor, what: &str) -> (f64, f64) {
    assert_eq!(expected.dtype(), DType::F64, "{what}");
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let (found, expected) = (flat(found), flat(expected));
    assert!(!found.is_empty() && found.iter().chain(&expected).all(|x| x.is_finite()), "{what}");
    let off = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs());
    (off.fold(0., f64::max), expected.iter().fold(0., |largest, x| largest.max(x.abs())))
}

/// Runs every case in the given dtype, and hands `(what, distance, largest)` of every output and recorded module to `judge`.
fn compare(dtype: DType, mut judge: impl FnMut(&str, f64, f64)) {
    for (name, task) in HEADS {
        let model = load(name, dtype).model;
        assert_eq!(model.task(), task);
        let golden = golden(name);
        let cases = cases(&golden);
        assert!(cases.len() >= 4, "{name}: {cases:?}");
        for case in cases {
            let input = |name: &str| &golden[&format!("{case}/{name}")];
            let mut compared = BTreeSet::new();
            let mut modules = Vec::new();
            let mut check = |name_: &str, found: &Tensor| {
                if let Some(expected) = golden.get(&format!("{case}/{name_}")) {
                    let what = format!("{name}/{case}/{name_} in {dtype:?}");
                    let (distance, largest) = distance(found, expected, &what);
                    judge(&what, distance, largest);
                    compared.insert(format!("{case}/{name_}"));
                }
            };
            let (ids, mask, types) = (input("input_ids"), input("attention_mask"), input("token_type_ids"));
            let output = model
                .forward_with_taps(ids, Some(mask), Some(types), &mut |module, tensor| {
                    modules.push(module.to_string());
                    check(&format!("taps/{module}"), tensor);
                    Ok(())
                })
                .unwrap();
            assert_eq!(modules, model.module_paths());
            assert_eq!(output.names().collect::<Vec<_>>(), task.outputs());
            for (name, tensor) in output.iter() {
                check(name, tensor);
            }
            // All that PyTorch recorded was compared, and no module is named otherwise.
            let inputs = ["input_ids", "attention_mask", "token_type_ids"];
            let recorded = golden.keys().filter(|key| {
                key.strip_prefix(&format!("{case}/")).is_some_and(|name| !inputs.contains(&name))
            });
            assert_eq!(compared, recorded.cloned().collect(), "{name}");
            // Taps change no bit.
            let plain = model.forward(ids, Some(mask), Some(types)).unwrap();
            for (name, tensor) in output.iter() {
                assert_eq!(flat(plain.get(name).unwrap()), flat(tensor));
            }
        }
    }
}

#[test]
fn f64_is_pytorchs_f64() {
    let (mut compared, mut taps, mut worst) = (0, 0, 0f64);
    compare(DType::F64, |what, distance, largest| {
        assert!(distance <= F64_BOUND * largest, "{what}: {distance:e} off, of {largest:e}");
        compared += 1;
        taps += usize::from(what.contains("/taps/"));
        worst = worst.max(distance / largest);
    });
    println!("{compared} tensors, {taps} of them modules', at most {worst:.1e} of the largest value off");
    assert!(compared >= 90 && taps >= 48, "only {compared}, {taps}");
}

#[test]
fn narrower_dtypes_are_off_by_their_rounding_alone() {
    for (dtype, epsilon) in
        [(DType::F32, 2f64.powi(-23)), (DType::F16, 2f64.powi(-10)), (DType::BF16, 2f64.powi(-7))]
    {
        let mut worst = 0f64;
        compare(dtype, |what, distance, largest| {
            let ulps = distance / (largest * epsilon);
            assert!(ulps <= ULPS, "{what}: {ulps} ULP off");
            worst = worst.max(ulps);
        });
        println!("{dtype:?}: at most {worst:.1} ULP off");
    }
}

#[test]
fn every_tensor_of_a_checkpoint_is_used() {
    for (name, task) in HEADS {
        let (config, checkpoint) = read(name);
        let loaded = load(name, DType::F32);
        assert_eq!((loaded.prefix.as_str(), &loaded.unused[..]), ("bert.", &[][..]), "{name}");
        let bound = bind(&checkpoint, &config, task).unwrap();
        let names: BTreeSet<&str> = bound.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, checkpoint.names().collect(), "{name}");
        let pooler = ["sequence_classification", "multi_label", "regression", "multiple_choice"];
        let pooler = pooler.contains(&name) || name == "next_sentence_prediction";
        assert_eq!(loaded.model.bert().has_pooler(), pooler, "{name}");
    }
}

#[test]
fn configs_say_what_the_labels_are() {
    let (config, _) = read("sequence_classification");
    assert_eq!(
        (config.num_labels, &config.id2label[..]),
        (3, &["negative", "neutral", "positive"].map(String::from)[..])
    );
    assert_eq!((config.problem_type, config.label_id("positive")), (None, Some(2)));
    let (config, _) = read("multi_label");
    assert_eq!((config.num_labels, config.problem_type), (4, Some(ProblemType::MultiLabel)));
    let (config, _) = read("regression");
    assert_eq!((config.num_labels, config.problem_type), (1, Some(ProblemType::Regression)));
    let (config, _) = read("question_answering");
    assert_eq!((config.num_labels, config.id2label.len(), config.label(1)), (2, 0, "LABEL_1".into()));
    assert!(!read("masked_lm_untied").0.tie_word_embeddings);
}

/// The outputs for the case of two rows of eight, as bits.
fn bits(model: &BertForTask, fixture: &str) -> Vec<u64> {
    let golden = golden(fixture);
    let input = |name| &golden[&format!("static/{name}")];
    let output = model
        .forward(input("input_ids"), Some(input("attention_mask")), Some(input("token_type_ids")))
        .unwrap();
    output.iter().flat_map(|(_, tensor)| flat(tensor)).map(f64::to_bits).collect()
}

/// A checkpoint with its tensors under other names, and more of them.
fn changed(checkpoint: &Checkpoint, rename: impl Fn(&str) -> String, more: Vec<TensorEntry>) -> Checkpoint {
    let all: Vec<TensorEntry> = checkpoint
        .iter()
        .map(|entry| TensorEntry { name: rename(&entry.name), ..entry.clone() })
        .chain(more)
        .collect();
    let views = all.iter().map(|entry| {
        assert_eq!(entry.dtype, engine::DType::F32);
        (&entry.name, TensorView::new(Dtype::F32, entry.shape.clone(), &entry.bytes).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    Checkpoint::from_safetensors("model.safetensors", bytes.into()).unwrap()
}

fn from(fixture: &str, task: Task, checkpoint: &Checkpoint) -> Result<Loaded<BertForTask>, BertError> {
    BertForTask::from_checkpoint(task, checkpoint, &read(fixture).0, DType::F64, &Device::Cpu)
}

#[test]
fn prefixes_and_old_names_are_understood() {
    for (name, task) in HEADS {
        let (_, checkpoint) = read(name);
        let expected = bits(&load(name, DType::F64).model, name);
        let legacy = |name: &str| {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        };
        type Rename<'a> = &'a dyn Fn(&str) -> String;
        for (prefix, rename) in [
            ("bert.", &legacy as Rename),
            ("model.bert.", &|name| format!("model.{name}")),
            ("module.bert.", &|name| format!("module.{name}")),
            ("", &|name| name.trim_start_matches("bert.").into()),
            ("model.", &|name| format!("model.{}", name.trim_start_matches("bert."))),
        ] {
            let found = from(name, task, &changed(&checkpoint, rename, vec![])).unwrap();
            assert_eq!((found.prefix.as_str(), &found.unused[..]), (prefix, &[][..]), "{name}");
            assert!(bits(&found.model, name) == expected, "{name} with '{prefix}'");
        }
    }
}

#[test]
fn a_head_that_is_not_there_is_named() {
    let (_, checkpoint) = read("token_classification");
    let error =
        from("sequence_classification", Task::SequenceClassification, &checkpoint).unwrap_err().to_string();
    assert_eq!(
        error,
        "the checkpoint does not fit config.json in 4 places; take both from one save of the model, \
         or name another task\
         \n  bert.pooler.dense.weight [16, 16] is missing\
         \n  bert.pooler.dense.bias [16] is missing\
         \n  classifier.weight is [5, 16], config.json makes it [3, 16]\
         \n  classifier.bias is [5], config.json makes it [3]"
    );
    let error = from("token_classification", Task::MaskedLm, &checkpoint).unwrap_err().to_string();
    assert!(error.contains("cls.predictions.transform.LayerNorm.bias [16] is missing"), "{error}");
    // What another head needs, and what nobody does, is left over.
    let (config, checkpoint) = read("sequence_classification");
    let loaded = BertModel::from_checkpoint(&checkpoint, &config, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(loaded.unused, ["classifier.bias", "classifier.weight"]);
    let config = BertConfig { num_labels: 0, id2label: vec![], ..config };
    let error =
        BertForSequenceClassification::from_checkpoint(&checkpoint, &config, DType::F32, &Device::Cpu);
    assert!(error.unwrap_err().to_string().contains("num_labels is 0"));
}

/// A copy of a tensor under another name.
fn copy(checkpoint: &Checkpoint, of: &str, name: &str) -> TensorEntry {
    TensorEntry { name: name.into(), ..checkpoint.get(of).unwrap().clone() }
}

#[test]
fn a_decoder_is_tied_or_its_own() {
    const WORDS: &str = "bert.embeddings.word_embeddings.weight";
    const DECODER: &str = "cls.predictions.decoder.weight";
    let (config, tied) = read("masked_lm");
    let expected = bits(&load("masked_lm", DType::F64).model, "masked_lm");

    // Old checkpoints have both copies.
    let copies = vec![
        copy(&tied, WORDS, DECODER),
        copy(&tied, "cls.predictions.bias", "cls.predictions.decoder.bias"),
    ];
    let old = changed(&tied, str::to_string, copies);
    let loaded = from("masked_lm", Task::MaskedLm, &old).unwrap();
    assert_eq!(loaded.unused, [""; 0]);
    assert!(bits(&loaded.model, "masked_lm") == expected);
    let bound = bind(&old, &config, Task::MaskedLm).unwrap();
    assert!(!bound.entries.iter().any(|entry| entry.name == DECODER));

    // transformers never takes the bias of the decoder, so that one which differs is left over.
    let other = copy(&read("masked_lm_untied").1, "cls.predictions.bias", "cls.predictions.decoder.bias");
    let loaded = from("masked_lm", Task::MaskedLm, &changed(&tied, str::to_string, vec![other])).unwrap();
    assert_eq!(loaded.unused, ["cls.predictions.decoder.bias"]);
    assert!(bits(&loaded.model, "masked_lm") == expected);

    // Another decoder contradicts the config.
    let own = copy(&read("masked_lm_untied").1, DECODER, DECODER);
    let contradictory = changed(&tied, str::to_string, vec![own]);
    let error = from("masked_lm", Task::MaskedLm, &contradictory).unwrap_err().to_string();
    assert!(error.starts_with("cls.predictions.decoder.weight differs from the word embeddings"), "{error}");
    assert!(error.contains(r#""tie_word_embeddings": false"#), "{error}");
    let untied = BertConfig { tie_word_embeddings: false, ..config };
    let load = |checkpoint| BertForMaskedLM::from_checkpoint(checkpoint, &untied, DType::F64, &Device::Cpu);
    assert!(bits(&load(&contradictory).unwrap().model.into(), "masked_lm") != expected);
    // One that is not tied has to be there.
    let error = load(&tied).unwrap_err().to_string();
    assert!(error.contains("cls.predictions.decoder.weight [121, 16] is missing"), "{error}");
}

#[test]
fn choices_are_rows_of_their_own() {
    let model = load("multiple_choice", DType::F64).model;
    let golden = golden("multiple_choice");
    let ids = &golden["masks/input_ids"];
    let mask = &golden["masks/attention_mask"];
    let both = model.forward(ids, Some(mask), None).unwrap();
    let &[batch, choices, _] = ids.dims() else { panic!("{ids:?}") };
    assert_eq!(both.get("logits").unwrap().dims(), [batch, choices]);
    let message =
        |ids: &Tensor, mask: Option<&Tensor>| model.forward(ids, mask, None).unwrap_err().to_string();
    assert_eq!(
        message(&ids.flatten(0, 1).unwrap(), None),
        format!("input_ids must be [batch, choices, sequence], got shape {:?}", [batch * choices, 11])
    );
    // The same number of rows, but other ones.
    let turned = mask.transpose(0, 1).unwrap().contiguous().unwrap();
    let turned = if batch == choices { turned.reshape((1, batch * choices, 11)).unwrap() } else { turned };
    assert!(message(ids, Some(&turned)).ends_with("they must agree"));
    let wrong =
        Tensor::new(&[[[1i64, 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [5, 999]]], &Device::Cpu).unwrap();
    assert!(message(&wrong, None).starts_with("input_ids[1, 2, 1] is 999, outside"));
    let empty = Tensor::zeros((2, 0, 5), DType::I64, &Device::Cpu).unwrap();
    assert!(message(&empty, None).starts_with("input_ids of shape [2, 0, 5] hold no token"));
}

#[test]
fn classes_give_what_the_task_gives() {
    let (config, checkpoint) = read("question_answering");
    let model = BertForQuestionAnswering::from_checkpoint(&checkpoint, &config, DType::F64, &Device::Cpu)
        .unwrap()
        .model;
    let ids = Tensor::new(&[[2i64, 30, 31, 3, 32, 33, 3]], &Device::Cpu).unwrap();
    let output = model.forward(&ids, None, None).unwrap();
    let by_task = BertForTask::from(model).forward(&ids, None, None).unwrap();
    assert_eq!(flat(&output.start_logits), flat(by_task.get("start_logits").unwrap()));
    assert_eq!(flat(&output.end_logits), flat(by_task.get("end_logits").unwrap()));
    assert_ne!(flat(&output.start_logits), flat(&output.end_logits));
}

#[test]
fn the_engine_has_the_outputs_and_modules_of_its_task() {
    let specs = |name| {
        let engine = ReferenceEngine::new(load(name, DType::F64).model);
        let all: Vec<String> =
            engine.inputs()[..1].iter().chain(engine.outputs()).map(ToString::to_string).collect();
        all
    };
    let tokens = "input_ids i64[batch, sequence]";
    assert_eq!(specs("sequence_classification"), [tokens, "logits f64[batch, 3]"]);
    assert_eq!(specs("token_classification"), [tokens, "logits f64[batch, sequence, 5]"]);
    assert_eq!(
        specs("question_answering"),
        [tokens, "start_logits f64[batch, sequence]", "end_logits f64[batch, sequence]"]
    );
    assert_eq!(specs("masked_lm"), [tokens, "logits f64[batch, sequence, 121]"]);
    assert_eq!(
        specs("multiple_choice"),
        ["input_ids i64[batch, choices, sequence]", "logits f64[batch, choices]"]
    );
    assert_eq!(specs("next_sentence_prediction"), [tokens, "logits f64[batch, 2]"]);

    let engine = ReferenceEngine::new(load("masked_lm", DType::F64).model);
    let inputs = NamedValues::from_iter([("input_ids", Value::new([1, 3], vec![2i64, 50, 3]).unwrap())]);
    let names = ["cls.predictions.decoder", "logits", "encoder", "cls.predictions.transform.dense"];
    let found = engine.run_for(&inputs, &names).unwrap();
    assert_eq!(found.names().collect::<Vec<_>>(), names);
    assert_eq!(found.get("logits"), found.get("cls.predictions.decoder"));
    assert_eq!(found.get("logits"), engine.run(&inputs).unwrap().get("logits"));
    assert!(engine.run_for(&inputs, &["last_hidden_state"]).is_err());
    // Two for the head's class and what it holds, four within, and the activation between these.
    let encoder = load("masked_lm", DType::F64).model.bert().module_paths().len();
    assert_eq!(encoder + 7, engine.program().modules.len());
}
