//! From the messages of a file to a [`Model`].

mod attribute;
mod names;
mod scopes;
mod sparse;
mod tensor;

pub use tensor::dtype_of;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use bytes::Bytes;
use engine::memory::Budget;
use engine::{Dim, ValueSpec, is_stream, read_file, shown_path};
use indexmap::IndexMap;
use indexmap::map::Entry;
use prost::Message;

use crate::external::ExternalFiles;
use crate::model::{canonical_domain, shown_domain};
use crate::proto::{
    AttributeProto, DimensionValue, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, StringStringEntryProto, TensorProto, TypeValue, ValueInfoProto,
};
use crate::sniff::sniff;
use crate::weigh::{MODEL, TENSOR, weigh};
use crate::{Attribute, AttributeFault, Function, Graph, GraphError, Model, Node, NotOnnx, Tensor};
use names::NodeNames;

/// The attribute of Constant that is a sparse tensor. Made dense, it is the attribute `value`.
const SPARSE_VALUE: &str = "sparse_value";

/// The versions of the file format that can be read: from the first that imports operator sets to the newest there is.
pub const IR_VERSIONS: RangeInclusive<i64> = 3..=14;

impl Model {
    /// Reads and checks an ONNX file. The file stays mapped as long as one of its tensors lives;
    /// files with external data are looked for beside `path` as it is given, and mapped likewise. A
    /// pipe, and `-` for standard input, are read to their end; nothing lies beside them.
    ///
    /// # Errors
    /// If the file cannot be read, is not ONNX, would take more memory than
    /// [`engine::memory::allowed_memory`] says, or does not pass [`Model::check`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GraphError> {
        let path = path.as_ref();
        let is_file = !is_stream(path).unwrap_or(false);
        let bytes = read_file(path)?;
        let external = if is_file { ExternalFiles::beside(path) } else { ExternalFiles::none() };
        read(&shown_path(path), bytes, external)
    }

    /// Reads and checks an ONNX file's bytes, which the tensors share.
    ///
    /// # Errors
    /// If the bytes are not ONNX, would take more memory than they may, do not pass
    /// [`Model::check`], or tell of external data: there is no folder to look in.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, GraphError> {
        read("the byte buffer", bytes, ExternalFiles::none())
    }
}

impl Tensor {
    /// Reads a file that holds one tensor, such as `input_0.pb` of ONNX's test folders, and the tensor's name, which may be empty.
    ///
    /// # Errors
    /// If the file cannot be read, is no tensor, or holds less or more than its shape and dtype need.
    pub fn open(path: impl AsRef<Path>) -> Result<(String, Self), GraphError> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let bytes = engine::map_file(path)?;
        weigh(&bytes, &TENSOR, &mut Budget::of(&file, bytes.len() as u64))?;
        let proto = TensorProto::decode(bytes)
            .map_err(|source| GraphError::Damaged { file: file.clone(), source })?;
        let name = proto.name.clone();
        Ok((name, tensor::read(&file, proto, &mut ExternalFiles::beside(path))?))
    }
}

/// How much memory a model will take when it is read from these bytes, which it shares, as far as
/// that can be told without building it. [`Model::open`] refuses a file for which this is more than
/// [`engine::memory::allowed_memory`].
///
/// ```
/// // An IR version, and a graph with a node with a million empty attributes, of two bytes each:
/// // in memory they are some hundred megabytes.
/// let field = |number: u8, bytes: &[u8]| {
///     let length = bytes.len();
///     let length = (0..4).map(|at| (length >> (7 * at)) as u8 & 0x7f | if at < 3 { 0x80 } else { 0 });
///     [vec![number << 3 | 2], length.collect(), bytes.to_vec()].concat()
/// };
/// let node = field(1, &b"\x2a\x00".repeat(1_000_000));
/// let bytes = [b"\x08\x08".to_vec(), field(7, &node)].concat();
/// assert!(onnx_graph::memory_of(&bytes) > 300_000_000);
/// let error = onnx_graph::Model::from_bytes(bytes.into()).unwrap_err().to_string();
/// assert!(error.starts_with("the byte buffer would make more than 143 MiB of memory"), "{error}");
/// ```
pub fn memory_of(model: &[u8]) -> u64 {
    let mut budget = Budget::unlimited();
    // It cannot be exceeded.
    let _ = weigh(model, &MODEL, &mut budget);
    budget.spent()
}

