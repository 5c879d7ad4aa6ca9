//! Which of a graph's constants are the rounding of a number that the reference knows, to f32 or to
//! half precision.
//!
//! A file can hold √2 only as an f32, which alone puts a correct export 1e-7 off in f64. In the
//! proof such a constant is taken for the number that it is the rounding of. The list of numbers is
//! short: see [`Numbers`].
//!
//! Only constants of one element and attributes are taken for one of them, within one ULP; and for
//! 1/n also a tensor that has it everywhere, since a mean may be a product with a column of 1/n. Of
//! the frequencies of rotary positions, and of tables of their cosines and sines, each element is
//! taken for its own number. What carries a weight of the checkpoint never is.

use std::collections::HashSet;

use architecture::{Program, Rotation};
use engine::DType;
use half::{bf16, f16};
use onnx_eval::{Oracle, Promotions};
use onnx_graph::{Attribute, Tensor};
use report::{Audit, Promoted};

use super::numbers::{EPS, Known, Numbers};
use crate::audit::F16_CLAMPS;
use crate::compare::ulp_distance_f32;

/// How far a constant may be, in numbers of its dtype, from the rounding of the number it is taken
/// for: 1/f32(√d) is one ULP off f32(1/√d) at d = 24 or 96, and exporters compute either.
const ULPS: u64 = 1;

const EPS_CLAMPED: &str = "eps of config.json, clamped by the conversion";
const EPS_FLUSHED: &str = "eps of config.json, flushed to 0 by the conversion";

/// Attributes that the specification gives a value where a node leaves them out: op, attribute, default.
const DEFAULTS: [(&str, &str, f32); 4] = [
    ("LayerNormalization", "epsilon", 1e-5),
    ("SkipLayerNormalization", "epsilon", 1e-12),
    ("EmbedLayerNormalization", "epsilon", 1e-12),
    ("QuickGelu", "alpha", 1.702),
];

/// What the audit found to carry a tensor of the checkpoint, element by element.
pub(crate) fn carrying(audit: &Audit) -> HashSet<&str> {
    let sure = audit.traced.iter().filter(|trace| trace.differing == 0);
    sure.map(|trace| trace.initializer.as_str()).collect()
}

/// The promotions for a graph, and a list of them for the report. None of `weights` is promoted:
/// the names of values that carry a tensor of the checkpoint.
pub fn promotions(
    oracle: &Oracle,
    program: &Program,
    weights: &HashSet<&str>,
) -> (Promotions, Vec<Promoted>) {
    promotions_to(oracle, &Numbers::of(program), weights)
}

/// The promotions to other numbers than those of a config.
pub(crate) fn promotions_to(
    oracle: &Oracle,
    numbers: &Numbers,
    weights: &HashSet<&str>,
) -> (Promotions, Vec<Promoted>) {
    promoted(oracle, weights, numbers, |_, constant| single(numbers, constant))
}

/// The promotions where constants are of half precision, for a run that does not round them. `eps`
/// are the values that stand in the place of a layer norm's eps.
pub(crate) fn half_promotions(
    oracle: &Oracle,
    program: &Program,
    weights: &HashSet<&str>,
    eps: &[&str],
) -> (Promotions, Vec<Promoted>) {
    let numbers = Numbers::of(program);
    promoted(oracle, weights, &numbers, |name, constant| {
        let Uniform { dtype, number, elements } = constant;
        match dtype {
            DType::F16 | DType::BF16 if eps.contains(&name) => {
                let eps = program.eps().unwrap_or_default();
                Some((converted_eps(number, dtype, eps)?.into(), eps))
            }
            // Elsewhere a 0 is a 0, though f16 has no other number for most an eps.
            DType::F16 | DType::BF16 => numbers
                .of_size(elements, dtype)
                .find(|(meaning, to)| *meaning != EPS && half_ulps(number, *to, dtype) <= ULPS)
                .cloned(),
            _ => single(&numbers, constant),
        }
    })
}

/// The number that an f32 is the rounding of.
fn single(numbers: &Numbers, constant: Uniform) -> Option<Known> {
    let Uniform { dtype, number, elements } = constant;
    let near = |to: f64| number.is_finite() && ulp_distance_f32(number, to as f32) <= ULPS;
    numbers.of_size(elements, dtype).find(|(_, to)| dtype == DType::F32 && near(*to)).cloned()
}

