//! Descriptions are held to PyTorch, field by field: a change of one field or one edge must
//! contradict something that PyTorch recorded.
//!
//! Reference and exporter read the same description, so that an error in it would be on both sides.
//! Three records judge it: the outputs and modules' outputs of PyTorch in f64, its modules and
//! their classes, and the checkpoints' own tensors. Of a model without a head, the modules are
//! those that torch's exporter writes beside each operator; of a model with one, those of
//! `named_modules()`.
//!
//! What they do not reach is not changed here, and stands where it is left out: the module of a
//! step that PyTorch has neither an operator nor a module for.

mod mutants;
mod scopes;

use std::collections::BTreeMap;
use std::path::PathBuf;

use architecture::{Activation, Copied, Module, Op, Program, Task, bind_program, run_of};
use candle_bert::BertConfig;
use candle_blocks::Model;
use candle_core::{DType, Device, Tensor as Value};
use checkpoint::{Checkpoint, ModelFiles};

use self::mutants::mutants;
use self::scopes::{Scopes, named_modules, operator, scopes};
use crate::common::fixture;
use crate::families::is_known;

/// How far f64 may be from PyTorch's f64, as a part of the largest absolute value: see
/// `candle-bert/tests/golden.rs`. What is changed here is off by far more.
const BOUND: f64 = 1e-12;

/// A model, and what PyTorch made of it.
struct Recorded {
    name: String,
    task: Task,
    checkpoint: Checkpoint,
    program: Program,
    prefixes: [String; 2],
    unused: Vec<String>,
    values: BTreeMap<String, Value>,
    scopes: Scopes,
}

impl Recorded {
    fn open(name: &str, scopes: Scopes) -> Self {
        let folder = fixture(name);
        let files = ModelFiles::from_folder(&folder).unwrap();
        let family = candle_bert::family(&files.config().unwrap()).unwrap();
        let checkpoint = files.checkpoint().unwrap();
        let task = family.task().unwrap();
        let bound = architecture::bind(&checkpoint, &*family, task).unwrap();
        let (program, prefixes) = (bound.program.clone(), [bound.prefix.clone(), bound.head_prefix.clone()]);
        let unused = bound.unused.clone();
        let values = candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu).unwrap();
        Self {
            name: name.into(),
            task,
            program,
            prefixes,
            unused,
            values: values.into_iter().collect(),
            scopes,
            checkpoint,
        }
    }

    /// What of the records a program contradicts; nothing if it is the model's.
    fn contradiction(&self, program: &Program) -> Option<String> {
        self.other_structure(program).or_else(|| self.other_values(program).err())
    }

    /// Classes, scopes and operators.
    fn other_structure(&self, program: &Program) -> Option<String> {
        let Scopes { classes, operators, functions } = &self.scopes;
        let mut found: BTreeMap<(String, &'static str), usize> = BTreeMap::new();
        for (at, step) in program.steps.iter().enumerate() {
            let is_told = |(name, _): &(&str, usize)| self.scopes.tell_of(name);
            // A module that runs again is the same module.
            if matches!(run_of(program.owner(at)), (_, Some(run)) if run != "0") {
                continue;
            }
            let is_function = !functions && matches!(step.op, Op::Activation { configured: false, .. });
            if let Some((operator, count)) = operator(step).filter(is_told).filter(|_| !is_function) {
                let owner = run_of(program.owner(at)).0.to_string();
                *found.entry((owner, operator)).or_default() += count;
            }
        }
        if &found != operators {
            return Some("operators stand in other modules".into());
        }
        let tags =
            |module: &Module| (run_of(&module.path).0.to_string(), program.hierarchy_tag(&module.path));
        let own = program.modules.iter().filter(|module| !module.is_between());
        let tags: Vec<(String, String)> = own.map(tags).collect();
        let known = tags.iter().all(|(path, tag)| classes.get(path) == Some(tag));
        let all = classes.keys().all(|path| tags.iter().any(|(known, _)| known == path));
        (!known || !all).then(|| "modules are of other classes".into())
    }

    /// Tensors, outputs, and the outputs of modules.
    fn other_values(&self, program: &Program) -> Result<(), String> {
        let [prefix, head_prefix] = self.prefixes.clone();
        let bound = bind_program(&self.checkpoint, program.clone(), prefix, head_prefix)
            .map_err(|error| error.to_string())?;
        if bound.unused != self.unused {
            return Err(format!("unused are {:?}", bound.unused));
        }
        let model = Model::from_bound(&self.checkpoint, bound, DType::F64, &Device::Cpu)
            .map_err(|error| error.to_string())?
            .model;
        let inputs = ["input_ids", "attention_mask", "token_type_ids"];
        for case in self.values.keys().filter_map(|key| key.strip_suffix("/input_ids")) {
            let value = |name: &str| self.values.get(&format!("{case}/{name}"));
            let given: Vec<(&str, &Value)> =
                inputs.iter().filter_map(|name| Some((*name, value(name)?))).collect();
            let mut found: BTreeMap<String, Value> = BTreeMap::new();
            let outputs = model
                .run(
                    &given,
                    Some(&mut |module, tensor| {
                        found.insert(format!("{case}/taps/{module}"), tensor.clone());
                        Ok(())
                    }),
                )
                .map_err(|error| error.to_string())?;
            let outputs = outputs.into_iter().map(|(name, tensor)| (format!("{case}/{name}"), tensor));
            found.extend(outputs);
            let recorded = self.values.iter().filter(|(key, _)| {
                let name = key.strip_prefix(&format!("{case}/"));
                name.is_some_and(|name| !inputs.contains(&name) && !name.starts_with("f32_angles/"))
            });
            for (key, expected) in recorded {
                let found = found.get(key).ok_or_else(|| format!("{key} is missing"))?;
                if !same(found, expected) {
                    return Err(format!("{key} differs"));
                }
            }
        }
        Ok(())
    }
}

