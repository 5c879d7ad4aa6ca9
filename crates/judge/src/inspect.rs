//! What is in a graph: opset, inputs and outputs, operators, and the modules that its nodes came from, each with how many nodes and bytes it has.

use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::IndexMap;
use onnx_graph::{Model, Node};
use serde::Serialize;

/// What is in a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The version of the file format.
    pub ir_version: i64,
    /// The version of each domain's operators; ONNX's own domain is `""`.
    pub opsets: BTreeMap<String, i64>,
    /// The program that wrote it, and its version.
    pub producer: String,
    /// What it takes: `input_ids i64[batch, sequence]`.
    pub inputs: Vec<String>,
    /// What it gives.
    pub outputs: Vec<String>,
    /// How many nodes there are of each operator, those of subgraphs and functions left out; the most frequent first.
    pub operators: IndexMap<String, usize>,
    /// The modules, each before those in it, in the order of execution. The first is the whole model.
    pub modules: Vec<Module>,
    /// The number of initializers.
    pub initializers: usize,
    /// Nodes that nothing says the module of. They are counted to the whole model.
    pub untagged: usize,
}

/// A module of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Its path: `encoder.layer.0.attention.self`; empty for the whole model.
    pub path: String,
    /// Its own name, the last part of the path: `self`; `layer.0` for one of a list.
    pub name: String,
    /// In how many others it is.
    pub depth: usize,
    /// How many nodes are of it and of those in it.
    pub nodes: usize,
    /// How many bytes their initializers take. One that several nodes use belongs to the first of them.
    pub bytes: usize,
}

#[derive(Default)]
struct Tree {
    parts: IndexMap<String, Tree>,
    nodes: usize,
    bytes: usize,
}

/// Looks at a graph. Where nodes say what module they are of — in the property `module`, in PyTorch's `pkg.torch.onnx.name_scopes`, or in a name such as
/// `/encoder/layer.0/attention/self/MatMul` — that is taken for true.
pub fn inspect(model: &Model) -> Inspection {
    let mut root = Tree::default();
    let mut operators: HashMap<String, usize> = HashMap::new();
    let mut seen = HashSet::new();
    let mut untagged = 0;
    for node in &model.graph.nodes {
        let bytes = node
            .inputs
            .iter()
            .filter_map(|name| model.graph.initializers.get(name).filter(|_| seen.insert(name.as_str())))
            .map(|tensor| tensor.bytes.len())
            .sum();
        let path = module_path(node);
        untagged += usize::from(path.is_none());
        root.add(&path.unwrap_or_default(), bytes);
        let domain = if node.domain.is_empty() { "" } else { &format!("{}.", node.domain) };
        *operators.entry(format!("{domain}{}", node.op)).or_default() += 1;
    }
    let mut operators: Vec<(String, usize)> = operators.into_iter().collect();
    operators.sort_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then_with(|| a.cmp(b)));
    let mut modules = Vec::new();
    root.list("", "", 0, &mut modules);
    let shown = |specs: &[engine::ValueSpec]| specs.iter().map(ToString::to_string).collect();
    Inspection {
        ir_version: model.ir_version,
        opsets: model.opsets.clone(),
        producer: format!("{} {}", model.producer, model.producer_version).trim().into(),
        inputs: shown(&model.graph.inputs),
        outputs: shown(&model.graph.outputs),
        operators: operators.into_iter().collect(),
        modules,
        initializers: model.graph.initializers.len(),
        untagged,
    }
}

impl Tree {
    fn add(&mut self, path: &[String], bytes: usize) {
        let mut tree = self;
        tree.nodes += 1;
        tree.bytes += bytes;
        for part in path {
            tree = tree.parts.entry(part.clone()).or_default();
            tree.nodes += 1;
            tree.bytes += bytes;
        }
    }

