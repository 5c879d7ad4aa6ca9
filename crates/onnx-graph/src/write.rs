//! From a [`Model`] to the bytes of a file.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use engine::{DType, Dim, ValueSpec};
use prost::Message;

use crate::proto::{
    AttributeProto, DataType, Dimension, DimensionValue, FunctionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorType, TypeProto,
    TypeValue, ValueInfoProto,
};
use crate::{Attribute, Function, Graph, GraphError, Model, Node, Tensor};

mod file;

pub use file::{External, Place};

impl Model {
    /// This model as protobuf messages. Tensors share their bytes with it.
    pub fn to_proto(&self) -> ModelProto {
        ModelProto {
            ir_version: self.ir_version,
            opset_import: opsets(&self.opsets),
            producer_name: self.producer.clone(),
            producer_version: self.producer_version.clone(),
            graph: Some(graph(&self.graph)),
            metadata_props: properties(&self.metadata),
            functions: self.functions.iter().map(function).collect(),
            ..ModelProto::default()
        }
    }

    /// This model as the bytes of an ONNX file, weights included.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    /// Writes this model to one file, weights included. They are not copied on the way. A file that is there already is replaced only once the new one is
    /// complete, so a model may be saved over the very file that its tensors are mapped from.
    ///
    /// # Errors
    /// If the model is larger than 2 GiB, or the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), GraphError> {
        self.save_pointing(path, |_| None)
    }
}

impl Tensor {
    /// Writes this tensor under that name to a file of its own, such as `input_0.pb` of ONNX's test folders: the inverse of [`Tensor::open`]. A
    /// file that is there already is replaced only once the new one is complete.
    ///
    /// # Errors
    /// If the tensor is larger than 2 GiB, or the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>, name: &str) -> Result<(), GraphError> {
        file::save(path.as_ref(), &named(name, self))
    }
}

fn opsets(opsets: &BTreeMap<String, i64>) -> Vec<OperatorSetIdProto> {
    opsets.iter().map(|(domain, &version)| OperatorSetIdProto { domain: domain.clone(), version }).collect()
}

fn properties(properties: &BTreeMap<String, String>) -> Vec<StringStringEntryProto> {
    properties
        .iter()
        .map(|(key, value)| StringStringEntryProto { key: key.clone(), value: value.clone() })
        .collect()
}

fn graph(graph: &Graph) -> GraphProto {
    GraphProto {
        node: graph.nodes.iter().map(node).collect(),
        name: graph.name.clone(),
        initializer: graph.initializers.iter().map(|(name, value)| named(name, value)).collect(),
        sparse_initializer: Vec::new(),
        doc_string: graph.doc.clone(),
        input: graph.inputs.iter().map(value_info).collect(),
        output: graph.outputs.iter().map(value_info).collect(),
        value_info: graph.value_info.values().map(value_info).collect(),
        metadata_props: properties(&graph.metadata),
    }
}

fn function(function: &Function) -> FunctionProto {
    FunctionProto {
        name: function.name.clone(),
        input: function.inputs.clone(),
        output: function.outputs.clone(),
        attribute: function.attributes.clone(),
        attribute_proto: function.defaults.iter().map(attribute).collect(),
        node: function.nodes.iter().map(node).collect(),
        doc_string: function.doc.clone(),
        opset_import: opsets(&function.opsets),
        domain: function.domain.clone(),
        overload: function.overload.clone(),
        value_info: function.value_info.values().map(value_info).collect(),
        metadata_props: properties(&function.metadata),
    }
}

fn node(node: &Node) -> NodeProto {
    NodeProto {
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        name: node.name.clone(),
        op_type: node.op.clone(),
        domain: node.domain.clone(),
        overload: node.overload.clone(),
        attribute: node.attributes.iter().map(attribute).collect(),
        doc_string: node.doc.clone(),
        metadata_props: properties(&node.metadata),
    }
}

fn attribute((name, value): (&String, &Attribute)) -> AttributeProto {
    let mut proto =
        AttributeProto { name: name.clone(), r#type: value.kind().into(), ..AttributeProto::default() };
    let bytes = |string: &String| Bytes::copy_from_slice(string.as_bytes());
    match value {
        Attribute::Int(i) => proto.i = Some(*i),
        Attribute::Float(f) => proto.f = Some(*f),
        Attribute::String(s) => proto.s = Some(bytes(s)),
        Attribute::Tensor(t) => proto.t = Some(tensor(t)),
        Attribute::Graph(g) => proto.g = Some(graph(g)),
        Attribute::Ints(ints) => proto.ints = ints.clone(),
        Attribute::Floats(floats) => proto.floats = floats.clone(),
        Attribute::Strings(strings) => proto.strings = strings.iter().map(bytes).collect(),
        Attribute::Tensors(tensors) => proto.tensors = tensors.iter().map(tensor).collect(),
        Attribute::Graphs(graphs) => proto.graphs = graphs.iter().map(graph).collect(),
        Attribute::Reference { name, .. } => proto.ref_attr_name = name.clone(),
    }
    proto
}

fn named(name: &str, value: &Tensor) -> TensorProto {
    TensorProto { name: name.into(), ..tensor(value) }
}

/// A tensor without a name.
fn tensor(tensor: &Tensor) -> TensorProto {
    TensorProto {
        dims: tensor.shape.iter().map(|&dim| signed(dim)).collect(),
        data_type: data_type(tensor.dtype).into(),
        raw_data: tensor.bytes.clone(),
        ..TensorProto::default()
    }
}

/// A size as ONNX writes it. Beyond `i64::MAX` no tensor that has bytes can be, so nothing that exists is changed.
fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// ONNX's name for a dtype; as a number it is what a `Cast` has in its attribute `to`.
pub fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::I8 => DataType::Int8,
        DType::I16 => DataType::Int16,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::U8 => DataType::Uint8,
        DType::U16 => DataType::Uint16,
        DType::U32 => DataType::Uint32,
        DType::U64 => DataType::Uint64,
        DType::Bool => DataType::Bool,
    }
}

fn value_info(spec: &ValueSpec) -> ValueInfoProto {
    let dim = |dim: &Dim| Dimension {
        value: match dim {
            Dim::Fixed(size) => Some(DimensionValue::DimValue(signed(*size))),
            Dim::Symbol(symbol) => Some(DimensionValue::DimParam(symbol.clone())),
            Dim::Any => None,
        },
        ..Dimension::default()
    };
    let tensor = TensorType {
        elem_type: data_type(spec.dtype).into(),
        shape: spec.shape.as_ref().map(|dims| TensorShapeProto { dim: dims.iter().map(dim).collect() }),
    };
    ValueInfoProto {
        name: spec.name.clone(),
        r#type: Some(TypeProto { value: Some(TypeValue::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

#[cfg(test)]
mod tests;
