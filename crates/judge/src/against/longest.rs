//! How long a text a graph takes. The rows of its table of positions are an upper bound: a RoBERTa
//! counts from the number of its padding token, and so leaves the first rows unused.

use std::collections::HashSet;

use engine::{DType, Engine, NamedValues, ValueSpec};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::Model;

/// Operators that take most of a run's time. Whether a text is too long shows before them, where
/// rows are looked up and added.
const PRODUCTS: [&str; 14] = [
    "MatMul",
    "Gemm",
    "Einsum",
    "Conv",
    "Attention",
    "FusedMatMul",
    "FusedGemm",
    "GemmFastGelu",
    "MultiHeadAttention",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QLinearMatMul",
    "QAttention",
];

/// The longest text of at most `most` tokens that a graph takes before its first product; `most`
/// where it does not take one token either, so that a run says why. `texts` are its inputs for that
/// many tokens, of which all must run: an id that is padding may hide what another shows.
pub(super) fn longest<E>(
    model: &Model,
    most: usize,
    texts: impl Fn(usize) -> Result<Vec<NamedValues>, E>,
) -> Result<usize, E> {
    let front = front(model);
    let Ok(oracle) = Oracle::with(&front, Precision::F64, Limits::default()) else { return Ok(most) };
    let names: Vec<&str> = front.graph.outputs.iter().map(|spec| spec.name.as_str()).collect();
    let runs = |length| Ok(texts(length)?.iter().all(|inputs| oracle.run_for(inputs, &names).is_ok()));
    if runs(most)? || !runs(1)? {
        return Ok(most);
    }
    // It takes one of the first length, and none of the second.
    let (mut takes, mut fails) = (1, most);
    while fails - takes > 1 {
        let between = takes + (fails - takes) / 2;
        if runs(between)? {
            takes = between;
        } else {
            fails = between;
        }
    }
    Ok(takes)
}

/// The nodes that no product comes before, with all they give as outputs.
fn front(model: &Model) -> Model {
    let mut front = model.clone();
    let mut after: HashSet<String> = HashSet::new();
    front.graph.nodes.retain(|node| {
        let is_after =
            PRODUCTS.contains(&node.op.as_str()) || node.inputs.iter().any(|name| after.contains(name));
        if is_after {
            after.extend(node.outputs.iter().filter(|name| !name.is_empty()).cloned());
        }
        !is_after
    });
    let given = front.graph.nodes.iter().flat_map(|node| &node.outputs).filter(|name| !name.is_empty());
    // What dtype they are declared as says nothing here.
    let output =
        |name: &String| ValueSpec { name: name.clone(), dtype: DType::F32, shape: None, optional: false };
    front.graph.outputs = given.map(output).collect();
    front
}