fn promoted(
    oracle: &Oracle,
    weights: &HashSet<&str>,
    numbers: &Numbers,
    find: impl Fn(&str, Uniform) -> Option<Known>,
) -> (Promotions, Vec<Promoted>) {
    // One that is exact needs nothing.
    let find = |name: &str, constant: Uniform| {
        find(name, constant).filter(|(_, to)| f64::from(constant.number) != *to)
    };
    let mut promotions = Promotions::default();
    let mut promoted = Vec::new();
    let mut note = |name: String, from: f32, (meaning, to): Known| {
        promoted.push(Promoted { name, meaning, from, to });
    };
    for constant in oracle.constants().filter(|constant| !weights.contains(constant.name)) {
        if let Some(Turning { meaning, exact, at, from }) = Turning::of(numbers, &constant.tensor) {
            note(constant.name.into(), from, (meaning.into(), exact[at]));
            promotions.elements(constant.place, exact);
            continue;
        }
        let Some(held) = uniform(&constant.tensor) else { continue };
        if let Some(found) = find(constant.name, held) {
            promotions.constant(constant.place, found.1);
            note(constant.name.into(), held.number, found);
        }
    }
    // What a `Constant` holds is one of the constants.
    for (id, node) in oracle.all_nodes().filter(|(_, node)| node.op != "Constant") {
        let written = node.attributes.iter().filter_map(|(name, attribute)| match attribute {
            Attribute::Float(from) => Some((name.as_str(), *from)),
            _ => None,
        });
        let default = DEFAULTS
            .iter()
            .filter(|(op, name, _)| *op == node.op && !node.attributes.contains_key(*name))
            .map(|&(_, name, from)| (name, from));
        for (name, number) in written.chain(default) {
            let attribute = Uniform { dtype: DType::F32, number, elements: 1 };
            if let Some(found) = find(name, attribute) {
                promotions.attribute(id, name, found.1);
                note(format!("{}.{name}", node.name), number, found);
            }
        }
    }
    (promotions, promoted)
}

/// A constant of f32 that rotary positions are computed with.
struct Turning {
    meaning: String,
    /// What its elements are the rounding of, one of which is not exact there, with its number.
    exact: Vec<f64>,
    at: usize,
    /// What stands for that one.
    from: f32,
}

impl Turning {
    /// Nothing if a constant is none, or has its numbers exactly.
    fn of(numbers: &Numbers, tensor: &Tensor) -> Option<Self> {
        let width = tensor.shape.iter().rev().find(|size| **size != 1).copied().unwrap_or(1);
        let is_as_wide = |rotation: &Rotation| [rotation.size, rotation.size / 2].contains(&width);
        if tensor.dtype != DType::F32 || !numbers.rotations.iter().any(is_as_wide) {
            return None;
        }
        let element = |bytes: &[u8]| Some(f32::from_le_bytes(bytes.try_into().ok()?));
        let found: Vec<f32> = tensor.bytes.chunks(4).map(element).collect::<Option<_>>()?;
        numbers.rotations.iter().find_map(|rotation| {
            let base = rotation.base;
            Self::frequencies(rotation, &found, format!("frequencies of base {base}"))
                .or_else(|| {
                    Self::table(
                        rotation,
                        (&tensor.shape, &found),
                        f64::cos,
                        format!("cosines of base {base}"),
                    )
                })
                .or_else(|| {
                    Self::table(rotation, (&tensor.shape, &found), f64::sin, format!("sines of base {base}"))
                })
        })
    }

    fn frequencies(rotation: &Rotation, found: &[f32], meaning: String) -> Option<Self> {
        let exact: Vec<f64> = rotation.frequencies().collect();
        let ulps = ULPS + frequency_ulps(rotation);
        let near = |(&found, &exact): (&f32, &f64)| {
            found.is_finite() && ulp_distance_f32(found, exact as f32) <= ulps
        };
        (found.len() == exact.len() && found.iter().zip(&exact).all(near))
            .then(|| Self::first_off(found, exact, meaning))?
    }

    /// A row of cosines or sines for each place from the first on, the same for each text.
    fn table(
        rotation: &Rotation,
        (shape, found): (&[usize], &[f32]),
        function: fn(f64) -> f64,
        meaning: String,
    ) -> Option<Self> {
        let axes: Vec<usize> = shape.iter().copied().filter(|&size| size != 1).collect();
        let (&width, before) = axes.split_last()?;
        let places = *before.last()?;
        let pairs = rotation.size / 2;
        if width != rotation.size && width != pairs || found.len() != shape.iter().product::<usize>() {
            return None;
        }
        let frequencies: Vec<f64> = rotation.frequencies().collect();
        let pair = |feature: usize| if width == pairs { feature } else { rotation.pair(feature) };
        let ulp = f64::from(f32::EPSILON);
        let relative = ulp * (2 + frequency_ulps(rotation)) as f64;
        let mut exact = Vec::with_capacity(found.len());
        for (at, &found) in found.iter().enumerate() {
            let angle = (at / width % places) as f64 * frequencies[pair(at % width)];
            let meant = function(angle);
            // As far off as its angle is, and rounded itself.
            if (f64::from(found) - meant).abs() > angle * relative + ulp {
                return None;
            }
            exact.push(meant);
        }
        Self::first_off(found, exact, meaning)
    }

