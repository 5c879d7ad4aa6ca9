//! Every family against PyTorch: every fixture of tests/fixtures/families, every case, every
//! recorded module (its make.py makes them).

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use architecture::run_of;
use candle_bert::{
    DistilBertConfig, DistilBertForQuestionAnswering, ElectraConfig, ElectraForMaskedLM, EncoderForTask,
    Family, Model, RobertaConfig, RobertaForSequenceClassification, RobertaModel, Task, family, var_builder,
};
use candle_core::{DType, Device, Tensor};
use checkpoint::ModelFiles;
use serde_json::Value as Json;

/// How far f64 may be from PyTorch's f64, as a part of the largest absolute value of the tensor:
/// see golden.rs. A constant that was rounded to f32 costs 1e-8.
const F64_BOUND: f64 = 1e-12;

/// How far f32 may be, in units in the last place of the largest absolute value of the tensor: its
/// roundings add up. Measured: 28, in the stiffest.
const ULPS: f64 = 128.0;

/// Families that have fixtures and no description yet.
const NOT_YET: [&str; 2] = ["bert/", "deberta-v2/"];

/// What stands before the outputs of a model in f64 whose angles are f32's, as those of
/// transformers are: the others are f64's from the start.
const F32_ANGLES: &str = "f32_angles/";

/// How far these may be from a model whose angles are exact, as a part of the largest value: a text
/// of 30 tokens has angles that f32 holds to 2e-6.
const ANGLES_BOUND: f64 = 1e-4;

/// Models whose angles depend on how long a text is, or are spread otherwise: no published
/// config.json says so.
const REFUSED: [&str; 2] = ["nomic-bert/scaled", "gte/mixed"];

struct Fixture {
    name: String,
    family: Arc<dyn Family>,
    files: ModelFiles,
    golden: BTreeMap<String, Tensor>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/families")
}

fn open(name: &str) -> Fixture {
    let files = ModelFiles::from_folder(folder().join(name)).unwrap();
    let golden = candle_core::safetensors::load(folder().join(name).join("golden.safetensors"), &Device::Cpu);
    Fixture {
        name: name.into(),
        family: family(&files.config().unwrap()).unwrap(),
        files,
        golden: golden.unwrap().into_iter().collect(),
    }
}

/// All of them whose family is known here.
fn fixtures() -> Vec<Fixture> {
    let index: Json = serde_json::from_slice(&std::fs::read(folder().join("index.json")).unwrap()).unwrap();
    let names = index.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap());
    let is_known =
        |name: &&str| !NOT_YET.iter().any(|family| name.starts_with(family)) && !REFUSED.contains(name);
    names.filter(is_known).map(open).collect()
}

impl Fixture {
    fn load(&self, dtype: DType) -> Model {
        let (checkpoint, task) = (self.files.checkpoint().unwrap(), self.family.task().unwrap());
        let loaded = Model::from_checkpoint(&checkpoint, &*self.family, task, dtype, &Device::Cpu).unwrap();
        assert_eq!(loaded.unused, [""; 0], "{}", self.name);
        loaded.model
    }

    fn given(&self, case: &str, model: &Model) -> Vec<(&'static str, &Tensor)> {
        let names = model.program().inputs.iter().map(|input| input.name);
        names.filter_map(|name| Some((name, self.golden.get(&format!("{case}/{name}"))?))).collect()
    }
}

