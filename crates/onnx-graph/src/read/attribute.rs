use bytes::Bytes;

use super::{Reader, SPARSE_VALUE};
use crate::model::kind_name;
use crate::proto::{AttributeProto, AttributeType};
use crate::{Attribute, AttributeFault, GraphError};

/// What an attribute is: what its `type` says, if its value agrees. Where there is no `type`, as before IR version 2, the one field
/// that is set decides. `None` stands for a reference to an attribute of the enclosing function.
///
/// A declared type without a value is its zero: writers that follow proto3 leave zeros out.
pub(super) fn kind(proto: &AttributeProto) -> Result<Option<AttributeType>, AttributeFault> {
    let declared =
        AttributeType::try_from(proto.r#type).map_err(|_| AttributeFault::UnknownType(proto.r#type))?;
    let mut present = present(proto);
    let (first, second) = (present.next(), present.next());
    if !proto.ref_attr_name.is_empty() {
        return match first {
            None => Ok(None),
            Some(_) => Err(AttributeFault::ReferenceWithValue(proto.ref_attr_name.clone())),
        };
    }
    match (declared, first, second) {
        (_, Some(first), Some(second)) => {
            Err(AttributeFault::SeveralValues { first: kind_name(first), second: kind_name(second) })
        }
        (AttributeType::Undefined, None, _) => Err(AttributeFault::NoValue),
        (AttributeType::Undefined, Some(found), _) => Ok(Some(found)),
        (declared, Some(found), _) if declared != found => {
            Err(AttributeFault::Mismatch { declared: kind_name(declared), found: kind_name(found) })
        }
        (declared, ..) => Ok(Some(declared)),
    }
}

/// The types of which the message has a value.
fn present(proto: &AttributeProto) -> impl Iterator<Item = AttributeType> {
    [
        (AttributeType::Float, proto.f.is_some()),
        (AttributeType::Int, proto.i.is_some()),
        (AttributeType::String, proto.s.is_some()),
        (AttributeType::Tensor, proto.t.is_some()),
        (AttributeType::Graph, proto.g.is_some()),
        (AttributeType::SparseTensor, proto.sparse_tensor.is_some()),
        (AttributeType::TypeProto, proto.tp.is_some()),
        (AttributeType::Floats, !proto.floats.is_empty()),
        (AttributeType::Ints, !proto.ints.is_empty()),
        (AttributeType::Strings, !proto.strings.is_empty()),
        (AttributeType::Tensors, !proto.tensors.is_empty()),
        (AttributeType::Graphs, !proto.graphs.is_empty()),
        (AttributeType::SparseTensors, !proto.sparse_tensors.is_empty()),
        (AttributeType::TypeProtos, !proto.type_protos.is_empty()),
    ]
    .into_iter()
    .filter_map(|(kind, present)| present.then_some(kind))
}

impl Reader {
    /// The value of an attribute that has been found to be of this kind.
    pub(super) fn attribute(
        &mut self,
        owner: &str,
        name: &str,
        kind: Option<AttributeType>,
        proto: AttributeProto,
    ) -> Result<Attribute, GraphError> {
        let fault = |fault| GraphError::Attribute { owner: owner.into(), attribute: name.into(), fault };
        let tensor_label = || format!("attribute '{name}' of {owner}");
        let string =
            |bytes: Bytes| String::from_utf8(bytes.into()).map_err(|_| fault(AttributeFault::NotUtf8));
        let Some(kind) = kind else {
            let kind = AttributeType::try_from(proto.r#type).unwrap_or(AttributeType::Undefined);
            return Ok(Attribute::Reference { name: proto.ref_attr_name, kind });
        };
        Ok(match kind {
            AttributeType::Float => Attribute::Float(proto.f.unwrap_or_default()),
            AttributeType::Int => Attribute::Int(proto.i.unwrap_or_default()),
            AttributeType::String => Attribute::String(string(proto.s.unwrap_or_default())?),
            AttributeType::Floats => Attribute::Floats(proto.floats),
            AttributeType::Ints => Attribute::Ints(proto.ints),
            AttributeType::Strings => {
                Attribute::Strings(proto.strings.into_iter().map(string).collect::<Result<_, _>>()?)
            }
            AttributeType::Tensor => {
                let tensor = proto.t.ok_or_else(|| fault(AttributeFault::NoValue))?;
                Attribute::Tensor(self.tensor(&tensor_label(), tensor)?)
            }
            AttributeType::Tensors => {
                let tensors = proto.tensors.into_iter().map(|tensor| self.tensor(&tensor_label(), tensor));
                Attribute::Tensors(tensors.collect::<Result<_, _>>()?)
            }
            AttributeType::Graph => {
                let graph = proto.g.ok_or_else(|| fault(AttributeFault::NoValue))?;
                Attribute::Graph(Box::new(self.graph(graph)?))
            }
            AttributeType::Graphs => {
                let graphs = proto.graphs.into_iter().map(|graph| self.graph(graph));
                Attribute::Graphs(graphs.collect::<Result<_, _>>()?)
            }
            AttributeType::SparseTensor if name == SPARSE_VALUE => {
                let tensor = proto.sparse_tensor.ok_or_else(|| fault(AttributeFault::NoValue))?;
                Attribute::Tensor(self.sparse(&tensor_label(), tensor)?)
            }
            AttributeType::Undefined => return Err(fault(AttributeFault::NoValue)),
            AttributeType::SparseTensor
            | AttributeType::SparseTensors
            | AttributeType::TypeProto
            | AttributeType::TypeProtos => {
                return Err(fault(AttributeFault::Unsupported(kind_name(kind))));
            }
        })
    }
}
