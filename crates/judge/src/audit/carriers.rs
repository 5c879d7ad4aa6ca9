//! The graph's side: the tensors it holds that may carry weights, with the nodes that use them.

use std::collections::HashSet;

use engine::DType;

use super::data::{floats, is_rounded};
use super::flow::{Flow, Use, ValueId};
use super::places::needs_transposed;
use super::quantized::{Grid, Quantization, dequantised, quantization};
use super::weights::Weight;

/// A tensor of the graph that may carry weights.
pub(super) struct Carrier {
    pub value: ValueId,
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Its elements in f32, dequantised if they are integers.
    pub elements: Vec<f32>,
    /// The grid that its elements lie on, if they are integers.
    pub grid: Option<Grid>,
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
            let integers = matches!(held.tensor.dtype, DType::I8 | DType::U8 | DType::I32);
            if integers { quantization(flow, held.value) } else { None }
        })
        .collect();
    let parameters: HashSet<ValueId> =
        quantizations.iter().flatten().flat_map(Quantization::parameters).collect();
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
            Some(by) => dequantised(flow, held.value, by),
            None => floats(tensor).map(|elements| (tensor.shape.clone(), elements, None)),
        };
        let Some((shape, elements, grid)) = found else { continue };
        carriers.push(Carrier {
            value: held.value,
            name: held.name.clone(),
            dtype: tensor.dtype,
            shape,
            rounded: is_rounded(tensor.dtype, &tensor.bytes),
            named,
            scoped,
            multiplied: uses.iter().any(|&at| needs_transposed(&flow.steps[at.step], at).is_some()),
            uniform: elements.iter().all(|x| Some(x) == elements.first()),
            uses,
            elements,
            grid,
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
