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

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use architecture::{
    Activation, Copied, Input, Module, Op, Output, Program, Role, Step, Task, Tensor, Wire, bind_program,
    run_of,
};
use candle_bert::BertConfig;
use candle_blocks::Model;
use candle_core::{DType, Device, Tensor as Value};
use checkpoint::{Checkpoint, ModelFiles};
use onnx_graph::Model as Graph;

use crate::common::fixture;

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
                key.strip_prefix(&format!("{case}/")).is_some_and(|name| !inputs.contains(&name))
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

/// What torch calls a step, and how often it does it; nothing for steps that have no operator of
/// their own.
fn operator(step: &Step) -> Option<(&'static str, usize)> {
    Some(match step.op {
        Op::Embedding { .. } | Op::Positions { .. } | Op::RelativeBias { .. } => ("embedding", 1),
        Op::Linear { .. } => ("linear", 1),
        Op::LayerNorm { .. } => ("layer_norm", 1),
        Op::Attention { .. } => (ATTENTION, 1),
        Op::Activation { function: Activation::Tanh, .. } => ("tanh", 1),
        Op::Activation { .. } => ("gelu", 1),
        Op::Sum => ("add", step.inputs.len() - 1),
        Op::Token { .. } => ("select", 1),
        Op::Rows | Op::Unrows | Op::Mask | Op::Feature { .. } => return None,
    })
}

/// What attention is in such an export.
const ATTENTION: &str = "scaled_dot_product_attention";