fn read(file: &str, bytes: Bytes, external: ExternalFiles) -> Result<Model, GraphError> {
    sniff(file, &bytes)?;
    let mut budget = Budget::of(file, bytes.len() as u64);
    weigh(&bytes, &MODEL, &mut budget)?;
    let proto =
        ModelProto::decode(bytes).map_err(|source| GraphError::Damaged { file: file.into(), source })?;
    if proto.ir_version == 0 {
        return Err(GraphError::NotOnnx { file: file.into(), found: NotOnnx::Unknown });
    }
    if !IR_VERSIONS.contains(&proto.ir_version) {
        return Err(GraphError::IrVersion { file: file.into(), version: proto.ir_version });
    }
    let graph = proto.graph.ok_or_else(|| GraphError::NoGraph { file: file.into() })?;
    let mut reader = Reader { external, names: NodeNames::default(), budget };
    let model = Model {
        ir_version: proto.ir_version,
        opsets: opsets(proto.opset_import)?,
        producer: proto.producer_name,
        producer_version: proto.producer_version,
        metadata: properties(proto.metadata_props),
        graph: reader.body(graph)?,
        functions: proto
            .functions
            .into_iter()
            .map(|function| reader.function(function))
            .collect::<Result<_, _>>()?,
    };
    model.check()?;
    Ok(model)
}

/// Reads the parts of a model. Recursion is bounded by prost, which decodes at most 100 nested messages.
struct Reader {
    external: ExternalFiles,
    names: NodeNames,
    /// What sparse tensors may still make of memory.
    budget: Budget,
}

impl Reader {
    /// The main graph.
    fn body(&mut self, proto: GraphProto) -> Result<Graph, GraphError> {
        self.names = NodeNames::taken_by(&proto.node);
        let mut graph = self.graph(proto)?;
        let outer = graph.inputs.iter().map(|spec| &spec.name).chain(graph.initializers.keys());
        scopes::give_own_names(outer, &mut graph.nodes);
        Ok(graph)
    }

    fn graph(&mut self, proto: GraphProto) -> Result<Graph, GraphError> {
        let mut initializers = IndexMap::with_capacity(proto.initializer.len());
        let mut insert = |name: String, tensor: Tensor| {
            let definer = || "an initializer".to_string();
            match initializers.entry(name) {
                Entry::Occupied(entry) => Err(GraphError::DuplicateValue {
                    value: entry.key().clone(),
                    first: definer(),
                    second: definer(),
                }),
                Entry::Vacant(entry) => {
                    entry.insert(tensor);
                    Ok(())
                }
            }
        };
        for mut initializer in proto.initializer {
            let name = std::mem::take(&mut initializer.name);
            let tensor = self.tensor(&format!("initializer '{name}'"), initializer)?;
            insert(name, tensor)?;
        }
        for mut sparse in proto.sparse_initializer {
            // The name is that of its values.
            let name = sparse.values.as_mut().map(|values| std::mem::take(&mut values.name));
            let name = name.unwrap_or_default();
            let tensor = self.sparse(&format!("the sparse initializer '{name}'"), sparse)?;
            insert(name, tensor)?;
        }
        let mut inputs = specs("input", proto.input)?;
        for input in &mut inputs {
            input.optional = initializers.contains_key(&input.name);
        }
        Ok(Graph {
            name: proto.name,
            inputs,
            outputs: specs("output", proto.output)?,
            initializers,
            nodes: self.nodes(proto.node)?,
            value_info: hints(proto.value_info),
            metadata: properties(proto.metadata_props),
            doc: proto.doc_string,
        })
    }

    fn function(&mut self, proto: FunctionProto) -> Result<Function, GraphError> {
        self.names = NodeNames::taken_by(&proto.node);
        let mut function = Function {
            domain: canonical_domain(&proto.domain).into(),
            name: proto.name,
            overload: proto.overload,
            inputs: proto.input,
            outputs: proto.output,
            attributes: proto.attribute,
            value_info: hints(proto.value_info),
            metadata: properties(proto.metadata_props),
            doc: proto.doc_string,
            ..Function::default()
        };
        let label = function.label();
        let fill = || -> Result<(), GraphError> {
            function.opsets = opsets(proto.opset_import)?;
            function.defaults = self.attributes("the function", proto.attribute_proto)?;
            function.nodes = self.nodes(proto.node)?;
            scopes::give_own_names(function.inputs.iter(), &mut function.nodes);
            Ok(())
        };
        fill().map_err(|source| GraphError::InFunction { function: label, source: Box::new(source) })?;
        Ok(function)
    }

    fn nodes(&mut self, protos: Vec<NodeProto>) -> Result<Vec<Node>, GraphError> {
        protos.into_iter().enumerate().map(|(index, proto)| self.node(index, proto)).collect()
    }

    fn node(&mut self, index: usize, proto: NodeProto) -> Result<Node, GraphError> {
        if proto.op_type.is_empty() {
            let node = if proto.name.is_empty() { format!("#{index}") } else { proto.name };
            return Err(GraphError::NoOperator { node });
        }
        let mut node = Node {
            name: self.names.name(&proto.name, &proto.op_type, index),
            op: proto.op_type,
            domain: canonical_domain(&proto.domain).into(),
            overload: proto.overload,
            inputs: proto.input,
            outputs: proto.output,
            attributes: IndexMap::new(),
            metadata: properties(proto.metadata_props),
            doc: proto.doc_string,
        };
        node.attributes = self.attributes(&node.label(), proto.attribute)?;
        if (node.op.as_str(), node.domain.as_str()) == ("Constant", "")
            && let Some(value) = node.attributes.shift_remove(SPARSE_VALUE)
            && node.attributes.insert("value".into(), value).is_some()
        {
            let fault = AttributeFault::Twice;
            return Err(GraphError::Attribute { owner: node.label(), attribute: "value".into(), fault });
        }
        Ok(node)
    }

