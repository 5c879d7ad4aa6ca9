//! The graph's side: the tensors it holds that may carry weights, with the nodes that use them.

use std::collections::HashSet;

use engine::DType;

use super::data::{floats, is_rounded};
use super::flow::{Flow, Step, Use, ValueId};
use super::places::needs_transposed;
use super::weights::Weight;

/// A tensor of the graph that may carry weights.
pub(super) struct Carrier {
    pub value: ValueId,
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Its elements in f32, dequantised if they are integers.
    pub elements: Vec<f32>,
    /// The quantization steps, one or one for each element of the last axes.
    pub steps: Option<Vec<f32>>,
    /// Some f64 has no equal in f32.
    pub rounded: bool,
    pub uses: Vec<Use>,
    /// Whether a node takes it for a matrix to multiply with.
    pub multiplied: bool,
    /// The tensor that its own name says it is.
    pub named: Option<usize>,
    /// The tensor that the name of a node that uses it speaks of.
    pub scoped: Option<usize>,
    /// The same element everywhere: such a tensor says nothing about where it comes from.
    pub uniform: bool,
}

impl Carrier {
    /// The tensor that names speak of.
    pub fn hint(&self) -> Option<usize> {
        self.named.or(self.scoped)
    }

    /// Dimensions other than 1.
    pub fn dims(&self) -> Vec<usize> {
        self.shape.iter().copied().filter(|&dim| dim != 1).collect()
    }
}

/// All that may carry weights, and the steps and zero points of quantized ones, which need no further origin.
pub(super) fn carriers(flow: &Flow, weights: &[Weight]) -> (Vec<Carrier>, HashSet<ValueId>) {
    let quantizations: Vec<Option<Quantization>> = flow
        .held
        .iter()
        .map(|held| {
            let eight_bits = matches!(held.tensor.dtype, DType::I8 | DType::U8);
            if eight_bits { quantization(flow, held.value) } else { None }
        })
        .collect();
    let parameters: HashSet<ValueId> =
        quantizations.iter().flatten().flat_map(|by| [Some(by.scale), by.zero_point]).flatten().collect();
    let mut carriers = Vec::new();
    for (held, quantization) in flow.held.iter().zip(&quantizations) {
        let tensor = &held.tensor;
        let uses = flow.uses(held.value);
        let named = weights.iter().position(|weight| names(&held.name, weight));
        let scoped = scoped(flow, &uses, tensor.shape.len(), weights);
        // A scalar carries no weights, unless it is called the bias of a regression or a choice; and a step is no bias, though it may have a bias' shape
        // and a name like one.
        let single = |&at: &usize| weights[at].elements.len() == 1;
        let few = tensor.shape.iter().product::<usize>() < 2 && named.or(scoped).filter(single).is_none();
        if few || parameters.contains(&held.value) {
            continue;
        }
        let found = match quantization {
            Some(by) => dequantise(flow, held.value, by).map(|(elements, steps)| (elements, Some(steps))),
            None => floats(tensor).map(|elements| (elements, None)),
        };
        let Some((elements, steps)) = found else { continue };
        carriers.push(Carrier {
            value: held.value,
            name: held.name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            rounded: is_rounded(tensor.dtype, &tensor.bytes),
            named,
            scoped,
            multiplied: uses.iter().any(|&at| needs_transposed(&flow.steps[at.step], at).is_some()),
            uniform: elements.iter().all(|x| Some(x) == elements.first()),
            uses,
            elements,
            steps,
        });
    }
    (carriers, parameters)
}

/// Whether a name in the graph contains that of a tensor, or of a module, as whole words.
fn names(name: &str, weight: &Weight) -> bool {
    let whole = |wanted: &str| {
        name.match_indices(wanted).any(|(at, _)| {
            let before = name[..at].chars().next_back();
            let after = name[at + wanted.len()..].chars().next();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
                && !after.is_some_and(|c| c.is_alphanumeric() || c == '.')
        })
    };
    whole(&weight.name) || weight.old_name.as_ref().is_some_and(|old| whole(old))
}

/// The tensor that the name or the metadata of a node speaks of: TorchScript's `/model/encoder/layer.0/attention/self/query/MatMul`, and
/// the dynamo exporter's scopes.
fn scoped(flow: &Flow, uses: &[Use], rank: usize, weights: &[Weight]) -> Option<usize> {
    uses.iter().find_map(|at| {
        let node = &flow.steps[at.step].node;
        let path = node.name.replace('/', ".");
        let scopes = node.metadata.get("pkg.torch.onnx.name_scopes");
        let parameter = match (node.op.as_str(), at.index) {
            ("LayerNormalization", 2) => "bias",
            ("LayerNormalization", _) => "weight",
            ("Add", _) | ("Gemm", 2) => "bias",
            ("Mul" | "Gather", _) => "weight",
            _ if rank < 2 => "bias",
            _ => "weight",
        };
        weights.iter().position(|weight| {
            let said = |text: &str| speaks_of(text, weight.module());
            weight.is_used()
                && weight.name.ends_with(parameter)
                && (said(&path) || scopes.is_some_and(|scopes| said(scopes)))
        })
    })
}