    fn first_off(found: &[f32], exact: Vec<f64>, meaning: String) -> Option<Self> {
        let at = found.iter().zip(&exact).position(|(&found, &exact)| f64::from(found) != exact)?;
        Some(Self { meaning, from: found[at], exact, at })
    }
}

/// How far PyTorch's frequencies are off at most, in f32's last places: the exponent is rounded,
/// which the logarithm of the base magnifies, and so are the power and what is made of it.
fn frequency_ulps(rotation: &Rotation) -> u64 {
    2 + rotation.base.ln().abs().ceil() as u64
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

/// The number that all elements of a constant are, and the dtype that it is a number of.
#[derive(Clone, Copy)]
struct Uniform {
    dtype: DType,
    number: f32,
    elements: usize,
}

/// What a float tensor has everywhere, if it has; none of f64, which is not rounded.
fn uniform(tensor: &Tensor) -> Option<Uniform> {
    let bytes = tensor.bytes.as_ref();
    let elements: usize = tensor.shape.iter().product();
    let first = bytes.get(..bytes.len().checked_div(elements)?)?;
    let number = match tensor.dtype {
        DType::F32 => f32::from_le_bytes(first.try_into().ok()?),
        DType::F16 => f16::from_le_bytes(first.try_into().ok()?).to_f32(),
        DType::BF16 => bf16::from_le_bytes(first.try_into().ok()?).to_f32(),
        _ => return None,
    };
    let same = bytes.chunks(first.len()).all(|element| element == first);
    same.then_some(Uniform { dtype: tensor.dtype, number, elements })
}

#[cfg(test)]
mod tests {
    use std::f64::consts::SQRT_2;

    use super::super::numbers::{logs, mean, of_heads};
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

    #[test]
    fn a_tensor_is_the_same_everywhere_or_no_number() {
        let tensor = |elements: Vec<f32>| {
            let size = elements.len();
            Tensor::from_value(&engine::Value::new([size, 1], elements).unwrap())
        };
        let numbers =
            Numbers { means: vec![mean(24)], single: of_heads(3).into(), logs: logs(), ..Numbers::default() };
        let of = |elements: Vec<f32>| {
            uniform(&tensor(elements)).and_then(|held| single(&numbers, held)).map(|(meaning, _)| meaning)
        };
        let near = |x: f32| f32::from_bits(x.to_bits() + 1);
        let (n, root) = (1.0 / 24.0, 3f32.sqrt());
        assert_eq!(of(vec![n; 24]).as_deref(), Some("1/24 of a mean"));
        assert_eq!(of(vec![near(n); 24]).as_deref(), Some("1/24 of a mean"));
        assert_eq!(of(vec![near(near(n)); 24]), None);
        assert_eq!(of([vec![n; 23], vec![near(n)]].concat()), None);
        // No other number stands in more than one element.
        assert_eq!(of(vec![root]).as_deref(), Some("√d"));
        assert_eq!(of(vec![root; 2]), None);
        assert_eq!(of(vec![16f32.ln()]).as_deref(), Some("ln 16"));
        assert_eq!(of(vec![16f32.ln(); 2]), None);
        assert_eq!(of(Vec::new()), None);
    }

    #[test]
    fn what_carries_a_weight_is_not_promoted() {
        let mut model = onnx_graph::Model {
            ir_version: 8,
            opsets: [(String::new(), 17)].into(),
            ..onnx_graph::Model::default()
        };
        let column = engine::Value::new([24, 1], vec![1f32 / 24.0; 24]).unwrap();
        for name in ["column", "weight"] {
            model.graph.initializers.insert(name.into(), Tensor::from_value(&column));
        }
        let oracle = Oracle::new(&model).unwrap();
        let numbers = Numbers { means: vec![mean(24)], ..Numbers::default() };
        let names = |weights: &[&str]| -> Vec<String> {
            let (_, promoted) = promotions_to(&oracle, &numbers, &weights.iter().copied().collect());
            promoted.into_iter().map(|promoted| promoted.name).collect()
        };
        assert_eq!(names(&[]), ["column", "weight"]);
        assert_eq!(names(&["weight"]), ["column"]);
    }
}
