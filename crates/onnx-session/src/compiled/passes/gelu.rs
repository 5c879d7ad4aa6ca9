//! The activations: `Gelu`, `Tanh` and their like, and the chains that stand for GELU:
//!
//! ```text
//! ½ · x · (1 + erf(x / √2))                            also with · 1/√2, and the factors in any order
//! ½ · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))     also with x · (1 + 0.044715 · x²) inside
//! x · sigmoid(x),  x · sigmoid(1.702 · x)              SiLU, quick GELU
//! ```

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI, SQRT_2};

use kernels::Unary;

use super::{binary, is, rewrite_from_the_back, scalar, unary, with_scalar};
use crate::compiled::ir::{Ir, NodeId, ValueId};
use crate::compiled::ops::Op;

const CUBIC: f64 = 0.044715;
const QUICK: f64 = 1.702;

pub fn run(ir: &mut Ir) -> usize {
    // From the back, so that a product is met before its factors.
    rewrite_from_the_back(ir, |ir, id| {
        let (function, x) = operator(ir, id).or_else(|| chain(ir, id))?;
        Some(ir.node(id)?.becomes(Op::Unary(function), vec![Some(x)]))
    })
}

fn operator(ir: &Ir, id: NodeId) -> Option<(Unary, ValueId)> {
    let node = ir.node(id)?;
    let Op::Onnx(operation) = &node.op else { return None };
    let given = operation.node();
    let (x, output) = (node.input(0)?, node.output()?);
    let approximate = given.string("approximate").ok()?.unwrap_or("none");
    let function = match (&*given.domain, &*given.op, approximate) {
        ("", "Tanh", _) => Unary::Tanh,
        ("", "Erf", _) => Unary::Erf,
        ("", "Relu", _) => Unary::Relu,
        ("", "Sigmoid", _) => Unary::Sigmoid,
        ("" | "com.microsoft", "Gelu", "none") => Unary::GeluErf,
        ("", "Gelu", "tanh") => Unary::GeluTanh,
        _ => return None,
    };
    // The chains below contain an Erf or Tanh, which is met after them.
    (node.inputs.len() == 1 && ir.is_f32(x) && ir.shape(output).is_some()).then_some((function, x))
}

fn chain(ir: &Ir, id: NodeId) -> Option<(Unary, ValueId)> {
    let output = ir.node(id)?.output()?;
    binary(ir, output, "Mul")?;
    ir.shape(output)?;
    let (number, [a, b]) = product(ir, output)?;
    if number == 1.0 && ir.is_f32(output) {
        return gated(ir, a, b).or_else(|| gated(ir, b, a));
    }
    // Halving is exact: the constant has to be, too.
    if number != 0.5 || !ir.is_f32(output) {
        return None;
    }
    let gelu = |x: ValueId, gate: ValueId| {
        let (one, function) = with_scalar(ir, binary(ir, gate, "Add")?)?;
        if one != 1.0
            || !ir.is_intermediate(gate)
            || !ir.is_intermediate(function)
            || ir.shape(x) != ir.shape(output)
        {
            return None;
        }
        if let Some(inner) = unary(ir, function, "Erf") {
            return (is_scaled(ir, inner, x) && ir.is_intermediate(inner)).then_some((Unary::GeluErf, x));
        }
        let inner = unary(ir, function, "Tanh")?;
        is_cubic(ir, inner, x).then_some((Unary::GeluTanh, x))
    };
    gelu(a, b).or_else(|| gelu(b, a))
}

/// x · sigmoid(x), or with a factor inside.
fn gated(ir: &Ir, x: ValueId, gate: ValueId) -> Option<(Unary, ValueId)> {
    let inner = unary(ir, gate, "Sigmoid").filter(|_| ir.is_intermediate(gate) && ir.shape(x).is_some())?;
    if inner == x {
        return Some((Unary::Silu, x));
    }
    let (number, other) = with_scalar(ir, binary(ir, inner, "Mul")?)?;
    (other == x && is(number, QUICK) && ir.is_intermediate(inner)).then_some((Unary::GeluQuick, x))
}

