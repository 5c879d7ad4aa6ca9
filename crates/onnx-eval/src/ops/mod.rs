//! The operators, a family a file. Each file ends with its table: one line an operator and range of opsets. Where an operator takes other
//! inputs or attributes from some opset on, it has a line for each; where only its meaning changed, its function says so with `context.opset`.

mod activation;
mod attention;
mod blocks;
mod cast;
mod contrib;
mod conv;
mod cumulative;
mod einsum;
mod elementwise;
mod gather;
mod linear;
mod logic;
mod normalize;
mod order;
mod pad;
mod qlinear;
mod quantize;
mod reduce;
mod resize;
mod rotary;
mod scatter;
mod shape;

pub use blocks::{PackedMatrix, packed_matrix};
use onnx_graph::Node;

use crate::OracleError;
use crate::context::{Context, Outputs};

/// The opsets of ONNX that are known here. A line may reach further back, where ONNX has kept an operator as it was.
pub(crate) const OLDEST: i64 = 11;
pub(crate) const NEWEST: i64 = 28;

/// For an operator that takes any number of inputs, or gives any number of outputs.
const ANY: usize = usize::MAX;

/// An operator over a range of opsets.
pub(crate) struct Op {
    pub domain: &'static str,
    pub name: &'static str,
    /// The first and the last opset that this line is for.
    pub opsets: (i64, i64),
    /// How many inputs it takes, at least and at most.
    pub inputs: (usize, usize),
    /// How many outputs it may give.
    pub outputs: usize,
    /// The attributes it has: another one is an error.
    pub attributes: &'static str,
    pub run: fn(&Context) -> Outputs,
}

impl Op {
    /// An operator of ONNX, with one output, the same at all opsets that are known here.
    const fn onnx(
        name: &'static str,
        inputs: (usize, usize),
        attributes: &'static str,
        run: fn(&Context) -> Outputs,
    ) -> Self {
        Self { domain: "", name, opsets: (OLDEST, NEWEST), inputs, outputs: 1, attributes, run }
    }

    /// An operator of ONNX Runtime's own domain, which has one version.
    const fn microsoft(
        name: &'static str,
        inputs: (usize, usize),
        attributes: &'static str,
        run: fn(&Context) -> Outputs,
    ) -> Self {
        Self { domain: "com.microsoft", name, opsets: (1, 1), inputs, outputs: 1, attributes, run }
    }

    const fn since(mut self, opset: i64) -> Self {
        self.opsets.0 = opset;
        self
    }

    const fn until(mut self, opset: i64) -> Self {
        self.opsets.1 = opset;
        self
    }

    const fn outputs(mut self, most: usize) -> Self {
        self.outputs = most;
        self
    }
}

const FAMILIES: &[&[Op]] = &[
    elementwise::OPS,
    activation::OPS,
    logic::OPS,
    cast::OPS,
    reduce::OPS,
    shape::OPS,
    gather::OPS,
    scatter::OPS,
    order::OPS,
    cumulative::OPS,
    pad::OPS,
    linear::OPS,
    conv::OPS,
    resize::OPS,
    einsum::OPS,
    normalize::OPS,
    attention::OPS,
    rotary::OPS,
    quantize::OPS,
    qlinear::OPS,
    blocks::OPS,
    contrib::OPS,
];

/// Every line of every table.
pub(crate) fn all() -> impl Iterator<Item = &'static Op> {
    FAMILIES.iter().copied().flatten()
}

/// An operator that is known, over a range of opsets in which it takes the same inputs and attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operator {
    /// Its domain: `""` for ONNX's own.
    pub domain: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The first opset of the range.
    pub first: i64,
    /// The last opset of the range.
    pub last: i64,
}

/// Every operator that is known, by domain, name and opset.
pub fn operators() -> Vec<Operator> {
    let operator =
        |op: &Op| Operator { domain: op.domain, name: op.name, first: op.opsets.0, last: op.opsets.1 };
    let mut operators: Vec<Operator> = all().map(operator).collect();
    operators.sort_by_key(|op| (op.domain, op.name, op.first));
    operators
}

/// The operator of a node, if the node has inputs, outputs and attributes that it can have.
pub(crate) fn find(node: &Node, opset: i64) -> Result<&'static Op, OracleError> {
    let lines = || all().filter(|op| op.domain == node.domain && op.name == node.op);
    let Some(op) = lines().find(|op| (op.opsets.0..=op.opsets.1).contains(&opset)) else {
        let known: Vec<String> = lines().map(|op| format!("{} to {}", op.opsets.0, op.opsets.1)).collect();
        return Err(OracleError::UnknownOp {
            node: node.name.clone(),
            op: node.op.clone(),
            domain: if node.domain.is_empty() { "ai.onnx".into() } else { node.domain.clone() },
            opset,
            hint: if known.is_empty() {
                String::new()
            } else {
                format!(", only of {}: export the graph for one of these", known.join(", "))
            },
        });
    };
    for (what, found, least, most) in [
        ("inputs", node.inputs.len(), op.inputs.0, op.inputs.1),
        ("outputs", node.outputs.len(), 1, op.outputs),
    ] {
        if !(least..=most).contains(&found) {
            let (node, op) = (node.name.clone(), node.op.clone());
            return Err(OracleError::Arity { node, op, opset, what, found, least, most });
        }
    }
    match node.attributes.keys().find(|name| !op.attributes.split(' ').any(|known| known == *name)) {
        None => Ok(op),
        Some(attribute) => Err(OracleError::UnknownAttribute {
            node: node.name.clone(),
            op: node.op.clone(),
            opset,
            attribute: attribute.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lines_of_an_operator_overlap() {
        let lines: Vec<&Op> = all().collect();
        for (index, a) in lines.iter().enumerate() {
            assert!(a.opsets.0 <= a.opsets.1, "{}", a.name);
            for b in &lines[index + 1..] {
                let same = (a.domain, a.name) == (b.domain, b.name);
                let overlap = a.opsets.0 <= b.opsets.1 && b.opsets.0 <= a.opsets.1;
                assert!(!(same && overlap), "{} is there twice", a.name);
            }
        }
    }
}