    fn attributes(
        &mut self,
        owner: &str,
        protos: Vec<AttributeProto>,
    ) -> Result<IndexMap<String, Attribute>, GraphError> {
        let mut attributes = IndexMap::with_capacity(protos.len());
        for mut proto in protos {
            let name = std::mem::take(&mut proto.name);
            if name.is_empty() {
                return Err(GraphError::NoName { what: format!("an attribute of {owner}") });
            }
            let fault = |attribute: &str, fault| GraphError::Attribute {
                owner: owner.into(),
                attribute: attribute.into(),
                fault,
            };
            if attributes.contains_key(&name) {
                return Err(fault(&name, AttributeFault::Twice));
            }
            let kind = attribute::kind(&proto).map_err(|error| fault(&name, error))?;
            let value = self.attribute(owner, &name, kind, proto)?;
            attributes.insert(name, value);
        }
        Ok(attributes)
    }

    fn tensor(&mut self, label: &str, proto: TensorProto) -> Result<Tensor, GraphError> {
        tensor::read(label, proto, &mut self.external)
    }

    fn sparse(&mut self, label: &str, proto: SparseTensorProto) -> Result<Tensor, GraphError> {
        sparse::read(label, proto, &mut self.external, &mut self.budget)
    }
}

fn opsets(protos: Vec<OperatorSetIdProto>) -> Result<BTreeMap<String, i64>, GraphError> {
    let mut opsets = BTreeMap::new();
    for proto in protos {
        let domain = canonical_domain(&proto.domain).to_string();
        match opsets.get(&domain) {
            Some(&first) if first != proto.version => {
                let domain = shown_domain(&domain);
                return Err(GraphError::OpsetTwice { domain, first, second: proto.version });
            }
            _ => opsets.insert(domain, proto.version),
        };
    }
    Ok(opsets)
}

fn properties(entries: Vec<StringStringEntryProto>) -> BTreeMap<String, String> {
    entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

/// Inputs or outputs, which must be tensors of a known type.
fn specs(what: &str, protos: Vec<ValueInfoProto>) -> Result<Vec<ValueSpec>, GraphError> {
    protos.into_iter().map(|proto| spec(what, proto)).collect()
}

/// What is said about values in between, as far as a [`ValueSpec`] can hold it.
fn hints(protos: Vec<ValueInfoProto>) -> IndexMap<String, ValueSpec> {
    protos
        .into_iter()
        .filter_map(|proto| spec("value", proto).ok())
        .map(|spec| (spec.name.clone(), spec))
        .collect()
}

fn spec(what: &str, proto: ValueInfoProto) -> Result<ValueSpec, GraphError> {
    let name = proto.name;
    let label = || format!("{what} '{name}'");
    let not_a_tensor = |kind| Err(GraphError::NotATensor { value: label(), kind });
    let tensor = match proto.r#type.and_then(|r#type| r#type.value) {
        Some(TypeValue::TensorType(tensor)) => tensor,
        Some(TypeValue::SequenceType(_)) => return not_a_tensor("a sequence"),
        Some(TypeValue::MapType(_)) => return not_a_tensor("a map"),
        Some(TypeValue::OptionalType(_)) => return not_a_tensor("an optional value"),
        Some(TypeValue::SparseTensorType(_)) => return not_a_tensor("a sparse tensor"),
        Some(TypeValue::OpaqueType(_)) => return not_a_tensor("an opaque value"),
        None => return Err(GraphError::NoType { value: label() }),
    };
    let dtype =
        tensor::dtype(tensor.elem_type).map_err(|dtype| GraphError::ElementType { value: label(), dtype })?;
    let dim = |dim| match dim {
        Some(DimensionValue::DimValue(size)) => match usize::try_from(size) {
            Ok(size) => Ok(Dim::Fixed(size)),
            // Exporters of before dim_param was common wrote −1 for any size.
            Err(_) if size == -1 => Ok(Dim::Any),
            Err(_) => Err(GraphError::Dimension { value: label(), dim: size }),
        },
        Some(DimensionValue::DimParam(symbol)) if !symbol.is_empty() => Ok(Dim::Symbol(symbol)),
        Some(DimensionValue::DimParam(_)) | None => Ok(Dim::Any),
    };
    let shape = tensor
        .shape
        .map(|shape| shape.dim.into_iter().map(|proto| dim(proto.value)).collect::<Result<_, _>>())
        .transpose()?;
    Ok(ValueSpec { name, dtype, shape, optional: false })
}

#[cfg(test)]
mod tests;
