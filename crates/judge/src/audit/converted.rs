//! What the graph holds in the place of tensors that were rounded or quantized on purpose.

use std::collections::BTreeMap;

use super::carriers::Carrier;
use super::data::{Rule, round};
use super::quantized::Grid;
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
            let conversion = match (expect, found.cast, &carrier.grid) {
                (Expect::F16, Some(cast), _) => How::Cast(cast),
                (Expect::Int8 | Expect::Int4, _, Some(grid)) => How::Grid(grid),
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
    Grid(&'a Grid),
}

impl How<'_> {
    /// The converted element of the checkpoint's `x`, of which the graph holds `found` at `at`.
    fn element(&self, x: f32, found: Option<f32>, at: usize) -> f64 {
        let rule = match *self {
            How::Cast(cast) => Rule::Cast(cast),
            How::Grid(grid) => Rule::Grid(grid),
        };
        match (self, found.filter(|&found| rule.holds(x, found, 0, at))) {
            (How::Grid(grid), Some(found)) => grid.exact(found, at),
            (How::Cast(_), Some(found)) => found.into(),
            (How::Cast(cast), None) => round(x, *cast).into(),
            (How::Grid(_), None) => x.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrongly_converted_is_not_taken_over() {
        let cast = How::Cast(Cast::F16);
        let rounded = half::f16::from_f32(0.1).to_f32();
        assert_eq!(cast.element(0.1, Some(rounded), 0), f64::from(rounded));
        assert_eq!(cast.element(0.1, Some(0.2), 0), f64::from(rounded));
        let grid = Grid::Steps(vec![0.25]);
        let steps = How::Grid(&grid);
        assert_eq!(steps.element(0.6, Some(0.5), 0), 0.5);
        assert_eq!(steps.element(0.6, Some(1.0), 0), f64::from(0.6f32));
        assert_eq!(steps.element(0.6, None, 0), f64::from(0.6f32));
    }
}
