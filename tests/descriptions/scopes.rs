//! What PyTorch says of its modules and operators, as it was recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use architecture::{Activation, Op, Step};
use onnx_graph::Model as Graph;

/// What torch calls a step, and how often it does it; nothing for steps that have no operator of
/// their own.
pub(super) fn operator(step: &Step) -> Option<(&'static str, usize)> {
    Some(match step.op {
        Op::Embedding { .. } | Op::Positions { .. } | Op::RelativeBias { .. } => ("embedding", 1),
        Op::Linear { .. } => ("linear", 1),
        Op::LayerNorm { .. } => ("layer_norm", 1),
        Op::Attention { .. } => (ATTENTION, 1),
        Op::Activation { function: Activation::Tanh, .. } => ("tanh", 1),
        Op::Activation { .. } => ("gelu", 1),
        Op::Sum => ("add", step.inputs.len() - 1),
        Op::Token { .. } => ("select", 1),
        Op::Rows
        | Op::Unrows
        | Op::Mask { .. }
        | Op::Angles { .. }
        | Op::Rotate { .. }
        | Op::Product
        | Op::Part { .. }
        | Op::Mean
        | Op::FirstShown
        | Op::Feature { .. } => return None,
    })
}

/// What attention is in such an export.
const ATTENTION: &str = "scaled_dot_product_attention";

/// What PyTorch says of its modules.
pub(super) struct Scopes {
    /// The classes on the way to each.
    pub(super) classes: BTreeMap<String, String>,
    /// How often each of torch's operators stands in each.
    pub(super) operators: BTreeMap<(String, &'static str), usize>,
    /// Whether that goes for activations that the architecture chooses, too: they may be modules or
    /// functions.
    pub(super) functions: bool,
}

impl Scopes {
    /// Whether it says where an operator stands.
    pub(super) fn tell_of(&self, operator: &str) -> bool {
        self.operators.keys().any(|(_, known)| *known == operator)
    }
}

/// PyTorch's own name for a module, without the encoder's prefix; of an activation's, which holds
/// nothing and is here the end of what is around it, that of what is around it.
fn path(name: &str, prefix: &str) -> String {
    let inner = name.strip_prefix(prefix).unwrap_or(name).trim_start_matches('.');
    let ends = [".intermediate_act_fn", ".transform_act_fn", ".act_fn", ".act", ".activation"];
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
pub(super) fn named_modules(modules: &BTreeMap<String, String>, base: &str) -> Scopes {
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
            // nomic-bert's others are functions.
            "torch.GELU" => continue,
            _ if ["_act_fn", ".act_fn", ".act"].iter().any(|end| name.ends_with(end)) => Some("gelu"),
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
pub(super) fn scopes(graph: &Path) -> Scopes {
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
