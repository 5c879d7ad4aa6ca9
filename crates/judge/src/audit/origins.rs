//! Where the constants of a graph come from that are no weights: eps, scales, masks, the constants of activations.

use std::collections::HashSet;

use architecture::Program;
use engine::DType;

use super::data::floats;
use super::flow::{Flow, Step, ValueId};
use super::{Constant, Finding, FindingKind, Leftover, Origin};
use crate::compare::ulp_distance_f32;

/// Constants such as 1/√d are rounded to f32 after one or two operations in f32.
const MOST_ULP: u64 = 1;

/// Scores are of the order of 10: nothing else of a BERT is below this.
const MASK: f64 = -1e3;

/// Counts and exponents: 0, 1, 2, 3, …
const LARGEST_COUNT: f64 = 16.0;

/// What ONNX's operators and Microsoft's take for `epsilon` where a node does not say.
const DEFAULT_EPSILON: [(&str, f32); 7] = [
    ("LayerNormalization", 1e-5),
    ("SimplifiedLayerNormalization", 1e-5),
    ("RMSNormalization", 1e-5),
    ("SkipLayerNormalization", 1e-12),
    ("SkipSimplifiedLayerNormalization", 1e-12),
    ("EmbedLayerNormalization", 1e-12),
    ("QEmbedLayerNormalization", 1e-12),
];

/// What converters replace numbers by that f16 would flush to zero: onnxruntime's by the smallest subnormal, that of onnxconverter-common by 1e-7,
/// which is 2⁻²³ in f16.
pub(crate) const F16_CLAMPS: [f32; 2] = [5.960_464_5e-8, 1.192_092_9e-7];

/// The constants of a graph, each with its origin or left over.
#[derive(Default)]
pub(super) struct Origins {
    pub constants: Vec<Constant>,
    pub leftover: Vec<Leftover>,
    pub findings: Vec<Finding>,
}

/// Goes through all constants but those that carry weights or belong to quantization.
pub(super) fn origins(
    flow: &Flow,
    program: &Program,
    weights: &HashSet<ValueId>,
    quantization: &HashSet<ValueId>,
    module_of: &dyn Fn(&Step) -> Option<String>,
) -> Origins {
    let mut found = Origins::default();
    for held in &flow.held {
        if weights.contains(&held.value) {
            continue;
        }
        let Some(elements) = floats(&held.tensor) else { continue };
        let quantized = quantization.contains(&held.value) || is_step(flow, held.value);
        let first = elements.first().copied();
        let uniform = first.filter(|&first| elements.iter().all(|x| x.to_bits() == first.to_bits()));
        let origin = match uniform {
            _ if quantized => Some(Origin::Quantization),
            Some(x) => found.classify(flow, program, held.value, &held.name, x, module_of),
            None => None,
        };
        match (origin, first) {
            (Some(origin), Some(value)) => {
                let value = f64::from(value);
                found.constants.push(Constant {
                    name: held.name.clone(),
                    value: super::finite(value),
                    origin,
                });
            }
            (None, Some(_)) => found.leftover.push(Leftover {
                name: held.name.clone(),
                dtype: held.tensor.dtype.to_string(),
                shape: held.tensor.shape.clone(),
                least: elements.iter().copied().map(f64::from).reduce(f64::min).and_then(super::finite),
                greatest: elements.iter().copied().map(f64::from).reduce(f64::max).and_then(super::finite),
                used_by: flow.consumers[held.value]
                    .first()
                    .map(|&(step, _)| flow.steps[step].node.op.clone()),
            }),
            (_, None) => {}
        }
    }
    for step in &flow.steps {
        found.attributes(program, step, module_of);
    }
    found
}