fn same(found: &Value, expected: &Value) -> bool {
    let flat = |value: &Value| value.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    if found.dims() != expected.dims() {
        return false;
    }
    let (found, expected) = (flat(found), flat(expected));
    let largest = expected.iter().fold(0f64, |largest, x| largest.max(x.abs()));
    !found.is_empty() && found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= BOUND * largest)
}

/// The models with their exports by torch in which attention is one operator.
fn recorded() -> Vec<Recorded> {
    let graph = fixture("baseline/onnx/dynamo20-sdpa-dynamic.onnx");
    let heads = modules_of_heads().into_iter().map(|(head, modules)| Recorded::open(&head, modules));
    [Recorded::open("baseline", scopes(&graph))].into_iter().chain(heads).collect()
}

/// Each fixture with a head, and what PyTorch says of its modules.
fn modules_of_heads() -> BTreeMap<String, Scopes> {
    let modules = std::fs::read(fixture("heads/modules.json")).unwrap();
    let modules: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(&modules).unwrap();
    assert!(!modules.is_empty());
    modules.into_iter().map(|(head, of)| (format!("heads/{head}"), named_modules(&of, "bert"))).collect()
}

/// A plain model of each other family, and one with each head.
fn families() -> Vec<Recorded> {
    let modules = std::fs::read(fixture("families/modules.json")).unwrap();
    let modules: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(&modules).unwrap();
    let known = modules.iter().filter(|(name, _)| is_known(name) && !name.ends_with("/stiff"));
    let of = |(name, modules): (&String, &BTreeMap<String, String>)| {
        let name = format!("families/{name}");
        let config = ModelFiles::from_folder(fixture(&name)).unwrap().config().unwrap();
        let base = candle_bert::family(&config).unwrap().base();
        Recorded::open(&name, named_modules(modules, base))
    };
    known.map(of).collect()
}

#[test]
fn whatever_is_changed_in_a_description_pytorch_contradicts() {
    contradicted(recorded(), 2000);
}

#[test]
fn nor_is_another_familys_description_changed_unseen() {
    contradicted(families(), 5000);
}

fn contradicted(models: Vec<Recorded>, least: usize) {
    let (mut count, mut unseen) = (0, Vec::new());
    for model in models {
        let own = model.contradiction(&model.program);
        unseen.extend(own.map(|why| format!("{} itself: {why}", model.name)));
        for (what, mutant) in mutants(&model) {
            if model.contradiction(&mutant).is_none() {
                unseen.push(format!("{}: nobody sees {what}", model.name));
            }
            count += 1;
        }
    }
    assert!(unseen.is_empty(), "{unseen:#?}");
    println!("{count} changes were contradicted");
    assert!(count > least, "only {count}");
}

/// What config.json chooses follows it, and nothing else does.
#[test]
fn configured_activations_are_those_that_follow_the_config() {
    for model in recorded() {
        let files = ModelFiles::from_folder(fixture(&model.name)).unwrap();
        let config = BertConfig::from_json(&files.config().unwrap()).unwrap();
        let own = config.hidden_act;
        let hidden_act = if own == Activation::Relu { Activation::Silu } else { Activation::Relu };
        let other = BertConfig { hidden_act, ..config };
        let has_pooler = model.program.tensors.iter().any(|tensor| tensor.name.starts_with("pooler"));
        let changed = other.program(model.task, &|_| has_pooler).unwrap();
        for (step, other) in model.program.steps.iter().zip(&changed.steps) {
            if let Op::Activation { configured, .. } = step.op {
                assert_eq!(configured, step.op != other.op, "{}, {}", model.name, step.module);
            }
        }
    }
}