    fn list(&self, above: &str, name: &str, depth: usize, modules: &mut Vec<Module>) {
        let path = if above.is_empty() { name.to_string() } else { format!("{above}.{name}") };
        modules.push(Module {
            path: path.clone(),
            name: name.into(),
            depth,
            nodes: self.nodes,
            bytes: self.bytes,
        });
        for (name, part) in &self.parts {
            part.list(&path, name, depth + 1, modules);
        }
    }
}

/// The deepest path that is believed: it comes from a file, and is followed part by part.
const DEEPEST: usize = 64;

/// The module of a node, part by part, where one says it.
fn module_path(node: &Node) -> Option<Vec<String>> {
    let parts = if let Some(path) = node.metadata.get("module") {
        parts_of(path)
    } else if let Some(scopes) = node.metadata.get("pkg.torch.onnx.name_scopes") {
        // ['', 'encoder', 'encoder.layer.0', 'matmul']: the last one is the node itself.
        let mut scopes =
            scopes.trim_matches(['[', ']']).rsplit(',').map(|scope| scope.trim().trim_matches('\''));
        parts_of(scopes.nth(1)?)
    } else {
        let (path, _) = node.name.strip_prefix('/')?.rsplit_once('/')?;
        path.split('/').map(String::from).collect()
    };
    Some(parts.into_iter().take(DEEPEST).collect())
}

/// `encoder.layer.0.output` as `encoder`, `layer.0`, `output`: a list and the number in it stay together.
fn parts_of(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for word in path.split('.').filter(|word| !word.is_empty()) {
        match parts.last_mut() {
            Some(last) if word.bytes().all(|byte| byte.is_ascii_digit()) => {
                last.push('.');
                last.push_str(word);
            }
            _ => parts.push(word.into()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use engine::DType;
    use onnx_graph::{Graph, Tensor};

    use super::*;

    fn node(name: &str, op: &str, weight: &str, metadata: &[(&str, &str)]) -> Node {
        Node {
            name: name.into(),
            op: op.into(),
            inputs: vec!["x".into(), weight.into()],
            metadata: metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            ..Node::default()
        }
    }

    #[test]
    fn nodes_and_bytes_are_counted_to_every_module_they_are_in() {
        let tensor = |bytes: usize| Tensor::new(DType::U8, [bytes], vec![0; bytes]).unwrap();
        let scopes = "['', 'encoder', 'encoder.layer.10', 'encoder.layer.10.output', 'matmul_3']";
        let model = Model {
            ir_version: 8,
            graph: Graph {
                initializers: [("a".to_string(), tensor(3)), ("b".to_string(), tensor(5))].into(),
                nodes: vec![
                    node("one", "MatMul", "a", &[("module", "encoder.layer.10.output")]),
                    node("two", "MatMul", "b", &[("pkg.torch.onnx.name_scopes", scopes)]),
                    // The first that used it has it.
                    node("/encoder/layer.10/Add", "Add", "a", &[]),
                    node("Add_7", "Add", "", &[]),
                    node("Mul_8", "Mul", "", &[]),
                ],
                ..Graph::default()
            },
            ..Model::default()
        };
        let inspection = inspect(&model);
        let modules: Vec<_> = inspection
            .modules
            .iter()
            .map(|module| {
                (module.path.as_str(), module.name.as_str(), module.depth, module.nodes, module.bytes)
            })
            .collect();
        assert_eq!(
            modules,
            [
                ("", "", 0, 5, 8),
                ("encoder", "encoder", 1, 3, 8),
                ("encoder.layer.10", "layer.10", 2, 3, 8),
                ("encoder.layer.10.output", "output", 3, 2, 8),
            ]
        );
        assert_eq!(inspection.untagged, 2);
        let operators: Vec<_> =
            inspection.operators.iter().map(|(op, &count)| (op.as_str(), count)).collect();
        assert_eq!(operators, [("Add", 2), ("MatMul", 2), ("Mul", 1)]);
    }
}
