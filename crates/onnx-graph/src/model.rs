use std::collections::BTreeMap;

use engine::ValueSpec;
use indexmap::IndexMap;

use crate::proto::AttributeType;
use crate::{GraphError, Tensor};

/// A model: a graph, and what its operators mean.
///
/// [`Model::open`] and [`Model::from_bytes`] return only models that pass [`Model::check`]; one that was built or changed
/// should be checked again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    /// The version of the file format.
    pub ir_version: i64,
    /// The version of each domain's operators. ONNX's own domain is `""` here and everywhere, never its alias `ai.onnx`.
    pub opsets: BTreeMap<String, i64>,
    /// The program that wrote it, such as `pytorch`.
    pub producer: String,
    /// That program's version.
    pub producer_version: String,
    /// Free properties.
    pub metadata: BTreeMap<String, String>,
    /// The graph.
    pub graph: Graph,
    /// Operators that the model brings along, each a small graph. The engine writes them out where they are called.
    pub functions: Vec<Function>,
}

impl Model {
    /// The version of a domain's operators. `""` and `ai.onnx` are the same domain.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        self.opsets.get(canonical_domain(domain)).copied()
    }

    /// The function that a node calls, if it calls one. A function goes before an operator of the same name.
    pub fn function(&self, node: &Node) -> Option<&Function> {
        self.functions.iter().find(|function| {
            function.name == node.op && function.domain == node.domain && function.overload == node.overload
        })
    }
}

/// The name under which a domain is kept: `ai.onnx` is another spelling of `""`.
pub(crate) fn canonical_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// A domain as messages show it.
pub(crate) fn shown_domain(domain: &str) -> String {
    if domain.is_empty() { "ai.onnx".into() } else { domain.into() }
}

/// The main graph of a model, or the body of an `If`, `Loop` or `Scan`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    /// Its name.
    pub name: String,
    /// What it takes. An input that also has an initializer is optional: the initializer is its default.
    pub inputs: Vec<ValueSpec>,
    /// What it gives.
    pub outputs: Vec<ValueSpec>,
    /// Its constants.
    pub initializers: IndexMap<String, Tensor>,
    /// Its nodes, each after those it depends on.
    pub nodes: Vec<Node>,
    /// What the file says about values in between. It is a hint: nobody has checked it, and entries that a [`ValueSpec`]
    /// cannot hold (without a dtype, or no tensors) are left out.
    pub value_info: IndexMap<String, ValueSpec>,
    /// Free properties.
    pub metadata: BTreeMap<String, String>,
    /// What it is for.
    pub doc: String,
}

/// One call of an operator or function.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Its name, which no other node of the graph or its subgraphs has. Reading gives one, such as `MatMul_17`, where the file
    /// has none, and adds a number where the file has one twice.
    pub name: String,
    /// The operator: `MatMul`.
    pub op: String,
    /// The operator's domain: `""` for ONNX's own.
    pub domain: String,
    /// Which of several functions of the same name is meant.
    pub overload: String,
    /// The values it takes; `""` where an optional one is left out.
    pub inputs: Vec<String>,
    /// The values it gives; `""` where one is not wanted.
    pub outputs: Vec<String>,
    /// Its attributes.
    pub attributes: IndexMap<String, Attribute>,
    /// Free properties. PyTorch's exporter leaves the module path of a node here.
    pub metadata: BTreeMap<String, String>,
    /// What it is for.
    pub doc: String,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Attribute {
    Int(i64),
    Float(f32),
    String(String),
    Tensor(Tensor),
    Graph(Box<Graph>),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<String>),
    Tensors(Vec<Tensor>),
    Graphs(Vec<Graph>),
    /// Within a function: the value that the call gives to the function's attribute `name`; left out if the call leaves it out.
    Reference {
        name: String,
        /// The type of the value, as the file declares it.
        kind: AttributeType,
    },
}

impl Attribute {
    /// What it is; for a reference, what that refers to.
    pub(crate) fn kind(&self) -> AttributeType {
        match self {
            Attribute::Int(_) => AttributeType::Int,
            Attribute::Float(_) => AttributeType::Float,
            Attribute::String(_) => AttributeType::String,
            Attribute::Tensor(_) => AttributeType::Tensor,
            Attribute::Graph(_) => AttributeType::Graph,
            Attribute::Ints(_) => AttributeType::Ints,
            Attribute::Floats(_) => AttributeType::Floats,
            Attribute::Strings(_) => AttributeType::Strings,
            Attribute::Tensors(_) => AttributeType::Tensors,
            Attribute::Graphs(_) => AttributeType::Graphs,
            Attribute::Reference { kind, .. } => *kind,
        }
    }
}

