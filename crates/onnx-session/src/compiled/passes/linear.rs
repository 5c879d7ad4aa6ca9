//! `MatMul` and `Gemm` with a constant matrix, and what follows them: a bias, an activation, a residual.

use kernels::Unary;
use onnx_graph::shape::volume;

use super::{binary, rewrite, row, rows_of, with_row};
use crate::compiled::ir::{Ir, Node, NodeId, ValueId};
use crate::compiled::ops::{Linear, Op, Weight};

pub fn run(ir: &mut Ir) -> usize {
    rewrite(ir, matrix)
}

/// A product with a constant on the right, by the operator's own flags.
fn matrix(ir: &Ir, id: NodeId) -> Option<Node> {
    let node = ir.node(id)?;
    let Op::Onnx(operation) = &node.op else { return None };
    let given = operation.node();
    let flag = |name: &str| given.int(name).ok().flatten().unwrap_or(0) != 0;
    let is_one = |name: &str| given.float(name).ok().flatten().unwrap_or(1.0) == 1.0;
    let (mut transposed, mut activation, mut with_bias) = (false, None, false);
    match (&*given.domain, &*given.op) {
        ("", "MatMul") => {}
        ("com.microsoft", "FusedMatMul") => {
            transposed = flag("transB");
            if flag("transA") || flag("transBatchA") || flag("transBatchB") || !is_one("alpha") {
                return None;
            }
        }
        ("", "Gemm") | ("com.microsoft", "FusedGemm") => {
            (transposed, with_bias) = (flag("transB"), node.input(2).is_some());
            if flag("transA") || !is_one("alpha") || (with_bias && !is_one("beta")) {
                return None;
            }
            activation = match given.string("activation").ok()?.unwrap_or("") {
                "" => None,
                "Tanh" => Some(Unary::Tanh),
                "Relu" => Some(Unary::Relu),
                "Sigmoid" => Some(Unary::Sigmoid),
                _ => return None,
            };
        }
        _ => return None,
    }
    let (x, w, output) = (node.input(0)?, node.input(1)?, node.output()?);
    let constant = ir.constant(w)?;
    let &[first, second] = constant.shape() else { return None };
    let (inputs, outputs) = if transposed { (second, first) } else { (first, second) };
    let fits = ir.is_f32(x) && ir.shape(x)?.len() >= 2 && ir.width(x)? == inputs && ir.constant(x).is_none();
    volume(ir.shape(output)?)?;
    if !fits || !ir.is_f32(w) || inputs == 0 || outputs == 0 {
        return None;
    }
    let bias = if with_bias { Some(row(ir, node.input(2)?, outputs)?) } else { None };
    let weights = vec![Weight { constant: constant.clone(), inputs, outputs, transposed }];
    let op = Op::Linear(Linear { weights, bias, activation });
    Some(node.becomes(op, vec![Some(source(ir, x))]))
}

/// What a value is a view of, row for row. Whoever else reads the view may go on doing so.
fn source(ir: &Ir, value: ValueId) -> ValueId {
    let mut value = value;
    while let Some((_, Node { op: Op::View, inputs, .. })) = ir.producer(value) {
        let [Some(inner)] = inputs[..] else { break };
        if ir.width(inner).is_none() || ir.width(inner) != ir.width(value) {
            break;
        }
        value = inner;
    }
    value
}

/// The product that makes a value, if nobody else reads it, and nothing has been added to it yet.
fn bare(ir: &Ir, value: ValueId) -> Option<(&Node, &Linear)> {
    let value = rows_of(ir, value);
    match ir.producer(value)?.1 {
        node @ Node { op: Op::Linear(linear), .. } if node.inputs.len() == 1 && ir.is_intermediate(value) => {
            Some((node, linear))
        }
        _ => None,
    }
}

/// A constant row added to a product.
pub fn bias(ir: &mut Ir) -> usize {
    rewrite(ir, |ir, id| {
        let node = ir.node(id)?;
        let output = node.output()?;
        let (row, value) = with_row(ir, binary(ir, output, "Add")?, ir.width(output)?)?;
        let (inner, linear) = bare(ir, value)?;
        if linear.bias.is_some() || linear.activation.is_some() || ir.shape(value) != ir.shape(output) {
            return None;
        }
        let op = Op::Linear(Linear { bias: Some(row), ..linear.clone() });
        Some(node.becomes(op, inner.inputs.clone()))
    })
}

/// A function of each element of a product.
pub fn activation(ir: &mut Ir) -> usize {
    rewrite(ir, |ir, id| {
        let node = ir.node(id)?;
        let Op::Unary(function) = node.op else { return None };
        let (inner, linear) = bare(ir, node.input(0)?)?;
        if linear.activation.is_some() {
            return None;
        }
        let op = Op::Linear(Linear { activation: Some(function), ..linear.clone() });
        Some(node.becomes(op, inner.inputs.clone()))
    })
}

/// Something of the same shape added to a product; and what is left of additions.
pub fn residual(ir: &mut Ir) -> usize {
    rewrite(ir, |ir, id| {
        let node = ir.node(id)?;
        let output = node.output()?;
        let [a, b] = binary(ir, output, "Add")?;
        let shape = ir.shape(output)?;
        volume(shape)?;
        let width = ir.width(output)?;
        let is_row = |value| row(ir, value, width).is_some();
        let computed = |value| ir.constant(value).is_none();
        if !ir.is_f32(output) {
            return None;
        }
        if ir.shape(a) == ir.shape(b) && computed(a) && computed(b) {
            for (product, other) in [(a, b), (b, a)] {
                if let Some((inner, linear)) = bare(ir, product) {
                    let inputs = vec![inner.input(0), Some(other)];
                    return Some(node.becomes(Op::Linear(linear.clone()), inputs));
                }
            }
            return Some(node.becomes(Op::Add, vec![Some(a), Some(b)]));
        }
        for (value, constant) in [(a, b), (b, a)] {
            if is_row(constant) && ir.shape(value) == Some(shape) && computed(value) {
                return Some(node.becomes(Op::Add, vec![Some(value), Some(constant)]));
            }
        }
        None
    })
}