impl Origins {
    fn classify(
        &mut self,
        flow: &Flow,
        program: &Program,
        value: ValueId,
        name: &str,
        x: f32,
        module_of: &dyn Fn(&Step) -> Option<String>,
    ) -> Option<Origin> {
        let eps_of = flow
            .uses(value)
            .into_iter()
            .map(|at| &flow.steps[at.step])
            .find(|step| adds_eps(flow, step, value));
        if let Some(step) = eps_of {
            let dtype = flow.held_at.get(&value).map(|&at| flow.held[at].tensor.dtype);
            self.eps(program, x, dtype.unwrap_or(DType::F32), name, module_of(step));
            return Some(Origin::LayerNormEps);
        }
        if f64::from(x) <= MASK {
            self.mask(x, name);
            return Some(Origin::Mask);
        }
        let ops: Vec<&str> = flow.uses(value).iter().map(|at| flow.steps[at.step].node.op.as_str()).collect();
        if !ops.is_empty() && ops.iter().all(|op| matches!(*op, "Clip" | "Max" | "Min")) {
            return Some(Origin::Bound);
        }
        number(program, x)
    }

    /// The eps of one layer norm, against config.json.
    fn eps(&mut self, program: &Program, found: f32, dtype: DType, name: &str, module: Option<String>) {
        let expected = program.eps().unwrap_or_default() as f32;
        let converted = match dtype {
            DType::F16 => {
                let rounded = half::f16::from_f32(expected).to_f32();
                found == rounded || rounded < found && F16_CLAMPS.contains(&found)
            }
            DType::BF16 => found == half::bf16::from_f32(expected).to_f32(),
            _ => false,
        };
        if program.has_eps(found) || converted {
            return;
        }
        let place = module.as_ref().map_or_else(|| format!("'{name}'"), Clone::clone);
        let message = format!(
            "{place}: eps is {} in the graph, {:e} in config.json",
            shown(found),
            program.eps().unwrap_or_default()
        );
        self.findings.push(Finding { module, ..Finding::fails(FindingKind::Eps, [], message) });
    }

    fn mask(&mut self, x: f32, name: &str) {
        let message = format!("mask constant is {} ('{name}')", shown(x));
        let same = |finding: &Finding| {
            finding.kind == FindingKind::Mask
                && finding.message.starts_with(&format!("mask constant is {} (", shown(x)))
        };
        if !self.findings.iter().any(same) {
            self.findings.push(Finding::note(FindingKind::Mask, message));
        }
    }

    /// The float attributes of a node that have to do with what the model computes.
    fn attributes(&mut self, program: &Program, step: &Step, module_of: &dyn Fn(&Step) -> Option<String>) {
        let node = &step.node;
        let default = DEFAULT_EPSILON.iter().find(|(op, _)| *op == node.op).map(|&(_, epsilon)| epsilon);
        if let Some(default) = default {
            let epsilon = node.float("epsilon").ok().flatten().unwrap_or(default);
            let name = format!("{}.epsilon", node.name);
            self.eps(program, epsilon, DType::F32, &name, module_of(step));
            self.constants.push(Constant {
                name,
                value: super::finite(epsilon.into()),
                origin: Origin::LayerNormEps,
            });
        }
        for (attribute, value) in &node.attributes {
            let onnx_graph::Attribute::Float(x) = *value else { continue };
            let name = format!("{}.{attribute}", node.name);
            let origin = match attribute.as_str() {
                "epsilon" if default.is_some() => continue,
                "mask_filter_value" => {
                    self.mask(x, &name);
                    Some(Origin::Mask)
                }
                "softcap" | "ratio" if x == 0.0 => Some(Origin::Neutral),
                // 0 stands for 1/√d in Microsoft's operators.
                "scale" if x == 0.0 => Some(Origin::AttentionScale),
                "alpha" | "beta" if x == 1.0 => Some(Origin::Neutral),
                // The half of a GELU is fused into the product that follows. One that is doubled has no reason that a number could tell.
                "alpha" | "beta" => number(program, x).filter(|&origin| origin != Origin::Number || x == 0.5),
                _ => number(program, x),
            };
            match origin {
                Some(origin) => {
                    self.constants.push(Constant { name, value: super::finite(x.into()), origin })
                }
                None => self.leftover.push(Leftover {
                    name,
                    dtype: "f32".into(),
                    shape: Vec::new(),
                    least: super::finite(x.into()),
                    greatest: super::finite(x.into()),
                    used_by: Some(node.op.clone()),
                }),
            }
        }
    }
}

