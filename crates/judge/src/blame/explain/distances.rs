//! What is added to the scores for how far two tokens stand apart.

use architecture::Op;
use candle_core::{Result, Tensor};

use super::Evidence;
use super::attempts::Attempts;

/// How many buckets are tried beside the model's own.
const OTHER_BUCKETS: [usize; 5] = [8, 16, 24, 48, 64];

/// Where the last bucket is tried to begin.
const OTHER_FARTHEST: [usize; 4] = [64, 100, 256, 512];

/// How a bucket is chosen; see [`Op::RelativeBias`].
#[derive(Clone, Copy)]
struct Buckets {
    count: usize,
    farthest: usize,
}

impl Buckets {
    fn of(self, distance: i64) -> i64 {
        let (half, exact) = (self.count as i64 / 2, self.count as i64 / 4);
        let later = if distance > 0 { half } else { 0 };
        let length = distance.abs();
        if length < exact {
            return later + length;
        }
        let growth = (length as f32 / exact as f32).ln() / (self.farthest as f64 / exact as f64).ln() as f32;
        later + (exact + (growth * (half - exact) as f32) as i64).min(half - 1)
    }

    /// As if each distance had a bucket of its own, as far as there are buckets.
    fn straight(self, distance: i64) -> i64 {
        let half = self.count as i64 / 2;
        (if distance > 0 { half } else { 0 }) + distance.abs().min(half - 1)
    }
}

/// A number for each head and pair of tokens: the row of the table that `row` gives for a distance,
/// brought into the table's range.
fn rows(evidence: &Evidence<'_>, step: usize, row: &dyn Fn(i64) -> i64) -> Result<Tensor> {
    let (_, sequence) = evidence.dims()?;
    let (name, count) = (evidence.tensor(step, "weight")?, sequence as i64);
    let last = evidence.weights.shape(name)?.first().copied().unwrap_or(1) as i64 - 1;
    let pairs = (0..count).flat_map(|asks| (0..count).map(move |asked| asked - asks));
    let numbers: Vec<usize> = pairs.map(|distance| row(distance).clamp(0, last) as usize).collect();
    evidence.weights.rows(name, &numbers, &[sequence, sequence])
}

/// The formula with nothing changed.
#[cfg(test)]
pub(super) fn unchanged(evidence: &Evidence<'_>, step: usize) -> Result<Tensor> {
    let Op::RelativeBias { buckets, farthest, .. } = evidence.program.steps[step].op else {
        candle_core::bail!("{} is no table of distances", evidence.path(step))
    };
    let own = Buckets { count: buckets, farthest };
    rows(evidence, step, &|distance| own.of(distance))
}

/// Everything that may be wrong with what is added for distances.
pub(super) fn explain(evidence: &Evidence<'_>, step: usize, attempts: &mut Attempts) -> Result<()> {
    let Op::RelativeBias { buckets, farthest, .. } = evidence.program.steps[step].op else { return Ok(()) };
    let (module, own) = (evidence.path(step), Buckets { count: buckets, farthest });
    let mut offer = |text: &str, row: &dyn Fn(i64) -> i64| -> Result<bool> {
        attempts.offer(module, text, &rows(evidence, step, row)?)
    };
    for by in [1, -1] {
        offer(&format!("buckets off by {by:+}"), &|distance| own.of(distance) + by)?;
    }
    offer("earlier and later tokens exchanged", &|distance| own.of(-distance))?;
    offer("earlier and later tokens are treated alike", &|distance| own.of(-distance.abs()))?;
    offer("buckets do not grow with the logarithm", &|distance| own.straight(distance))?;
    for count in OTHER_BUCKETS {
        let other = Buckets { count, ..own };
        offer(&format!("{count} buckets instead of {buckets}"), &|distance| other.of(distance))?;
    }
    for last in OTHER_FARTHEST {
        let other = Buckets { farthest: last, ..own };
        let text = format!("the last bucket begins at {last} instead of {farthest}");
        offer(&text, &|distance| other.of(distance))?;
    }
    let nothing = rows(evidence, step, &|distance| own.of(distance))?.zeros_like()?;
    attempts.offer(module, "left out: all 0", &nothing)?;
    Ok(())
}
