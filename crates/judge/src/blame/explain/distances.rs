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
        let (length, exact_, farthest) = (length as f32, exact as f32, self.farthest as f64);
        let growth = (length / exact_).ln() / (farthest / f64::from(exact_)).ln() as f32;
        later + (exact + (growth * (half - exact) as f32) as i64).min(half - 1)
    }

    /// As if each distance had a bucket of its own, as far as there are buckets.
    fn straight(self, distance: i64) -> i64 {
        let half = self.count as i64 / 2;
        (if distance > 0 { half } else { 0 }) + distance.abs().min(half - 1)
    }
}

pub(super) fn explain(evidence: &Evidence<'_>, step: usize, attempts: &mut Attempts) -> Result<()> {
    let module = evidence.path(step);
    let (_, sequence) = evidence.dims()?;
    let Op::RelativeBias { buckets, farthest, .. } = evidence.program.steps[step].op else { return Ok(()) };
    let (name, own) = (evidence.tensor(step, "weight")?, Buckets { count: buckets, farthest });
    let rows = evidence.weights.shape(name)?.first().copied().unwrap_or(1) as i64;
    // Numbers are brought into the table's range.
    let table = |row: &dyn Fn(i64) -> i64| -> Result<Tensor> {
        let count = sequence as i64;
        let pairs = (0..count).flat_map(|asks| (0..count).map(move |asked| asked - asks));
        let numbers: Vec<usize> = pairs.map(|at| row(at).clamp(0, rows - 1) as usize).collect();
        evidence.weights.rows(name, &numbers, &[sequence, sequence])
    };
    attempts.offer(module, "left out: all 0", &table(&|at| own.of(at))?.zeros_like()?)?;
    for by in [1, -1] {
        attempts.offer(module, &format!("buckets off by {by:+}"), &table(&|at| own.of(at) + by)?)?;
    }
    attempts.offer(module, "earlier and later tokens exchanged", &table(&|at| own.of(-at))?)?;
    attempts.offer(module, "earlier and later tokens are treated alike", &table(&|at| own.of(-at.abs()))?)?;
    for count in OTHER_BUCKETS {
        let other = Buckets { count, ..own };
        attempts.offer(
            module,
            &format!("{count} buckets instead of {buckets}"),
            &table(&|at| other.of(at))?,
        )?;
    }
    for farthest_ in OTHER_FARTHEST {
        let other = Buckets { farthest: farthest_, ..own };
        let text = format!("the last bucket begins at {farthest_} instead of {farthest}");
        attempts.offer(module, &text, &table(&|at| other.of(at))?)?;
    }
    attempts.offer(module, "buckets do not grow with the logarithm", &table(&|at| own.straight(at))?)?;
    Ok(())
}