/// What a number stands for by its value, rounded to f32 or f16.
fn number(program: &Program, x: f32) -> Option<Origin> {
    let is = |y: f64| ulp_distance_f32(x, y as f32) <= MOST_ULP || x == half::f16::from_f64(y).to_f32();
    let head = program.head_size().unwrap_or(1) as f64;
    let magnitude = f64::from(x).abs();
    let pi = std::f64::consts::PI;
    // Half of the tanh form's constants are products of two others.
    let activation = [
        std::f64::consts::SQRT_2,
        std::f64::consts::FRAC_1_SQRT_2,
        (2.0 / pi).sqrt(),
        0.797_884_560_8,
        0.044_715,
        0.044_715 * (2.0 / pi).sqrt(),
        1.702,
    ];
    if [0.5, -0.5, 0.25, -0.25].iter().any(|&half| head.powf(half) != 1.0 && is(head.powf(half))) {
        Some(Origin::AttentionScale)
    } else if activation.into_iter().any(is) {
        Some(Origin::Activation)
    } else if magnitude == 0.5 || magnitude <= LARGEST_COUNT && magnitude.fract() == 0.0 {
        Some(Origin::Number)
    } else {
        None
    }
}

/// Whether a node adds this constant to a variance: what it gives goes to a root, and the other side is a mean.
fn adds_eps(flow: &Flow, step: &Step, value: ValueId) -> bool {
    if step.node.op != "Add" {
        return false;
    }
    let roots = step.outputs.iter().flatten().flat_map(|&output| &flow.consumers[output]).any(
        |&(consumer, index)| {
            let consumer = &flow.steps[consumer];
            let power = || consumer.inputs.get(1).copied().flatten().and_then(|power| flow.scalar(power));
            match consumer.node.op.as_str() {
                "Sqrt" | "Rsqrt" => true,
                "Pow" => index == 0 && power().is_some_and(|power| power.abs() == 0.5),
                _ => false,
            }
        },
    );
    let mean = |mut value: ValueId| {
        // Casts of half precision lie between.
        for _ in 0..4 {
            match flow
                .made_by(value)
                .map(|step| (step.node.op.as_str(), step.inputs.first().copied().flatten()))
            {
                Some(("ReduceMean", _)) => return true,
                Some(("Cast" | "Identity", Some(input))) => value = input,
                _ => return false,
            }
        }
        false
    };
    roots && step.inputs.iter().flatten().any(|&input| input != value && mean(input))
}

/// Whether a float is a quantization step, of weights or activations.
fn is_step(flow: &Flow, value: ValueId) -> bool {
    flow.consumers[value].iter().any(|&(step, index)| {
        matches!(
            (flow.steps[step].node.op.as_str(), index),
            ("DequantizeLinear" | "QuantizeLinear", 1)
                | ("QEmbedLayerNormalization", 8..)
                | ("QAttention", 3 | 4)
                | ("MatMulIntegerToFloat", 2 | 3)
                | ("DynamicQuantizeMatMul", 2)
                | ("MatMulNBits", 2 | 3)
                | ("MatMulBnb4", 2)
                | ("QLinearMatMul" | "QLinearAdd" | "QLinearMul", 1 | 4 | 6)
                | ("QGemm", 1 | 4 | 7)
                | ("QLinearLeakyRelu" | "QLinearSigmoid" | "QLinearSoftmax", 1 | 3)
                | ("QLinearWhere", 2 | 5 | 7)
                | ("QLinearConcat", 0 | 3..)
        )
    })
}

/// A number as short as f32 allows.
fn shown(x: f32) -> String {
    if x != 0.0 && (x.abs() < 1e-3 || x.abs() >= 1e6) { format!("{x:e}") } else { format!("{x}") }
}