/// The names that only some checkpoints have: those converted from TensorFlow, copies, old buffers,
/// prefixes.
#[test]
fn names_that_only_some_checkpoints_have() {
    let open = |folder: PathBuf| ModelFiles::from_folder(folder).unwrap();
    let config = BertConfig::from_json(&open(fixture("baseline")).config().unwrap()).unwrap();
    let of = |name: &str| open(fixture(name)).checkpoint().unwrap();
    let bound = |checkpoint: &Checkpoint, change: &dyn Fn(&mut Program)| {
        let bound = architecture::bind(checkpoint, &config, Task::FeatureExtraction).unwrap();
        let (mut program, prefix, head) =
            (bound.program.clone(), bound.prefix.clone(), bound.head_prefix.clone());
        change(&mut program);
        bind_program(checkpoint, program, prefix, head)
            .map(|bound| bound.unused.len())
            .map_err(|e| e.to_string())
    };
    let old = of("checkpoints/legacy-bert-gamma-tied");
    assert!(bound(&old, &|_| ()).is_ok());
    for at in 0..config.program(Task::FeatureExtraction, &|_| true).unwrap().tensors.len() {
        let has_old_name = |p: &Program| p.tensors[at].old_name.is_some();
        let program = config.program(Task::FeatureExtraction, &|_| true).unwrap();
        if has_old_name(&program) {
            assert!(bound(&old, &|p| p.tensors[at].old_name = None).is_err());
        }
        // Under another prefix than the encoder's it is not there.
        let with_head = of("prefixed");
        let other = BertConfig::from_json(&open(fixture("prefixed")).config().unwrap()).unwrap();
        let bound = architecture::bind(&with_head, &other, Task::FeatureExtraction).unwrap();
        let (mut program, prefix) = (bound.program.clone(), bound.prefix.clone());
        program.tensors[at].in_base = false;
        assert!(bind_program(&with_head, program, prefix, String::new()).is_err(), "{at}");
    }
    let buffers = of("position_ids");
    let other = BertConfig::from_json(&open(fixture("position_ids")).config().unwrap()).unwrap();
    let bound = architecture::bind(&buffers, &other, Task::FeatureExtraction).unwrap();
    let (mut program, prefix) = (bound.program.clone(), bound.prefix.clone());
    let unused = bound.unused.len();
    program.buffers.clear();
    let more = bind_program(&buffers, program, prefix.clone(), prefix).unwrap().unused.len();
    assert_eq!(more, unused + 1);
}

/// Copies under a second name: one that is told from the checkpoint's own, and one that contradicts
/// the config.
#[test]
fn copies_are_known_by_name_and_by_what_they_are_copies_of() {
    const DECODER: &str = "cls.predictions.decoder";
    let model = Recorded::open("heads/masked_lm", modules_of_heads().remove("heads/masked_lm").unwrap());
    let copy = |of: &str, name: String| checkpoint::TensorEntry {
        name,
        ..model.checkpoint.get(of).unwrap().clone()
    };
    let both = model.checkpoint.replacing([
        copy("bert.embeddings.word_embeddings.weight", format!("{DECODER}.weight")),
        copy("cls.predictions.bias", format!("{DECODER}.bias")),
    ]);
    let bind = |checkpoint: &Checkpoint, program: &Program| {
        let [prefix, head] = model.prefixes.clone();
        bind_program(checkpoint, program.clone(), prefix, head).map(|bound| bound.unused)
    };
    assert_eq!(bind(&both, &model.program).unwrap(), [""; 0]);
    for at in 0..model.program.copies.len() {
        for change in [|copied: &mut Copied| copied.name.push('2'), |copied: &mut Copied| copied.of += 1] {
            let mut program = model.program.clone();
            change(&mut program.copies[at]);
            assert!(bind(&both, &program).map_or(true, |unused| !unused.is_empty()), "copy {at}");
        }
        // One that differs: that of the weight contradicts the config, and that of the bias is left
        // over.
        let other = copy("bert.embeddings.LayerNorm.weight", model.program.copies[at].name.clone());
        let differs = model.checkpoint.replacing([other]);
        let tied = model.program.copies[at].tied;
        assert_eq!(bind(&differs, &model.program).is_err(), tied);
        let mut program = model.program.clone();
        program.copies[at].tied = !tied;
        assert_eq!(bind(&differs, &program).is_err(), !tied);
    }
}
