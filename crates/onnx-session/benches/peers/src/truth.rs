//! What a peer must compute before it is timed: the model in f64.

use anyhow::{Context as _, bail, ensure};
use candle_core::DType;
use engine::Engine as _;

use crate::batch::{Batch, Outputs};
use crate::runtimes::house;
use crate::workload::Files;

/// How far f32 may be from f64: three times the farthest that a peer was on W1–W7 (tract on W6, 1.7e-5; all others stay below 6e-6). The
/// fixtures' maker found a wrong eps, GELU or mask to be off by 1e-4 and more.
pub const AGREEMENT: f64 = 5e-5;

/// The outputs in f64.
pub struct Truth {
    hidden: Vec<f64>,
    pooled: Vec<f64>,
}

/// How far a peer is from the truth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distance {
    /// The largest at a real token of `last_hidden_state`.
    pub hidden: f64,
    /// The root of the mean square there, which one unlucky value does not decide.
    pub hidden_rms: f64,
    /// The largest of `pooler_output`, if the peer has one.
    pub pooled: Option<f64>,
    /// Values compared.
    pub compared: usize,
}

impl Truth {
    /// Runs candle-bert in f64, the path that shares nothing with any graph.
    pub fn compute(files: &Files, batch: &Batch) -> anyhow::Result<Self> {
        let outputs = house::bert(files, DType::F64)?.run(&house::named_values(batch)?)?;
        let read = |name: &str| {
            let value = outputs.get(name).with_context(|| format!("the model has no {name}"))?;
            anyhow::Ok(value.as_slice::<f64>()?.to_vec())
        };
        Ok(Self { hidden: read("last_hidden_state")?, pooled: read("pooler_output")? })
    }

    /// Holds a peer's outputs to the truth, at real tokens.
    ///
    /// # Errors
    /// If the outputs are of another size, or farther than [`AGREEMENT`], or not finite, or nothing was compared.
    pub fn check(&self, batch: &Batch, outputs: &Outputs) -> anyhow::Result<Distance> {
        ensure!(
            outputs.hidden.len() == self.hidden.len(),
            "last_hidden_state has {} elements, not {}",
            outputs.hidden.len(),
            self.hidden.len()
        );
        ensure!(batch.real_tokens() > 0, "there is no token to compare");
        let size = self.hidden.len() / (batch.rows * batch.width);
        let mut compared = 0;
        let mut farthest = |ours: &[f32], truth: &[f64]| {
            compared += ours.len();
            ours.iter().zip(truth).map(|(&x, y)| (f64::from(x) - y).abs()).fold(0., worse)
        };
        let (mut hidden, mut squares) = (0., 0.);
        for (row, length) in batch.lengths.iter().enumerate() {
            let (start, length) = (row * batch.width * size, length * size);
            let (ours, truth) = (&outputs.hidden[start..][..length], &self.hidden[start..][..length]);
            hidden = worse(hidden, farthest(ours, truth));
            squares += ours.iter().zip(truth).map(|(&x, y)| (f64::from(x) - y).powi(2)).sum::<f64>();
        }
        let hidden_rms = (squares / (batch.real_tokens() * size) as f64).sqrt();
        let pooled = match &outputs.pooled {
            Some(pooled) => {
                ensure!(
                    pooled.len() == self.pooled.len(),
                    "pooler_output has {} elements, not {}",
                    pooled.len(),
                    self.pooled.len()
                );
                Some(farthest(pooled, &self.pooled))
            }
            None => None,
        };
        let worst = worse(hidden, pooled.unwrap_or(0.));
        if worst.is_nan() || worst > AGREEMENT {
            bail!("it is {worst:.1e} away from the model in f64, so its times mean nothing");
        }
        Ok(Distance { hidden, hidden_rms, pooled, compared })
    }
}

/// The larger; NaN if one of them is.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hidden: Vec<f32>, pooled: Option<Vec<f32>>) -> anyhow::Result<Distance> {
        let batch = Batch::new(&[vec![1, 2], vec![3]]);
        let truth = Truth { hidden: vec![0.; 4], pooled: vec![0.; 2] };
        truth.check(&batch, &Outputs { hidden, pooled })
    }

    #[test]
    fn only_real_tokens_count() {
        let distance = check(vec![0., 1e-6, -2e-6, 9.], Some(vec![1e-7, 0.])).unwrap();
        assert_eq!(distance.compared, 5);
        assert!((distance.hidden - 2e-6).abs() < 1e-12);
        assert!((distance.hidden_rms - (5e-12f64 / 3.).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        assert!(check(vec![0., 0., 1e-3, 0.], None).is_err());
        assert!(check(vec![0., f32::NAN, 0., 0.], None).is_err());
        assert!(check(vec![0.; 3], None).is_err());
        assert!(check(vec![0.; 4], Some(vec![f32::INFINITY, 0.])).is_err());
        assert!(check(vec![0.; 4], Some(vec![0.])).is_err());
    }
}
