//! What is counted for a file before it is read covers what prost then allocates: for every field
//! of every message, many times over.

#![allow(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::alloc::System;

use onnx_graph::memory_of;
use onnx_graph::proto::ModelProto;
use prost::Message as _;
use prost::bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// So many of a field are put into one message. Some room above a power of two, where lists have
/// just grown.
const MANY: usize = 2100;

/// What may be allocated and not counted: the graph itself and the like, once.
const ONCE: usize = 4096;

/// The numbers of fields that lead from a model to each message of onnx-ml.proto.
const PATHS: &[(&str, &[u32])] = &[
    ("ModelProto", &[]),
    ("OperatorSetIdProto", &[8]),
    ("StringStringEntryProto", &[14]),
    ("GraphProto", &[7]),
    ("NodeProto", &[7, 1]),
    ("TensorProto", &[7, 5]),
    ("TensorProto.Segment", &[7, 5, 3]),
    ("ValueInfoProto", &[7, 11]),
    ("SparseTensorProto", &[7, 15]),
    ("AttributeProto", &[7, 1, 5]),
    ("TypeProto", &[7, 1, 5, 14]),
    ("TypeProto.Tensor", &[7, 1, 5, 14, 1]),
    ("TensorShapeProto", &[7, 1, 5, 14, 1, 2]),
    ("TensorShapeProto.Dimension", &[7, 1, 5, 14, 1, 2, 1]),
    ("TypeProto.Sequence", &[7, 1, 5, 14, 4]),
    ("TypeProto.Map", &[7, 1, 5, 14, 5]),
    ("TypeProto.Opaque", &[7, 1, 5, 14, 7]),
    ("TypeProto.Optional", &[7, 1, 5, 14, 9]),
    ("FunctionProto", &[25]),
    ("an attribute's graph", &[7, 1, 5, 6]),
    ("an attribute's tensors", &[7, 1, 5, 10]),
];

/// More than the largest number of a field in any of them.
const NUMBERS: u32 = 32;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn field(number: u32, wire_type: u32, value: &[u8]) -> Vec<u8> {
    [varint((number << 3 | wire_type).into()), value.to_vec()].concat()
}

fn delimited(number: u32, bytes: &[u8]) -> Vec<u8> {
    field(number, 2, &[varint(bytes.len() as u64), bytes.to_vec()].concat())
}

/// A field in every form that a file can give it.
fn forms(number: u32) -> Vec<Vec<u8>> {
    let packed: Vec<u8> = (0..64).collect();
    let mut forms = vec![field(number, 0, &[1]), field(number, 1, &[0; 8]), field(number, 5, &[0; 4])];
    // Empty; a text; packed numbers; and messages of one field, which may be any of these.
    forms.extend([&b""[..], b"a", &packed].map(|payload| delimited(number, payload)));
    for inner in 1..NUMBERS {
        forms.push(delimited(number, &delimited(inner, b"")));
        forms.push(delimited(number, &field(inner, 0, &[1])));
    }
    forms
}

/// One test, because allocations of all threads are counted.
#[test]
fn what_is_counted_covers_what_is_allocated() {
    every_field_is_covered();
    a_group_before_the_graph_hides_nothing();
}

fn every_field_is_covered() {
    let mut compared = 0;
    for (message, path) in PATHS {
        for number in 1..NUMBERS {
            for form in forms(number) {
                let body =
                    path.iter().rev().fold(form.repeat(MANY), |inner, &outer| delimited(outer, &inner));
                let bytes = Bytes::from(body);
                let counted = memory_of(&bytes) as usize;
                let region = Region::new(ALLOCATOR);
                let decoded = ModelProto::decode(bytes.clone());
                let change = region.change();
                let Ok(decoded) = decoded else { continue };
                let allocated = change.bytes_allocated - change.bytes_deallocated;
                drop(decoded);
                assert!(
                    allocated <= counted + ONCE,
                    "{message}, field {number}, {form:?}: {counted} counted, {allocated} allocated"
                );
                // What is not kept costs little: of many texts or boxes in one place the last is
                // kept, and each is charged for.
                if allocated < ONCE {
                    assert!(counted < 256 * MANY + ONCE, "{message}, field {number}, {form:?}: {counted}");
                } else {
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 500, "{compared}");
}

/// Groups, which prost skips, hide nothing behind them.
fn a_group_before_the_graph_hides_nothing() {
    let many = delimited(7, &delimited(1, &delimited(5, b"").repeat(MANY)));
    let group =
        [field(60, 3, b""), field(3, 0, &[1]), field(61, 3, b""), field(61, 4, b""), field(60, 4, b"")];
    let counted = memory_of(&many);
    assert!(memory_of(&[group.concat(), many].concat()) >= counted);
    assert!(counted > 100 * MANY as u64);
}
