//! Constants of one graph that are what constants of the other compute. An optimizer that folds a
//! subgraph computes it in f32; in f64 the two would differ by that rounding.

use std::collections::HashMap;

use engine::DType;
use onnx_eval::{Constant, Folded, Oracle, Promotions};

use crate::compare::ulp;
use crate::proof::{BUDGET_FACTOR, Promoted};

/// How near a constant must be to a value to be looked at more closely, over the value's largest
/// element: far above what f32 rounds, even over many nodes, and far below what other weights give.
const NEAR: f64 = 1e-4;

const MEANING: &str = "what constants of the other graph compute";

/// A graph in f64, and in f32.
pub(super) struct Pair<'a> {
    pub double: &'a Oracle,
    pub single: &'a Oracle,
}

/// A constant, and the value of the other graph that is nearest to it.
struct Held<'a> {
    constant: Constant<'a>,
    nearest: Option<Nearest>,
}

struct Nearest {
    name: String,
    elements: Vec<f64>,
    /// The largest element.
    scale: f64,
    /// How far the constant is from it at most.
    far: f64,
    /// How far the value in f32 is from it at most.
    rounding: f64,
}

impl Held<'_> {
    fn elements(&self) -> impl Iterator<Item = f32> {
        self.constant.tensor.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes))
    }

    fn look_at(&mut self, value: &Folded) {
        let (mut far, mut scale) = (0f64, 0f64);
        for (held, element) in self.elements().zip(value.elements()) {
            let distance = (f64::from(held) - element).abs();
            if !distance.is_finite() {
                return;
            }
            (far, scale) = (far.max(distance), scale.max(element.abs()));
        }
        if far <= NEAR * scale && self.nearest.as_ref().is_none_or(|nearest| far < nearest.far) {
            let (name, elements) = (value.name.to_string(), value.elements().collect());
            self.nearest = Some(Nearest { name, elements, scale, far, rounding: 0.0 });
        }
    }

    /// The value, if the constant is a rounding of it, and no other number.
    fn rounded(&self) -> Option<&Nearest> {
        let nearest = self.nearest.as_ref().filter(|nearest| nearest.far > 0.0)?;
        // What f32 does not round at all, such as a weight that is transposed, leaves nothing.
        let rounding = nearest.rounding.max(ulp(nearest.scale) / 2.0);
        (nearest.rounding > 0.0 && nearest.far <= BUDGET_FACTOR * rounding).then_some(nearest)
    }
}

impl Pair<'_> {
    /// Promotes the constants of a graph that are f32 roundings of what constants of this one
    /// compute: within [`BUDGET_FACTOR`] times what f32 does to the value here, as folders sum in
    /// other orders.
    pub fn promote(&self, graph: &Oracle, promotions: &mut Promotions, promoted: &mut Vec<Promoted>) {
        let is_open =
            |constant: &Constant| constant.tensor.dtype == DType::F32 && !promotions.has(&constant.place);
        let open = graph.constants().filter(is_open);
        let mut held: Vec<Held> = open.map(|constant| Held { constant, nearest: None }).collect();
        if self.compare(&mut held).is_err() {
            // A node that fails on its constants fails in every run: the proof says so.
            return;
        }
        for held in &held {
            let Some(nearest) = held.rounded() else { continue };
            let pairs = held.elements().zip(&nearest.elements);
            if let Some((from, &to)) = pairs.into_iter().find(|(from, to)| f64::from(*from) != **to) {
                promoted.push(Promoted {
                    name: held.constant.name.into(),
                    meaning: MEANING.into(),
                    from,
                    to,
                });
            }
            promotions.elements(held.constant.place.clone(), nearest.elements.as_slice());
        }
    }

    /// Finds the nearest value for each constant, and what f32 does to it.
    fn compare(&self, held: &mut [Held]) -> Result<(), engine::EngineError> {
        let mut by_shape: HashMap<Vec<usize>, Vec<usize>> = HashMap::new();
        for (at, held) in held.iter().enumerate() {
            by_shape.entry(held.constant.tensor.shape.clone()).or_default().push(at);
        }
        let of_shape = |value: &Folded| by_shape.get(value.shape).into_iter().flatten().copied();
        self.double.fold(|value| of_shape(&value).for_each(|at| held[at].look_at(&value)))?;
        self.single.fold(|value| {
            for at in of_shape(&value) {
                let nearest = held[at].nearest.as_mut().filter(|nearest| nearest.name == value.name);
                let Some(nearest) = nearest else { continue };
                let distances = value.elements().zip(&nearest.elements).map(|(x, y)| (x - y).abs());
                nearest.rounding = distances.fold(0.0, f64::max);
            }
        })
    }
}
