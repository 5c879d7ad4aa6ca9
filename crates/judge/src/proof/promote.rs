//! Which of a graph's constants are the rounding of a number that the reference knows, to f32 or to half precision.
//!
//! A file can hold √2 only as an f32, which alone puts a correct export 1e-7 off in f64. In the proof such a constant is taken for the number
//! that it is the rounding of. No weight is: only constants of one element, and attributes, within one ULP of a number on the list.

use std::f64::consts::{FRAC_1_SQRT_2, PI, SQRT_2};

use architecture::{Activation, Program};
use engine::DType;
use half::{bf16, f16};
use onnx_eval::Promotions;
use onnx_graph::{Attribute, Model, Node, Tensor};
use report::Promoted;

use crate::audit::F16_CLAMPS;
use crate::compare::ulp_distance_f32;

/// How far a constant may be, in numbers of its dtype, from the rounding of the number it is taken for: 1/f32(√d) is one ULP off f32(1/√d) at d = 24 or 96,
/// and exporters compute either.
const ULPS: u64 = 1;

const EPS: &str = "eps of config.json";
const EPS_CLAMPED: &str = "eps of config.json, clamped by the conversion";
const EPS_FLUSHED: &str = "eps of config.json, flushed to 0 by the conversion";

/// Attributes that the specification gives a value where a node leaves them out: op, attribute, default.
const DEFAULTS: [(&str, &str, f32); 4] = [
    ("LayerNormalization", "epsilon", 1e-5),
    ("SkipLayerNormalization", "epsilon", 1e-12),
    ("EmbedLayerNormalization", "epsilon", 1e-12),
    ("QuickGelu", "alpha", 1.702),
];

/// A number that the reference computes with, and what it is.
pub(crate) type Known = (&'static str, f64);

/// The numbers that a reference of this config computes with, and those that exporters make of them.
fn known(program: &Program) -> Vec<Known> {
    let d = program.head_size().unwrap_or(1) as f64;
    let tanh_factor = match program.activation() {
        // Its formula has the number with ten digits.
        Some(Activation::GeluFast) => ("0.7978845608", 0.797_884_560_8),
        _ => ("√(2/π)", (2.0 / PI).sqrt()),
    };
    vec![
        (EPS, program.eps().unwrap_or_default()),
        ("√2", SQRT_2),
        ("1/√2", FRAC_1_SQRT_2),
        tanh_factor,
        ("0.044715", 0.044715),
        ("1.702", 1.702),
        ("√d", d.sqrt()),
        ("1/√d", 1.0 / d.sqrt()),
        ("d^¼", d.powf(0.25)),
        ("d^-¼", d.powf(-0.25)),
    ]
}

/// The promotions for a graph, whose nodes are given with its functions written out, and a list of them for the report.
pub fn promotions<'a>(
    model: &Model,
    nodes: impl Iterator<Item = &'a Node>,
    program: &Program,
) -> (Promotions, Vec<Promoted>) {
    promotions_to(model, nodes, &known(program))
}

/// The same for other numbers than those of a config.
pub(crate) fn promotions_to<'a>(
    model: &Model,
    nodes: impl Iterator<Item = &'a Node>,
    known: &[Known],
) -> (Promotions, Vec<Promoted>) {
    promoted(model, nodes, |_, scalar| single(scalar, known))
}

/// The same with constants of half precision, for a run that does not round them. `eps` are the values that stand in the place of a layer norm's eps.
pub(crate) fn half_promotions<'a>(
    model: &Model,
    nodes: impl Iterator<Item = &'a Node>,
    program: &Program,
    eps: &[&str],
) -> (Promotions, Vec<Promoted>) {
    let known = known(program);
    promoted(model, nodes, |name, scalar| {
        let Scalar { dtype, number } = scalar;
        match dtype {
            DType::F16 | DType::BF16 if eps.contains(&name) => {
                let eps = program.eps().unwrap_or_default();
                Some((converted_eps(number, dtype, eps)?, eps))
            }
            // Elsewhere a 0 is a 0, though f16 has no other number for most an eps.
            DType::F16 | DType::BF16 => known
                .iter()
                .find(|(meaning, to)| *meaning != EPS && half_ulps(number, *to, dtype) <= ULPS)
                .copied(),
            _ => single(scalar, &known),
        }
    })
}

/// The number that an f32 is the rounding of.
fn single(Scalar { dtype, number }: Scalar, known: &[Known]) -> Option<Known> {
    let near = |&&(_, to): &&Known| number.is_finite() && ulp_distance_f32(number, to as f32) <= ULPS;
    known.iter().find(near).copied().filter(|_| dtype == DType::F32)
}