/// Whether a path leads through a module, as whole words.
fn speaks_of(path: &str, module: &str) -> bool {
    path.match_indices(module).any(|(at, _)| {
        let before = path[..at].chars().next_back();
        let after = path[at + module.len()..].chars().next();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// How integers stand for floats: `(x − zero point) · scale`.
struct Quantization {
    scale: ValueId,
    zero_point: Option<ValueId>,
    /// The axis that scales of several elements belong to, counted from the first or, if negative, the last.
    axis: i64,
}

/// The scale and zero point of quantized weights, from the node that uses them.
fn quantization(flow: &Flow, value: ValueId) -> Option<Quantization> {
    flow.consumers[value].iter().find_map(|&(step, index)| {
        let at = &flow.steps[step];
        let input = |index: usize| at.inputs.get(index).copied().flatten();
        let last =
            |scale: Option<ValueId>, zero_point| Some(Quantization { scale: scale?, zero_point, axis: -1 });
        match (at.node.op.as_str(), index) {
            ("DequantizeLinear", 0) => {
                let axis = at.node.int("axis").ok().flatten().unwrap_or(1);
                Some(Quantization { scale: input(1)?, zero_point: input(2), axis })
            }
            // Rows are looked up first.
            ("Gather" | "Transpose" | "Reshape" | "Identity", 0) => {
                at.outputs.iter().flatten().find_map(|&output| quantization(flow, output))
            }
            ("MatMulInteger", 1) => last(scale_after(flow, at), input(3)),
            ("DynamicQuantizeMatMul", 1) => last(input(2), input(3)),
            ("MatMulIntegerToFloat", 1) => last(input(3), input(5)),
            ("QAttention", 1) => last(input(4), input(7)),
            // Inputs: ids, segments, word, position, segment embeddings, gamma, beta, mask, then scales and zero points of those five.
            ("QEmbedLayerNormalization", 2..=6) => last(input(index + 6), input(index + 11)),
            _ => None,
        }
    })
}

/// The constant scale that the sums of a MatMulInteger are multiplied with: `Cast(sums) · (activation scale · weight scale)`.
fn scale_after(flow: &Flow, at: &Step) -> Option<ValueId> {
    let sums = (*at.outputs.first()?)?;
    let next = |value: ValueId, op: &str| {
        let found = flow.consumers[value].iter().map(|&(step, _)| &flow.steps[step]);
        found.into_iter().find(|step| step.node.op == op)
    };
    let cast = next(sums, "Cast").and_then(|cast| cast.outputs.first().copied().flatten()).unwrap_or(sums);
    let scaled = next(cast, "Mul")?;
    let scale = scaled.inputs.iter().flatten().copied().find(|&input| input != cast)?;
    if !flow.is_variable(scale) {
        return Some(scale);
    }
    let product = flow.made_by(scale).filter(|step| step.node.op == "Mul")?;
    product.inputs.iter().flatten().copied().find(|&input| !flow.is_variable(input))
}

/// The floats that quantized weights stand for, and their steps.
fn dequantise(flow: &Flow, value: ValueId, by: &Quantization) -> Option<(Vec<f32>, Vec<f32>)> {
    let held = |value: ValueId| flow.held_at.get(&value).map(|&at| &flow.held[at].tensor);
    let tensor = held(value)?;
    let integers = tensor.to_value().ok()?.to_f64();
    let scales = floats(held(by.scale)?)?;
    let zero_points = match by.zero_point {
        Some(value) => held(value)?.to_value().ok()?.to_f64(),
        None => vec![0.0],
    };
    let axis = if by.axis < 0 { by.axis + tensor.shape.len() as i64 } else { by.axis };
    let inner: usize = tensor.shape.iter().skip(usize::try_from(axis).ok()? + 1).product();
    if scales.is_empty() || zero_points.is_empty() {
        return None;
    }
    let at = |index: usize| index / inner.max(1);
    let steps: Vec<f32> = (0..integers.len()).map(|index| scales[at(index) % scales.len()]).collect();
    let elements = integers
        .iter()
        .zip(&steps)
        .enumerate()
        .map(|(index, (x, step))| {
            ((x - zero_points[at(index) % zero_points.len()]) * f64::from(*step)) as f32
        })
        .collect();
    Some((elements, steps))
}
