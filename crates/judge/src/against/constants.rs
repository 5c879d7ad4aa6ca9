//! Which constants two graphs can only hold as f32, where no config.json says what was meant.

use std::collections::BTreeSet;
use std::f64::consts::PI;

use onnx_graph::{Attribute, Model};

use crate::proof::{Known, Numbers, logs, mean, of_activations, of_heads};

/// The largest head size that is thought of. That of known models is 32 to 128.
const LARGEST_HEAD: usize = 1024;

/// The epsilons that frameworks have as their defaults.
const EPSILONS: [f64; 5] = [1e-5, 1e-6, 1e-7, 1e-8, 1e-12];

/// The largest of small integers whose ratio a bucket of distances may be by, and what it is
/// divided by: powers of two, as a number of buckets is halved.
const LARGEST_RATIO: u32 = 256;
const DIVISORS: [u32; 4] = [2, 4, 8, 16];

/// The numbers that graphs of these weights may hold the f32 rounding of: those of the activations,
/// usual epsilons, √d, 1/√d, d^¼ and d^-¼ of every d that divides a size of a weight, since a
/// head's size is such a one, 1/n of every such size n, and logarithms of small integers and their
/// ratios.
///
/// A constant is taken for the same number in every graph that is looked at, so that one that only
/// looks like a known number makes no two graphs alike that are not: at most it hides a distance of
/// one ULP, which is what f32 leaves open anyway.
pub(super) fn known(models: &[&Model]) -> Numbers {
    let sizes = sizes(models);
    let mut single: Vec<Known> = of_activations().into();
    single.push(("√(2/π)".into(), (2.0 / PI).sqrt()));
    single.extend(EPSILONS.map(|eps| ("eps".into(), eps)));
    single.extend(head_sizes(&sizes).into_iter().flat_map(of_heads));
    let ratios = DIVISORS.into_iter().flat_map(|q| (q + 1..=LARGEST_RATIO).step_by(2).map(move |p| (p, q)));
    let ratio = |(p, q): (u32, u32)| (format!("ln {p}/{q}").into(), (f64::from(p) / f64::from(q)).ln());
    Numbers {
        single,
        logs: logs().into_iter().chain(ratios.map(ratio)).collect(),
        means: sizes.into_iter().filter(|n| *n > 1).map(mean).collect(),
        rotations: Vec::new(),
    }
}

/// The sizes that weights have.
fn sizes(models: &[&Model]) -> BTreeSet<usize> {
    let constants = |model: &&Model| -> Vec<usize> {
        let written = model.graph.nodes.iter().filter_map(|node| match node.attributes.get("value") {
            Some(Attribute::Tensor(tensor)) => Some(tensor),
            _ => None,
        });
        let all = model.graph.initializers.values().chain(written);
        all.flat_map(|tensor| tensor.shape.iter().copied()).collect()
    };
    models.iter().flat_map(constants).collect()
}

/// What divides one of these sizes.
fn head_sizes(sizes: &BTreeSet<usize>) -> BTreeSet<usize> {
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
        assert_eq!(head_sizes(&sizes(&[&model])).into_iter().collect::<Vec<_>>(), [3, 7, 21]);
        let known = known(&[&model]);
        assert!(known.single.contains(&("√d".into(), 7f64.sqrt())));
        assert!(!known.single.contains(&("√d".into(), 8f64.sqrt())));
        assert!(known.means.contains(&("1/21 of a mean".into(), 1.0 / 21.0)));
        assert!(known.logs.contains(&("ln 5/2".into(), 2.5f64.ln())));
    }
}
