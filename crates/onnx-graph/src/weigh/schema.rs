//! What of each message takes memory of its own. `tests/memory.rs` holds every line, and every line
//! that is not here, against what prost allocates.

use super::Field::{Boxed, Bytes, Fixed, ListOfBytes, Many, One, Text, Texts, Varints};
use super::Message;
use crate::proto;

/// What a graph makes of a node beside its strings: its place among the nodes, a name of its own,
/// and what the engines know of it.
const NODE: u64 = 512;

/// What it makes of anything else that has a name: its place in a map.
const NAMED: u64 = 256;

const fn message<T>(more: u64, fields: &'static [(u32, super::Field)]) -> Message {
    Message { size: size_of::<T>(), more, fields }
}

pub(crate) static MODEL: Message = message::<proto::ModelProto>(
    0,
    &[
        (2, Text),
        (3, Text),
        (4, Text),
        (6, Text),
        (7, One(&GRAPH)),
        (8, Many(&OPERATOR_SET)),
        (14, Many(&ENTRY)),
        (25, Many(&FUNCTION)),
    ],
);

static OPERATOR_SET: Message = message::<proto::OperatorSetIdProto>(NAMED, &[(1, Text)]);

static ENTRY: Message = message::<proto::StringStringEntryProto>(NAMED, &[(1, Text), (2, Text)]);

static GRAPH: Message = message::<proto::GraphProto>(
    0,
    &[
        (1, Many(&NODE_PROTO)),
        (2, Text),
        (5, Many(&INITIALIZER)),
        (10, Text),
        (11, Many(&VALUE_INFO)),
        (12, Many(&VALUE_INFO)),
        (13, Many(&VALUE_INFO)),
        (15, Many(&SPARSE_TENSOR)),
        (16, Many(&ENTRY)),
    ],
);

static NODE_PROTO: Message = message::<proto::NodeProto>(
    NODE,
    &[
        (1, Texts),
        (2, Texts),
        (3, Text),
        (4, Text),
        (5, Many(&ATTRIBUTE)),
        (6, Text),
        (7, Text),
        (8, Text),
        (9, Many(&ENTRY)),
    ],
);

static ATTRIBUTE: Message = message::<proto::AttributeProto>(
    NAMED,
    &[
        (1, Text),
        (4, Bytes),
        (5, One(&TENSOR)),
        (6, One(&GRAPH)),
        (7, Fixed(4)),
        (8, Varints(8)),
        (9, ListOfBytes),
        (10, Many(&TENSOR)),
        (11, Many(&GRAPH)),
        (13, Text),
        (14, One(&TYPE)),
        (15, Many(&TYPE)),
        (21, Text),
        (22, One(&SPARSE_TENSOR)),
        (23, Many(&SPARSE_TENSOR)),
    ],
);

static INITIALIZER: Message = Message { more: NAMED, ..TENSOR };

pub(crate) static TENSOR: Message = message::<proto::TensorProto>(
    0,
    &[
        (1, Varints(8)),
        (4, Fixed(4)),
        (5, Varints(4)),
        (6, ListOfBytes),
        (7, Varints(8)),
        (8, Text),
        (10, Fixed(8)),
        (11, Varints(8)),
        (12, Text),
        (13, Many(&ENTRY)),
        (16, Many(&ENTRY)),
    ],
);

static SPARSE_TENSOR: Message =
    message::<proto::SparseTensorProto>(0, &[(1, One(&TENSOR)), (2, One(&TENSOR)), (3, Varints(8))]);

static VALUE_INFO: Message =
    message::<proto::ValueInfoProto>(NAMED, &[(1, Text), (2, One(&TYPE)), (3, Text), (4, Many(&ENTRY))]);

static TYPE: Message = message::<proto::TypeProto>(
    0,
    &[
        (1, One(&TENSOR_TYPE)),
        (4, Boxed(&ELEMENT_TYPE)),
        (5, Boxed(&MAP_TYPE)),
        (6, Text),
        (7, One(&OPAQUE_TYPE)),
        (8, One(&TENSOR_TYPE)),
        (9, Boxed(&ELEMENT_TYPE)),
    ],
);

static TENSOR_TYPE: Message = message::<proto::TensorType>(0, &[(2, One(&SHAPE))]);

static ELEMENT_TYPE: Message = message::<proto::ElementType>(0, &[(1, Boxed(&TYPE))]);

static MAP_TYPE: Message = message::<proto::MapType>(0, &[(2, Boxed(&TYPE))]);

static OPAQUE_TYPE: Message = message::<proto::OpaqueType>(0, &[(1, Text), (2, Text)]);

static SHAPE: Message = message::<proto::TensorShapeProto>(0, &[(1, Many(&DIMENSION))]);

static DIMENSION: Message = message::<proto::Dimension>(0, &[(2, Text), (3, Text)]);

static FUNCTION: Message = message::<proto::FunctionProto>(
    NODE,
    &[
        (1, Text),
        (4, Texts),
        (5, Texts),
        (6, Texts),
        (7, Many(&NODE_PROTO)),
        (8, Text),
        (9, Many(&OPERATOR_SET)),
        (10, Text),
        (11, Many(&ATTRIBUTE)),
        (12, Many(&VALUE_INFO)),
        (13, Text),
        (14, Many(&ENTRY)),
    ],
);