/// What PyTorch says of its modules.
struct Scopes {
    /// The classes on the way to each.
    classes: BTreeMap<String, String>,
    /// How often each of torch's operators stands in each.
    operators: BTreeMap<(String, &'static str), usize>,
    /// Whether that goes for activations that the architecture chooses, too: they may be modules or
    /// functions.
    functions: bool,
}

impl Scopes {
    /// Whether it says where an operator stands.
    fn tell_of(&self, operator: &str) -> bool {
        self.operators.keys().any(|(_, known)| *known == operator)
    }
}

/// PyTorch's own name for a module, without the encoder's prefix; of an activation's, which holds
/// nothing and is here the end of what is around it, that of what is around it.
fn path(name: &str, prefix: &str) -> String {
    let inner = name.strip_prefix(prefix).unwrap_or(name).trim_start_matches('.');
    let ends = [".intermediate_act_fn", ".transform_act_fn", ".activation"];
    ends.iter().find_map(|end| inner.strip_suffix(end)).unwrap_or(inner).to_string()
}

/// A tag with one more of transformers' classes.
fn longer(tag: &str, class: &str, name: &str) -> String {
    match name.rsplit('.').next().filter(|word| word.parse::<usize>().is_ok()) {
        Some(number) => format!("{tag}/{class}.{number}"),
        None => format!("{tag}/{class}"),
    }
}

/// What `named_modules()` gave for a head. A module of PyTorch's own is one operator; what is
/// written between modules, such as a sum or attention, is not told.
fn named_modules(modules: &BTreeMap<String, String>, base: &str) -> Scopes {
    let is_bert = base == "bert";
    let (mut classes, mut operators) = (BTreeMap::new(), BTreeMap::new());
    let class = |name: &str| modules[name].as_str();
    for name in modules.keys() {
        let path = path(name, base);
        // DistilBERT's stands beside what it is fed, and not within it.
        if name == "activation" {
            *operators.entry(("vocab_transform".to_string(), "gelu")).or_default() += 1;
            continue;
        }
        let operator = match class(name) {
            "torch.CrossEntropyLoss" | "torch.Dropout" | "torch.Identity" | "torch.ModuleList" => continue,
            // The pooler's, which other heads have as a function.
            "torch.Tanh" if !is_bert => continue,
            "torch.Embedding" => Some("embedding"),
            "torch.Linear" => Some("linear"),
            "torch.LayerNorm" => Some("layer_norm"),
            "torch.Tanh" => Some("tanh"),
            _ if name.ends_with("_act_fn") => Some("gelu"),
            _ if name.ends_with("ffn.activation") || name.ends_with("sequence_summary.activation") => {
                Some("gelu")
            }
            _ if name.ends_with(".activation") && !is_bert => continue,
            _ => None,
        };
        if let Some(operator) = operator {
            *operators.entry((path.clone(), operator)).or_default() += 1;
        }
        let own = name.strip_prefix(base).map_or(name.as_str(), |own| own.trim_start_matches('.'));
        if path.is_empty() || own != path {
            continue;
        }
        let ends = name.match_indices('.').map(|(at, _)| at).chain([name.len()]);
        let around = [""].into_iter().chain(ends.map(|end| &name[..end]));
        let own = around.filter(|around| !class(around).starts_with("torch."));
        classes.insert(path, own.fold(String::new(), |tag, around| longer(&tag, class(around), around)));
    }
    Scopes { classes, operators, functions: is_bert }
}

/// What torch's exporter wrote beside each operator.
fn scopes(graph: &Path) -> Scopes {
    let known = ["embedding", "linear", "layer_norm", ATTENTION, "tanh", "gelu", "add", "select"];
    let list = |text: &str| -> Vec<String> {
        text.trim_matches(['[', ']']).split(", ").map(|word| word.trim_matches('\'').to_string()).collect()
    };
    let (mut classes, mut operators) = (BTreeMap::new(), BTreeMap::new());
    let mut seen = BTreeSet::new();
    for node in &Graph::open(graph).unwrap().graph.nodes {
        let metadata =
            |name: &str| node.metadata.get(&format!("pkg.torch.onnx.{name}")).map(|text| list(text));
        let (Some(names), Some(of)) = (metadata("name_scopes"), metadata("class_hierarchy")) else {
            continue;
        };
        // The wrapper's name for the model is left out.
        let path = |name: &str| path(name, "model");
        let mut tag = String::new();
        for (name, class) in names.iter().zip(&of).take(names.len() - 1) {
            let Some(class) = class.rsplit_once("modeling_bert.").map(|(_, class)| class) else {
                let is_own = class.starts_with("torch.nn.modules.") && !class.contains("container");
                if is_own && path(name) == name.trim_start_matches("model.") {
                    classes.insert(path(name), tag.clone());
                }
                continue;
            };
            // Transformers has a class of its own for an attention that is one operator; which is
            // run is no matter of the architecture.
            tag = longer(&tag, &class.replace("Sdpa", ""), name);
            if !path(name).is_empty() {
                classes.insert(path(name), tag.clone());
            }
        }
        // One operator of torch's may be many nodes.
        let (Some(unique), Some(target)) = (names.last(), of.last()) else { continue };
        let operator = target.trim_start_matches("aten.").split('.').next().unwrap_or_default();
        if let Some(operator) = known.into_iter().find(|known| *known == operator)
            && seen.insert(unique.clone())
        {
            let scope = path(&names[names.len() - 2]);
            *operators.entry((scope, operator)).or_default() += 1;
        }
    }
    Scopes { classes, operators, functions: true }
}

/// A change, and the program with it.
type Mutant = (String, Program);

/// Every field and every edge, each changed by itself.
fn mutants(model: &Recorded) -> Vec<Mutant> {
    let original = &model.program;
    // A field that is added must be changed here, too: nothing is left out by `..`.
    let Program { class: _, base_class, axes, inputs, tensors, modules, steps, outputs, copies, buffers } =
        original;
    let mut all: Vec<Mutant> = Vec::new();
    let mut push = |what: String, change: &dyn Fn(&mut Program)| {
        let mut program = original.clone();
        change(&mut program);
        assert_ne!(program, *original, "{what} changes nothing");
        all.push((what, program));
    };
    push("the class".into(), &|p| p.class.push('2'));
    if base_class != &original.class {
        push("the class of the encoder".into(), &|p| p.base_class.push('2'));
    }
    push("the axes".into(), &|p| p.axes = if axes.len() == 2 { &["a", "b", "c"] } else { &["a", "b"] });
    for (at, Input { name: _ }) in inputs.iter().enumerate() {
        push(format!("the name of input {at}"), &|p| p.inputs[at].name = "other");
        push(format!("no input {at}"), &|p| {
            p.inputs.remove(at);
        });
    }
    for (at, Tensor { name, shape: _, in_base: _, old_name: _ }) in tensors.iter().enumerate() {
        push(format!("the name of {name}"), &|p| p.tensors[at].name.push('2'));
        push(format!("the shape of {name}"), &|p| p.tensors[at].shape[0] += 1);
        // Where there is no head, no prefix tells the two apart.
        if base_class != &original.class {
            push(format!("the side of {name}"), &|p| p.tensors[at].in_base ^= true);
        }
    }
    // What stands between modules is named after the steps, and how often a module runs shows only
    // where its outputs were recorded.
    let is_recorded = |path: &str| model.values.keys().any(|key| key.ends_with(&format!("/taps/{path}")));
    let is_told = |module: &Module| run_of(&module.path).1.is_none() || is_recorded(&module.path);
    let own = modules.iter().enumerate().filter(|(_, module)| !module.is_between() && is_told(module));
    for (at, Module { path, class, item, layer: _, output }) in own {
        let (of, run) = run_of(path);
        let other = run.map_or(format!("{of}2"), |run| format!("{of}2#{run}"));
        push(format!("the path of {path}"), &|p| p.modules[at].path.clone_from(&other));
        push(format!("no module {path}"), &|p| drop(p.modules.remove(at)));
        if model.values.keys().any(|key| key.ends_with(&format!("/taps/{path}"))) {
            push(format!("the output of {path}"), &|p| {
                p.modules[at].output = output.wrapping_sub(1).min(steps.len() - 1)
            });
        }
        if class.is_some() {
            push(format!("the class of {path}"), &|p| p.modules[at].class = Some("Other".into()));
            push(format!("no class of {path}"), &|p| p.modules[at].class = None);
        } else {
            push(format!("a class of {path}"), &|p| p.modules[at].class = Some("Other".into()));
        }
        if item.is_some() {
            push(format!("the number of {path}"), &|p| p.modules[at].item = Some(77));
        }
    }
    let has_key = model.values.keys().any(|key| key.ends_with(".key"));
    for (at, Step { op, inputs, module }) in steps.iter().enumerate() {
        let what = |part: &str| format!("{part} of step {at} in '{module}'");
        // The module of a mask or a reshape only says where the exporter counts its nodes.
        let is_first = matches!(run_of(module), (_, None | Some("0")));
        // A function's place is not told either.
        let is_function = !model.scopes.functions && matches!(op, Op::Activation { configured: false, .. });
        if is_first
            && !is_function
            && operator(&steps[at]).is_some_and(|(name, _)| model.scopes.tell_of(name))
        {
            push(what("the module"), &|p| p.steps[at].module.push('2'));
        }
        for (edge, wire) in inputs.iter().enumerate() {
            // Where no text has an id that pads, positions do not depend on what they are counted
            // by.
            let counts = matches!(op, Op::Positions { padding: Some(_), .. });
            let pads = model.values.contains_key("pads/input_ids");
            for other in others(original, at, *wire).into_iter().filter(|_| pads || !counts) {
                push(what(&format!("edge {edge} to {other:?}")), &|p| p.steps[at].inputs[edge] = other);
            }
            push(what(&format!("no edge {edge}")), &|p| {
                p.steps[at].inputs.remove(edge);
            });
        }
        for (change, other) in other_ops(original, op) {
            // Short texts have no distance that another end of the buckets would move.
            if change == "the farthest" && !model.values.contains_key("long/input_ids") {
                continue;
            }
            // A key's bias adds the same to all scores of a query: only what the key itself gives
            // shows it, which was recorded of the baseline.
            if change == "the bias" && original.role(at) == Some(Role::Key) && !has_key {
                continue;
            }
            push(what(&change), &|p| p.steps[at].op = other.clone());
        }
    }
    for (at, Output { name, step }) in outputs.iter().enumerate() {
        push(format!("the name of output {name}"), &|p| p.outputs[at].name = "other");
        push(format!("the step of output {name}"), &|p| p.outputs[at].step = step - 1);
        push(format!("no output {name}"), &|p| {
            p.outputs.remove(at);
        });
    }
    // What only some checkpoints have is changed in the tests below.
    for Copied { name: _, of: _, tied: _ } in copies {}
    for _ in buffers {}
    all
}

/// Other wires that could feed a step: of the same shape, so that only the numbers tell.
fn others(program: &Program, step: usize, wire: Wire) -> Vec<Wire> {
    let shapes = program.shapes();
    let shape = |wire: Wire| match wire {
        Wire::Input(_) => None,
        Wire::Step(step) => Some(shapes[step]),
    };
    let inputs = (0..program.inputs.len()).map(Wire::Input);
    let earlier = (0..step).map(Wire::Step);
    let alike = inputs.chain(earlier).filter(|&other| other != wire && shape(other) == shape(wire));
    // The nearest ones; all of them would be thousands.
    let mut alike: Vec<Wire> = alike.collect();
    alike.reverse();
    alike.truncate(3);
    alike
}

/// An op with each of its fields changed, one at a time.
fn other_ops(program: &Program, op: &Op) -> Vec<(String, Op)> {
    let another = |tensor: usize| {
        let shape = &program.tensors[tensor].shape;
        (0..program.tensors.len()).find(|&other| other != tensor && program.tensors[other].shape == *shape)
    };
    let mut all = Vec::new();
    let mut push = |what: &str, op: Option<Op>| all.extend(op.map(|op| (what.to_string(), op)));
    match *op {
        Op::Rows | Op::Unrows | Op::Mask | Op::Sum => {}
        Op::Embedding { table } => {
            push("the table", another(table).map(|table| Op::Embedding { table }));
            push("the kind", Some(Op::Positions { table, padding: None }));
        }
        Op::Positions { table, padding } => {
            push("the table", another(table).map(|table| Op::Positions { table, padding }));
            push("the padding", padding.map(|padding| Op::Positions { table, padding: Some(padding + 1) }));
            push("no padding", padding.map(|_| Op::Positions { table, padding: None }));
        }
        Op::RelativeBias { table, buckets, farthest } => {
            push("the table", another(table).map(|table| Op::RelativeBias { table, buckets, farthest }));
            push("the buckets", Some(Op::RelativeBias { table, buckets: buckets - 2, farthest }));
            push("the farthest", Some(Op::RelativeBias { table, buckets, farthest: farthest / 2 }));
        }
        Op::Linear { weight, bias } => {
            push("the weight", another(weight).map(|weight| Op::Linear { weight, bias }));
            push("the bias", another(bias).map(|bias| Op::Linear { weight, bias }));
        }
        Op::LayerNorm { weight, bias, eps } => {
            push("the weight", another(weight).map(|weight| Op::LayerNorm { weight, bias, eps }));
            push("the bias", another(bias).map(|bias| Op::LayerNorm { weight, bias, eps }));
            push("the eps", Some(Op::LayerNorm { weight, bias, eps: if eps < 1e-8 { 1e-5 } else { 1e-12 } }));
        }
        Op::Attention { heads } => {
            push("the heads", Some(Op::Attention { heads: if heads == 1 { 2 } else { 1 } }))
        }
        Op::Activation { function, configured } => {
            // Both write the tanh form, one with √(2/π) cut to ten digits: at most 4e-12 apart,
            // which only large arguments show.
            let tanh_forms = [Activation::GeluTanh, Activation::GeluFast];
            let alike = |other: &Activation| tanh_forms.contains(other) && tanh_forms.contains(&function);
            for other in Activation::ALL.into_iter().filter(|other| *other != function && !alike(other)) {
                push(
                    &format!("{other} for {function}"),
                    Some(Op::Activation { function: other, configured }),
                );
            }
        }
        Op::Token { at } => push("the token", Some(Op::Token { at: at + 1 })),
        Op::Feature { at } => push("the feature", Some(Op::Feature { at: 1 - at })),
    }
    all
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
    let base = |family: &str| match family {
        "electra" | "distilbert" | "mpnet" | "albert" => Some(family.to_string()),
        "roberta" | "xlm-roberta" | "camembert" => Some("roberta".to_string()),
        // Not described yet.
        _ => None,
    };
    let known = modules.iter().filter(|(name, _)| !name.ends_with("/stiff"));
    let of = |(name, modules): (&String, &BTreeMap<String, String>)| {
        let base = base(name.split('/').next()?)?;
        Some(Recorded::open(&format!("families/{name}"), named_modules(modules, &base)))
    };
    known.filter_map(of).collect()
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
