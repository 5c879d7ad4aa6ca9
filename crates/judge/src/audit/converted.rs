//! What the graph holds in the place of tensors that were rounded or quantized on purpose.

use std::collections::BTreeMap;

use super::carriers::Carrier;
use super::data::{Rule, round};
use super::search::Match;
use super::weights::Weight;
use super::{Cast, Expect};

/// The elements of tensors as a conversion has left them, in f64, by the checkpoint's names without the prefix `bert.`.
///
/// An element is the graph's where that is a correct conversion of the checkpoint's. Where it is not, it is what it should have been: the rounded
/// element, or, of a quantized tensor, the checkpoint's own. So a graph that was converted wrongly is not held against itself.
#[derive(Debug, Clone, Default)]
pub struct Converted(BTreeMap<String, Vec<f64>>);

impl Converted {
    pub(super) fn new(expect: Expect, matches: &[Match], weights: &[Weight], carriers: &[Carrier]) -> Self {
        let mut held: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for found in matches {
            let (weight, carrier) = (&weights[found.weight], &carriers[found.carrier]);
            let conversion = match (expect, found.cast, &carrier.steps) {
                (Expect::F16, Some(cast), _) => How::Cast(cast),
                (Expect::Int8, _, Some(steps)) => How::Steps(steps),
                _ => continue,
            };
            let elements = held
                .entry(weight.name.clone())
                .or_insert_with(|| weight.elements.iter().map(|&x| f64::from(x)).collect());
            for (w, g) in found.placement.pairs() {
                if let (Some(element), Some(&x)) = (elements.get_mut(w), weight.elements.get(w)) {
                    *element = conversion.element(x, carrier.elements.get(g).copied(), g);
                }
            }
        }
        Self(held)
    }

    /// The tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[f64])> {
        self.0.iter().map(|(name, elements)| (name.as_str(), elements.as_slice()))
    }

    /// The elements of a tensor, in the checkpoint's order; nothing where it was not converted.
    pub fn get(&self, tensor: &str) -> Option<&[f64]> {
        self.0.get(tensor).map(Vec::as_slice)
    }
}

enum How<'a> {
    Cast(Cast),
    Steps(&'a [f32]),
}

impl How<'_> {
    /// The converted element of the checkpoint's `x`, of which the graph holds `found` at `at`.
    fn element(&self, x: f32, found: Option<f32>, at: usize) -> f64 {
        let rule = match *self {
            How::Cast(cast) => Rule::Cast(cast),
            How::Steps(steps) => Rule::Step(steps),
        };
        match (self, found.filter(|&found| rule.holds(x, found, 0, at))) {
            (How::Steps(steps), Some(found)) => multiple(found, steps[at % steps.len().max(1)]),
            (How::Cast(_), Some(found)) => found.into(),
            (How::Cast(cast), None) => round(x, *cast).into(),
            (How::Steps(_), None) => x.into(),
        }
    }
}

/// The multiple of a step that an element is the f32 rounding of. There are at most 511, so that there is no doubt which one.
fn multiple(found: f32, step: f32) -> f64 {
    let (found, step) = (f64::from(found), f64::from(step));
    if step == 0.0 { found } else { (found / step).round() * step }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantized_element_is_a_whole_number_of_steps() {
        let step = 0.012_345_679_f32;
        for count in -255..=255 {
            let exact = f64::from(count) * f64::from(step);
            assert_eq!(multiple(exact as f32, step), exact);
        }
        assert_eq!(multiple(0.0, 0.0), 0.0);
    }

    #[test]
    fn what_is_wrongly_converted_is_not_taken_over() {
        let cast = How::Cast(Cast::F16);
        let rounded = half::f16::from_f32(0.1).to_f32();
        assert_eq!(cast.element(0.1, Some(rounded), 0), f64::from(rounded));
        assert_eq!(cast.element(0.1, Some(0.2), 0), f64::from(rounded));
        let steps = How::Steps(&[0.25]);
        assert_eq!(steps.element(0.6, Some(0.5), 0), 0.5);
        assert_eq!(steps.element(0.6, Some(1.0), 0), f64::from(0.6f32));
        assert_eq!(steps.element(0.6, None, 0), f64::from(0.6f32));
    }
}