/// A type of attribute, for messages.
pub(crate) fn kind_name(kind: AttributeType) -> &'static str {
    match kind {
        AttributeType::Undefined => "nothing",
        AttributeType::Float => "a float",
        AttributeType::Int => "an int",
        AttributeType::String => "a string",
        AttributeType::Tensor => "a tensor",
        AttributeType::Graph => "a graph",
        AttributeType::SparseTensor => "a sparse tensor",
        AttributeType::TypeProto => "a type",
        AttributeType::Floats => "a list of floats",
        AttributeType::Ints => "a list of ints",
        AttributeType::Strings => "a list of strings",
        AttributeType::Tensors => "a list of tensors",
        AttributeType::Graphs => "a list of graphs",
        AttributeType::SparseTensors => "a list of sparse tensors",
        AttributeType::TypeProtos => "a list of types",
    }
}

/// Attributes by name and type.
macro_rules! getters {
    ($($name:ident, $article:literal: $kind:ident($value:ident) => $found:expr, $of:ty;)*) => { $(
        #[doc = concat!($article, " ", stringify!($name), ".")]
        ///
        /// # Errors
        /// If the attribute is of another type.
        pub fn $name(&self, name: &str) -> Result<Option<$of>, GraphError> {
            self.get(name, AttributeType::$kind, |attribute| match attribute {
                Attribute::$kind($value) => Some($found),
                _ => None,
            })
        }
    )* };
}

/// Attributes by name and type: `None` if there is no such attribute, an error if it is of another type.
impl Node {
    getters! {
        int, "An": Int(i) => *i, i64;
        float, "A": Float(f) => *f, f32;
        string, "A": String(s) => s.as_str(), &str;
        tensor, "A": Tensor(tensor) => tensor, &Tensor;
        graph, "A": Graph(graph) => graph.as_ref(), &Graph;
        ints, "A list of": Ints(ints) => ints.as_slice(), &[i64];
        floats, "A list of": Floats(floats) => floats.as_slice(), &[f32];
        strings, "A list of": Strings(strings) => strings.as_slice(), &[String];
    }

    fn get<'a, T>(
        &'a self,
        name: &str,
        expected: AttributeType,
        pick: impl FnOnce(&'a Attribute) -> Option<T>,
    ) -> Result<Option<T>, GraphError> {
        let Some(attribute) = self.attributes.get(name) else { return Ok(None) };
        let wrong_type = || GraphError::AttributeType {
            node: self.name.clone(),
            op: self.op.clone(),
            attribute: name.into(),
            expected: kind_name(expected),
            found: match attribute {
                Attribute::Reference { .. } => "a reference to an attribute of the function",
                _ => kind_name(attribute.kind()),
            },
        };
        pick(attribute).map(Some).ok_or_else(wrong_type)
    }

    /// What messages call it.
    pub(crate) fn label(&self) -> String {
        format!("node '{}' ({})", self.name, self.op)
    }
}

/// An operator that the model defines by a graph of its own. It sees its inputs and attributes, and nothing of the graph that calls it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Function {
    /// Its domain.
    pub domain: String,
    /// Its name.
    pub name: String,
    /// Tells functions of the same name apart.
    pub overload: String,
    /// Its inputs. A call may leave out the last ones, or give `""`.
    pub inputs: Vec<String>,
    /// Its outputs.
    pub outputs: Vec<String>,
    /// Its attributes without a default. A call may leave them out.
    pub attributes: Vec<String>,
    /// Its attributes with a default.
    pub defaults: IndexMap<String, Attribute>,
    /// The version of each domain's operators within the function, which need not be the model's.
    pub opsets: BTreeMap<String, i64>,
    /// Its nodes, each after those it depends on. Their names are unique within the function.
    pub nodes: Vec<Node>,
    /// What the file says about its values; see [`Graph::value_info`].
    pub value_info: IndexMap<String, ValueSpec>,
    /// Free properties.
    pub metadata: BTreeMap<String, String>,
    /// What it is for.
    pub doc: String,
}

impl Function {
    /// What messages call it.
    pub(crate) fn label(&self) -> String {
        function_label(&self.domain, &self.name, &self.overload)
    }
}

/// `domain::name`, and the overload if there is one.
pub(crate) fn function_label(domain: &str, name: &str, overload: &str) -> String {
    let colon = if overload.is_empty() { "" } else { ":" };
    format!("{domain}::{name}{colon}{overload}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_not_converted_silently() {
        let node = Node {
            name: "sum".into(),
            op: "ReduceSum".into(),
            attributes: [("axes".to_string(), Attribute::Ints(vec![-1]))].into(),
            ..Node::default()
        };
        assert_eq!(node.ints("axes").unwrap(), Some(&[-1][..]));
        assert_eq!(node.int("keepdims").unwrap(), None);
        assert_eq!(
            node.int("axes").unwrap_err().to_string(),
            "attribute 'axes' of node 'sum' (ReduceSum) must be an int, found a list of ints"
        );
    }

    #[test]
    fn the_alias_of_onnx_is_known() {
        let model = Model { opsets: [(String::new(), 17)].into(), ..Model::default() };
        assert_eq!((model.opset("ai.onnx"), model.opset("")), (Some(17), Some(17)));
        assert_eq!(model.opset("com.microsoft"), None);
    }
}