fn promoted<'a>(
    model: &Model,
    nodes: impl Iterator<Item = &'a Node>,
    find: impl Fn(&str, Scalar) -> Option<Known>,
) -> (Promotions, Vec<Promoted>) {
    // One that is exact needs nothing.
    let find =
        |name: &str, scalar: Scalar| find(name, scalar).filter(|(_, to)| f64::from(scalar.number) != *to);
    let mut promotions = Promotions::default();
    let mut promoted = Vec::new();
    let mut note = |name: String, from: f32, (meaning, to): Known| {
        promoted.push(Promoted { name, meaning: meaning.into(), from, to });
    };
    for (name, tensor) in &model.graph.initializers {
        if let Some((from, found)) = scalar(tensor).and_then(|from| Some((from, find(name, from)?))) {
            promotions.value(name, found.1);
            note(name.clone(), from.number, found);
        }
    }
    for node in nodes {
        if node.op == "Constant" {
            let (Some(from), Some(name)) = (constant(node), node.outputs.first()) else { continue };
            if let Some(found) = find(name, from) {
                promotions.value(name, found.1);
                note(name.clone(), from.number, found);
            }
            continue;
        }
        let written = node.attributes.iter().filter_map(|(name, attribute)| match attribute {
            Attribute::Float(from) => Some((name.as_str(), *from)),
            _ => None,
        });
        let default = DEFAULTS
            .iter()
            .filter(|(op, name, _)| *op == node.op && !node.attributes.contains_key(*name))
            .map(|&(_, name, from)| (name, from));
        for (name, from) in written.chain(default) {
            if let Some(found) = find(name, Scalar { dtype: DType::F32, number: from }) {
                promotions.attribute(&node.name, name, found.1);
                note(format!("{}.{name}", node.name), from, found);
            }
        }
    }
    (promotions, promoted)
}

/// What a half-precision number in the place of an eps is a conversion of; nothing if it is none of the config's.
fn converted_eps(found: f32, dtype: DType, eps: f64) -> Option<&'static str> {
    let rounded = match dtype {
        DType::F16 => f16::from_f64(eps).to_f32(),
        _ => bf16::from_f64(eps).to_f32(),
    };
    if found == rounded {
        return Some(if found == 0.0 { EPS_FLUSHED } else { EPS });
    }
    (dtype == DType::F16 && rounded < found && F16_CLAMPS.contains(&found)).then_some(EPS_CLAMPED)
}

/// How many numbers of a half-precision dtype lie between one of them and the rounding of another.
fn half_ulps(from: f32, to: f64, dtype: DType) -> u64 {
    let (from, to) = match dtype {
        DType::F16 => (f16::from_f32(from).to_bits(), f16::from_f64(to).to_bits()),
        _ => (bf16::from_f32(from).to_bits(), bf16::from_f64(to).to_bits()),
    };
    // The known numbers are positive, and negative ones have the largest bits.
    from.abs_diff(to).into()
}

/// A number that a graph holds, and the dtype that it is a number of.
#[derive(Clone, Copy)]
struct Scalar {
    dtype: DType,
    number: f32,
}

/// The element of a float tensor that has just one; none of f64, which is not rounded.
fn scalar(tensor: &Tensor) -> Option<Scalar> {
    let (dtype, bytes) = (tensor.dtype, tensor.bytes.as_ref());
    let number = match dtype {
        _ if tensor.shape.iter().any(|&size| size != 1) => None,
        DType::F32 => bytes.try_into().ok().map(f32::from_le_bytes),
        DType::F16 => bytes.try_into().ok().map(|bytes| f16::from_le_bytes(bytes).to_f32()),
        DType::BF16 => bytes.try_into().ok().map(|bytes| bf16::from_le_bytes(bytes).to_f32()),
        _ => None,
    };
    number.map(|number| Scalar { dtype, number })
}

/// The one float that a `Constant` gives.
fn constant(node: &Node) -> Option<Scalar> {
    match (node.attributes.get("value"), node.attributes.get("value_float")) {
        (Some(Attribute::Tensor(tensor)), _) => scalar(tensor),
        (_, Some(Attribute::Float(number))) => Some(Scalar { dtype: DType::F32, number: *number }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eps_that_f16_cannot_hold_is_known_by_what_converters_make_of_it() {
        let of = |found: f32, eps: f64| converted_eps(found, DType::F16, eps);
        assert_eq!(of(0.0, 1e-12), Some(EPS_FLUSHED));
        for clamp in F16_CLAMPS {
            assert_eq!(of(clamp, 1e-12), Some(EPS_CLAMPED));
            // Nothing that f16 holds is clamped.
            assert_eq!(of(clamp, 1e-5), None);
        }
        assert_eq!(of(f16::from_f32(1e-5).to_f32(), 1e-5), Some(EPS));
        assert_eq!(of(f16::from_f32(1e-5).to_f32(), 1e-12), None);
        assert_eq!(of(0.0, 1e-5), None);
        assert_eq!(converted_eps(bf16::from_f64(1e-12).to_f32(), DType::BF16, 1e-12), Some(EPS));
    }

    #[test]
    fn halves_are_counted_in_their_own_numbers() {
        let root = f16::from_f64(SQRT_2);
        let next = f16::from_bits(root.to_bits() + 1).to_f32();
        assert_eq!(half_ulps(root.to_f32(), SQRT_2, DType::F16), 0);
        assert_eq!(half_ulps(next, SQRT_2, DType::F16), 1);
        assert!(half_ulps(-root.to_f32(), SQRT_2, DType::F16) > 1000);
        assert!(half_ulps(1.402, SQRT_2, DType::F16) > ULPS);
    }
}
