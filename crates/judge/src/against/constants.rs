//! Which constants two graphs can only hold as f32, where no config.json says what was meant.

use std::collections::BTreeSet;
use std::f64::consts::{FRAC_1_SQRT_2, PI, SQRT_2};

use onnx_graph::{Attribute, Model};

use crate::proof::Known;

/// The largest head size that is thought of. That of known models is 32 to 128.
const LARGEST_HEAD: usize = 1024;

/// The epsilons that frameworks have as their defaults.
const EPSILONS: [f64; 5] = [1e-5, 1e-6, 1e-7, 1e-8, 1e-12];

/// The numbers that graphs of these weights may hold the f32 rounding of: those of the activations, usual epsilons, and √d, 1/√d, d^¼ and d^-¼ of
/// every d that divides a size of a weight, since a head's size is such a one.
///
/// A constant is taken for the same number in every graph that is looked at, so that one that only looks like a known number makes no two graphs
/// alike that are not: at most it hides a distance of one ULP, which is what f32 leaves open anyway.
pub(super) fn known(models: &[&Model]) -> Vec<Known> {
    let mut known = vec![
        ("√2", SQRT_2),
        ("1/√2", FRAC_1_SQRT_2),
        ("√(2/π)", (2.0 / PI).sqrt()),
        ("0.044715", 0.044715),
        ("1.702", 1.702),
    ];
    known.extend(EPSILONS.map(|eps| ("eps", eps)));
    for d in head_sizes(models).into_iter().map(|d| d as f64) {
        known.extend([
            ("√d", d.sqrt()),
            ("1/√d", 1.0 / d.sqrt()),
            ("d^¼", d.powf(0.25)),
            ("d^-¼", d.powf(-0.25)),
        ]);
    }
    known
}

/// What divides a size of a weight.
fn head_sizes(models: &[&Model]) -> BTreeSet<usize> {
    let constants = |model: &&Model| -> Vec<usize> {
        let written = model.graph.nodes.iter().filter_map(|node| match node.attributes.get("value") {
            Some(Attribute::Tensor(tensor)) => Some(tensor),
            _ => None,
        });
        let all = model.graph.initializers.values().chain(written);
        all.flat_map(|tensor| tensor.shape.iter().copied()).collect()
    };
    let sizes: BTreeSet<usize> = models.iter().flat_map(constants).collect();
    let divides = |d: &usize| sizes.iter().any(|size| *size > 0 && size % d == 0);
    (2..=LARGEST_HEAD).filter(divides).collect()
}

#[cfg(test)]
mod tests {
    use engine::Value;
    use onnx_graph::{Graph, Tensor};

    use super::*;

    #[test]
    fn a_head_size_divides_a_size_of_a_weight() {
        let weight = Tensor::from_value(&Value::new([21, 3], vec![0f32; 63]).unwrap());
        let graph =
            Graph { initializers: [("w".to_string(), weight)].into_iter().collect(), ..Graph::default() };
        let model = Model { graph, ..Model::default() };
        assert_eq!(head_sizes(&[&model]).into_iter().collect::<Vec<_>>(), [3, 7, 21]);
        let known = known(&[&model]);
        assert!(known.contains(&("√d", 7f64.sqrt())));
        assert!(!known.contains(&("√d", 8f64.sqrt())));
    }
}