/// A product of two factors and at most one constant, or 1. Of several constants only the product
/// would be known, and not what it is rounded to, or overflows to, on the way.
fn product(ir: &Ir, value: ValueId) -> Option<(f32, [ValueId; 2])> {
    let (number, factors) = factors(ir, value)?;
    Some((number, factors.try_into().ok()?))
}

fn factors(ir: &Ir, value: ValueId) -> Option<(f32, Vec<ValueId>)> {
    let (mut numbers, mut factors) = (Vec::new(), Vec::new());
    factor(ir, value, true, &mut numbers, &mut factors);
    match numbers[..] {
        [] => Some((1.0, factors)),
        [number] => Some((number, factors)),
        _ => None,
    }
}

fn factor(ir: &Ir, value: ValueId, outermost: bool, numbers: &mut Vec<f32>, factors: &mut Vec<ValueId>) {
    match binary(ir, value, "Mul").filter(|_| outermost || ir.is_intermediate(value)) {
        Some(pair) => pair.into_iter().for_each(|value| factor(ir, value, false, numbers, factors)),
        None => match scalar(ir, value) {
            Some(constant) => numbers.push(constant),
            None => factors.push(value),
        },
    }
}

/// Whether a value is x/√2.
fn is_scaled(ir: &Ir, value: ValueId, x: ValueId) -> bool {
    if let Some([a, b]) = binary(ir, value, "Div") {
        return a == x && scalar(ir, b).is_some_and(|number| is(number, SQRT_2));
    }
    let product = binary(ir, value, "Mul").and_then(|pair| with_scalar(ir, pair));
    product.is_some_and(|(number, other)| other == x && is(number, FRAC_1_SQRT_2))
}

/// Whether a value is √(2/π) · (x + 0.044715 · x³), with x drawn out of the bracket or not.
fn is_cubic(ir: &Ir, value: ValueId, x: ValueId) -> bool {
    let Some((number, mut factors)) = factors(ir, value) else { return false };
    let own = ir.is_intermediate(value);
    let drawn_out = factors.len() == 2;
    if drawn_out {
        let Some(place) = factors.iter().position(|&factor| factor == x) else { return false };
        factors.remove(place);
    }
    let [sum] = factors[..] else { return false };
    let Some([a, b]) = binary(ir, sum, "Add") else { return false };
    let (first, power) = if drawn_out { (None, 2) } else { (Some(x), 3) };
    let fits = |a: ValueId, b: ValueId| {
        let starts = first.map_or_else(|| scalar(ir, a) == Some(1.0), |x| a == x);
        starts && is_power(ir, b, x, power) && ir.is_intermediate(b)
    };
    own && is(number, FRAC_2_PI.sqrt()) && ir.is_intermediate(sum) && (fits(a, b) || fits(b, a))
}

/// Whether a value is 0.044715 · xⁿ.
fn is_power(ir: &Ir, value: ValueId, x: ValueId, n: usize) -> bool {
    let Some((number, factors)) = factors(ir, value) else { return false };
    let powers: Option<Vec<usize>> = factors.iter().map(|&factor| exponent(ir, factor, x)).collect();
    is(number, CUBIC) && powers.is_some_and(|powers| powers.iter().sum::<usize>() == n)
}

/// Which power of x a factor is: the first, the square or the cube. A product of these is what the
/// exponents' sum says, whatever x is; a product of broken powers is NaN below 0, and one with a
/// negative power at 0.
fn exponent(ir: &Ir, value: ValueId, x: ValueId) -> Option<usize> {
    if value == x {
        return Some(1);
    }
    let [base, power] = binary(ir, value, "Pow").filter(|_| ir.is_intermediate(value))?;
    let power = scalar(ir, power).filter(|_| base == x)?;
    [1, 2, 3].into_iter().find(|&whole| power == whole as f32)
}