/// Hands `(what, distance, largest)` of every output and recorded module to `judge`.
fn compare(dtype: DType, mut judge: impl FnMut(&str, f64, f64)) {
    for fixture in fixtures() {
        let model = fixture.load(dtype);
        let cases: Vec<&str> =
            fixture.golden.keys().filter_map(|key| key.strip_suffix("/input_ids")).collect();
        assert!(cases.len() >= 4, "{}: {cases:?}", fixture.name);
        for case in cases {
            let mut found: Vec<(String, Tensor)> = Vec::new();
            let mut modules = Vec::new();
            let mut tap = |module: &str, tensor: &Tensor| {
                modules.push(module.to_string());
                found.push((format!("{case}/taps/{module}"), tensor.clone()));
                Ok(())
            };
            let outputs = model.run(&fixture.given(case, &model), Some(&mut tap)).unwrap();
            assert_eq!(modules, model.program().module_paths().collect::<Vec<_>>());
            found.extend(outputs.into_iter().map(|(name, tensor)| (format!("{case}/{name}"), tensor)));
            let mut compared = BTreeSet::new();
            for (key, found) in &found {
                let Some(expected) = fixture.golden.get(key) else { continue };
                let what = format!("{}/{key}", fixture.name);
                assert_eq!(found.dims(), expected.dims(), "{what}");
                let flat = |tensor: &Tensor| -> Vec<f64> {
                    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
                };
                let (found, expected) = (flat(found), flat(expected));
                assert!(!found.is_empty() && found.iter().chain(&expected).all(|x| x.is_finite()), "{what}");
                let off = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs());
                let largest = expected.iter().fold(0f64, |largest, x| largest.max(x.abs()));
                judge(&what, off.fold(0., f64::max), largest);
                compared.insert(key.clone());
            }
            // All that PyTorch recorded was compared, and no module is named otherwise.
            let inputs = ["input_ids", "attention_mask", "token_type_ids"];
            let recorded = fixture.golden.keys().filter(|key| {
                let name = key.strip_prefix(&format!("{case}/"));
                name.is_some_and(|name| !inputs.contains(&name) && !name.starts_with(F32_ANGLES))
            });
            assert_eq!(compared, recorded.cloned().collect(), "{}", fixture.name);
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
    assert!(compared >= 500 && taps >= 300, "only {compared}, {taps}");
}

/// They are refused by the field that makes them so.
#[test]
fn other_angles_are_refused() {
    for (name, field) in REFUSED.into_iter().zip(["rotary_scaling_factor", "mixed_b"]) {
        let config = std::fs::read(folder().join(name).join("config.json")).unwrap();
        let error = family(&config).unwrap_err().to_string();
        assert!(error.contains(field) && error.contains("parity run GRAPH --expected"), "{error}");
    }
}

/// Rotary angles are those of the formula. transformers takes them in f32, also in a model of f64.
#[test]
fn angles_are_exact() {
    let mut compared = 0;
    for fixture in fixtures() {
        let model = fixture.load(DType::F64);
        for (key, theirs) in &fixture.golden {
            let Some((case, _)) = key.split_once(&format!("/{F32_ANGLES}")) else { continue };
            let outputs = model.run(&fixture.given(case, &model), None).unwrap();
            let largest = |x: &Tensor| -> f64 {
                x.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
            };
            let off = largest(&(&outputs[0].1 - theirs).unwrap()) / largest(theirs);
            // A single token is turned by nothing.
            assert!(
                (off > 1e-10 || case == "single") && off < ANGLES_BOUND,
                "{}/{key}: {off:e}",
                fixture.name
            );
            compared += 1;
        }
    }
    assert!(compared >= 8, "only {compared}");
}

#[test]
fn f32_is_off_by_its_rounding_alone() {
    let mut worst = 0f64;
    compare(DType::F32, |what, distance, largest| {
        let ulps = distance / (largest * 2f64.powi(-23));
        assert!(ulps <= ULPS, "{what}: {ulps} ULP off");
        worst = worst.max(ulps);
    });
    println!("at most {worst:.1} ULP off");
}

/// What `named_modules()` gave: the classes of transformers' own are the description's, and tags
/// name them.
#[test]
fn modules_are_of_the_classes_that_transformers_has() {
    let modules = std::fs::read(folder().join("modules.json")).unwrap();
    let modules: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(&modules).unwrap();
    let mut compared = 0;
    for Fixture { name, family, files, .. } in fixtures() {
        let checkpoint = files.checkpoint().unwrap();
        let has = |tensor: &str| checkpoint.names().any(|found| found.ends_with(tensor));
        let program = family.program(family.task().unwrap(), &has).unwrap();
        let own = |path: &str, class: &str| {
            let base = format!("{}.", family.base());
            (path.strip_prefix(&base).unwrap_or(path).to_string(), class.to_string())
        };
        let recorded: BTreeMap<String, String> =
            modules[&name].iter().map(|(path, class)| own(path, class)).collect();
        assert_eq!(recorded[""], program.class, "{name}");
        for module in program.modules.iter().filter(|module| !module.is_between()) {
            let found = &recorded[run_of(&module.path).0];
            match &module.class {
                Some(class) => assert_eq!(found, class, "{name}: {}", module.path),
                None => assert!(found.starts_with("torch."), "{name}: {} is a {found}", module.path),
            }
            compared += 1;
        }
        // None of transformers' own is left out, but for activations, which have no step of their
        // own.
        let described: BTreeSet<&str> = program.module_paths().map(|path| run_of(path).0).collect();
        for (path, class) in recorded.iter().filter(|(path, _)| !path.is_empty()) {
            let is_known = described.contains(path.as_str())
                || class.starts_with("torch.")
                || class.ends_with("Activation")
                || *path == family.base();
            assert!(is_known, "{name}: {path} is a {class}, and not described");
        }
    }
    assert!(compared >= 500, "only {compared}");
}

#[test]
fn typed_models_give_what_pytorch_gives() {
    let close = |found: &Tensor, expected: &Tensor| {
        let off = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(off.to_scalar::<f64>().unwrap() < 1e-12);
    };
    let at = |fixture: &Fixture, name: &str| fixture.golden[&format!("static/{name}")].clone();
    let cpu = Device::Cpu;

    let fixture = open("roberta/plain");
    let config = RobertaConfig::from_json(&fixture.files.config().unwrap()).unwrap();
    let checkpoint = fixture.files.checkpoint().unwrap();
    let (ids, mask) = (at(&fixture, "input_ids"), at(&fixture, "attention_mask"));
    let vb = var_builder(&checkpoint, DType::F64, &cpu);
    let output = RobertaModel::load(vb, &config).unwrap().forward(&ids, Some(&mask), None).unwrap();
    close(&output.last_hidden_state, &at(&fixture, "last_hidden_state"));

    let fixture = open("roberta/sequence_classification");
    let config = RobertaConfig::from_json(&fixture.files.config().unwrap()).unwrap();
    let checkpoint = fixture.files.checkpoint().unwrap();
    let (ids, mask) = (at(&fixture, "input_ids"), at(&fixture, "attention_mask"));
    let model = RobertaForSequenceClassification::load(var_builder(&checkpoint, DType::F64, &cpu), &config);
    close(&model.unwrap().forward(&ids, Some(&mask), None).unwrap(), &at(&fixture, "logits"));

    let fixture = open("distilbert/question_answering");
    let config = DistilBertConfig::from_json(&fixture.files.config().unwrap()).unwrap();
    let checkpoint = fixture.files.checkpoint().unwrap();
    let (ids, mask) = (at(&fixture, "input_ids"), at(&fixture, "attention_mask"));
    let model = DistilBertForQuestionAnswering::from_checkpoint(&checkpoint, &config, DType::F64, &cpu);
    let model = model.unwrap().model;
    close(&model.forward(&ids, Some(&mask), None).unwrap().end_logits, &at(&fixture, "end_logits"));
    assert!(model.forward(&ids, Some(&mask), Some(&ids)).unwrap_err().to_string().contains("token_type_ids"));
    assert_eq!(model.encoder().program().outputs.len(), 1);

    let fixture = open("electra/masked_lm");
    let config = ElectraConfig::from_json(&fixture.files.config().unwrap()).unwrap();
    let checkpoint = fixture.files.checkpoint().unwrap();
    let [ids, mask, types] = ["input_ids", "attention_mask", "token_type_ids"].map(|name| at(&fixture, name));
    let model = ElectraForMaskedLM::from_checkpoint(&checkpoint, &config, DType::F64, &cpu).unwrap().model;
    close(&model.forward(&ids, Some(&mask), Some(&types)).unwrap(), &at(&fixture, "logits"));
    let task = EncoderForTask::from(model);
    assert_eq!((task.task(), task.config().vocab_size), (Task::MaskedLm, config.vocab_size));
}
