//! A pixel as a weighted mean along one axis.

use ndarray::ArrayD;

use super::lengths::Axis;
use crate::fault::Fault;
use crate::tensor::{Array, array};

/// How much a place counts by its distance.
#[derive(Debug, Clone, Copy)]
pub enum Kernel {
    Linear,
    /// Keys, "Cubic convolution interpolation for digital image processing", 1981, equation (4),
    /// with its a.
    Cubic(f64),
}

impl Kernel {
    /// Beyond this distance nothing counts.
    fn reach(self) -> f64 {
        match self {
            Self::Linear => 1.0,
            Self::Cubic(_) => 2.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Self::Linear => (1.0 - x).max(0.0),
            Self::Cubic(a) if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            Self::Cubic(a) if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
            Self::Cubic(_) => 0.0,
        }
    }
}

/// A kernel and what is made of it.
#[derive(Debug, Clone, Copy)]
pub struct Filter {
    pub kernel: Kernel,
    /// Where an axis shrinks, the kernel is as much wider.
    pub antialias: bool,
    /// What is beyond the ends does not count; otherwise it is as the ends are.
    pub exclude_outside: bool,
}

impl Filter {
    fn wider(self, axis: &Axis) -> f64 {
        if self.antialias { axis.scale.divides(1.0).max(1.0) } else { 1.0 }
    }

    /// How many places count at once, at the most.
    pub fn most(self, axis: &Axis) -> usize {
        (2.0 * self.kernel.reach() * self.wider(axis)) as usize + 1
    }

    /// The places of an axis that count at `x`, with their weights, which add up to 1: unless all
    /// are outside, and excluded.
    pub fn weights(self, axis: &Axis, x: f64) -> Vec<(usize, f64)> {
        let wider = self.wider(axis);
        let reach = self.kernel.reach() * wider;
        let last = axis.from as i64 - 1;
        let weight = |at: i64| (at.clamp(0, last) as usize, self.kernel.weight((at as f64 - x) / wider));
        let weights: Vec<(usize, f64)> = ((x - reach).ceil() as i64..=(x + reach).floor() as i64)
            .filter(|at| !self.exclude_outside || (0..=last).contains(at))
            .map(weight)
            .filter(|&(_, weight)| weight != 0.0)
            .collect();
        let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let sum = if sum == 0.0 { 1.0 } else { sum };
        weights.into_iter().map(|(at, weight)| (at, weight / sum)).collect()
    }
}

/// The array with weighted sums along an axis, one for each list of places and weights.
pub fn along(x: &Array<f64>, axis: usize, weights: &[Vec<(usize, f64)>]) -> Result<ArrayD<f64>, Fault> {
    let mut shape = x.shape().to_vec();
    let (from, row) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    shape[axis] = weights.len();
    let x = x.as_standard_layout();
    let mut y = Vec::with_capacity(shape.iter().product());
    for rows in x.as_slice().unwrap_or_default().chunks(from * row) {
        for weights in weights {
            let start = y.len();
            y.resize(start + row, 0.0);
            for &(at, weight) in weights {
                let x = &rows[at * row..(at + 1) * row];
                y[start..].iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
            }
        }
    }
    array(&shape, y)
}
