#![allow(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use candle_core::{DType, Device};

use super::*;
use crate::candle::lower::int;

/// A square of this side has twice as many elements as the limit.
const SIDE: usize = 1 << 16;

/// A value of this shape that takes the memory of one number.
fn wide(dims: &[usize]) -> Tensor {
    Tensor::zeros((), DType::F32, &Device::Cpu).unwrap().broadcast_as(dims).unwrap()
}

fn list(numbers: &[i64]) -> Tensor {
    Tensor::new(numbers, &Device::Cpu).unwrap()
}

fn one(number: i64) -> Tensor {
    Tensor::new(number, &Device::Cpu).unwrap()
}

fn checked(op: &str, inputs: &[Tensor], attributes: Vec<onnx::AttributeProto>) -> Result<Option<usize>> {
    let names: Vec<String> = (0..inputs.len()).map(|index| index.to_string()).collect();
    let node = onnx::NodeProto {
        op_type: op.into(),
        input: names.clone(),
        attribute: attributes,
        ..Default::default()
    };
    check(&node, &names.into_iter().zip(inputs.iter().cloned()).collect())
}

#[track_caller]
fn has(elements: usize, op: &str, inputs: &[Tensor], attributes: Vec<onnx::AttributeProto>) {
    assert_eq!(checked(op, inputs, attributes).unwrap(), Some(elements));
}

/// Refused with this shape.
#[track_caller]
fn refused(shape: &str, op: &str, inputs: &[Tensor], attributes: Vec<onnx::AttributeProto>) {
    let error = checked(op, inputs, attributes).unwrap_err().to_string();
    let says =
        format!("its result would have shape {shape}, which is more than the limit of 2147483648 elements");
    assert_eq!(error, says);
}

#[test]
fn a_result_may_have_the_limit_and_no_more() {
    has(MAX_ELEMENTS, "ConstantOfShape", &[list(&[1 << 31])], vec![]);
    refused("[2147483649]", "ConstantOfShape", &[list(&[(1 << 31) + 1])], vec![]);
    has(1, "ConstantOfShape", &[list(&[])], vec![]);
}

#[test]
fn a_product_that_overflows_is_too_large_also_beside_a_zero() {
    refused("[4294967296, 4294967296]", "ConstantOfShape", &[list(&[1 << 32, 1 << 32])], vec![]);
    refused("[0, 4294967296, 4294967296]", "ConstantOfShape", &[list(&[0, 1 << 32, 1 << 32])], vec![]);
    has(0, "ConstantOfShape", &[list(&[0, 1 << 32])], vec![]);
    let error = checked("ConstantOfShape", &[list(&[-5, 2])], vec![]).unwrap_err().to_string();
    assert_eq!(error, "its result would have shape [-5, 2], with a negative size");
}

#[test]
fn broadcasting_is_seen() {
    let (column, row) = (wide(&[SIDE, 1]), wide(&[SIDE]));
    for op in ["Add", "Less", "And", "Pow"] {
        refused("[65536, 65536]", op, &[column.clone(), row.clone()], vec![]);
        refused("[65536, 65536]", op, &[row.clone(), column.clone()], vec![]);
        has(SIDE, op, &[column.clone(), wide(&[])], vec![]);
    }
    refused("[65536, 65536]", "Where", &[wide(&[1, 1]), column.clone(), row.clone()], vec![]);
    refused("[65536, 65536]", "Expand", &[column.clone(), list(&[1, 1 << 16])], vec![]);
    has(3 * SIDE, "Expand", &[column, list(&[3, 1, 1])], vec![]);
    has(0, "Add", &[wide(&[0]), wide(&[1])], vec![]);
}

#[test]
fn a_matrix_product_counts_the_operands_that_it_copies() {
    let k = 1 << 12;
    refused("[65536, 65536]", "MatMul", &[wide(&[SIDE, 1]), wide(&[1, SIDE])], vec![]);
    let (a, b) = (wide(&[1 << 10, 1, 1, k]), wide(&[1, 1 << 10, k, 1]));
    refused("[1024, 1024, 1, 4096]", "MatMul", &[a, b], vec![]);
    // One matrix on the right is not copied; on the left it is.
    let (batch, matrix) = (wide(&[1 << 12, 2, k]), wide(&[k, k]));
    has((2 * k) << 12, "MatMul", &[batch, matrix.clone()], vec![]);
    refused("[4096, 4096, 4096]", "MatMul", &[matrix, wide(&[1 << 12, k, 2])], vec![]);
    assert_eq!(checked("MatMul", &[wide(&[2]), wide(&[2, 2])], vec![]).unwrap(), None);
}

#[test]
fn what_is_picked_and_joined_is_counted() {
    let rows = wide(&[SIDE]);
    refused("[2, 65536, 65536]", "Gather", &[wide(&[2, 3, SIDE]), rows.clone()], vec![int("axis", 1)]);
    has(2 * SIDE, "Gather", &[wide(&[2, 3]), rows], vec![int("axis", 1)]);
    let half = wide(&[2, 1 << 29]);
    has(MAX_ELEMENTS, "Concat", &[half.clone(), half.clone()], vec![int("axis", 1)]);
    refused("[6, 536870912]", "Concat", &[half.clone(), half.clone(), half], vec![int("axis", 0)]);
}

#[test]
fn a_reshape_cannot_wrap_around() {
    let empty = wide(&[0, 3]);
    refused("[4294967296, 4294967296]", "Reshape", &[empty.clone(), list(&[1 << 32, 1 << 32])], vec![]);
    refused("[0, 4294967296, 4294967296]", "Reshape", &[empty, list(&[0, 1 << 32, 1 << 32])], vec![]);
    has(6, "Reshape", &[wide(&[2, 3]), list(&[0, 3])], vec![]);
    has(0, "Reshape", &[wide(&[0, 3]), list(&[3, 0])], vec![int("allowzero", 1)]);
}

#[test]
fn a_range_is_counted_before_it_counts() {
    let range = |numbers: [i64; 3]| checked("Range", &numbers.map(one), vec![]);
    assert_eq!(range([0, 7, 2]).unwrap(), Some(4));
    assert_eq!(range([7, 0, -7]).unwrap(), Some(1));
    assert_eq!(range([7, 0, 1]).unwrap(), Some(0));
    assert_eq!(range([0, 7, 0]).unwrap(), None);
    refused("[2147483649]", "Range", &[0, (1 << 31) + 1, 1].map(one), vec![]);
    refused("[18446744073709551615]", "Range", &[i64::MIN, i64::MAX, 1].map(one), vec![]);
    // 0, 2^62, and then 2^63, which is not there.
    let error = range([0, i64::MAX, 1 << 62]).unwrap_err().to_string();
    assert!(error.ends_with("counts beyond int64"), "{error}");
}
