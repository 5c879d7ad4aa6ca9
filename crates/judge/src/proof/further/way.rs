//! Ways of making one vector of a text's token states.

use engine::Value;

/// What a vector is divided by at least: PyTorch's default for `nn.functional.normalize`.
const MIN_NORM: f64 = 1e-12;

/// Whose states an embedding is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pool {
    Mean,
    First,
    /// What is at a row's start may be masked.
    FirstReal,
    Largest,
    Pooler,
    /// The sum over √n.
    Rooted,
    /// The mean, with each token weighing as much as its place.
    Weighted,
    Last,
    /// A fault: padding is counted.
    MeanOfAll,
}

/// How an embedding is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub pool: Pool,
    pub normalized: bool,
}

/// The likeliest first: on an input without padding, or of one token, several of them are the same.
const POOLS: [Pool; 9] = [
    Pool::Mean,
    Pool::First,
    Pool::FirstReal,
    Pool::Largest,
    Pool::Pooler,
    Pool::Rooted,
    Pool::Weighted,
    Pool::Last,
    Pool::MeanOfAll,
];

impl Way {
    pub fn all() -> impl Iterator<Item = Way> {
        let both = |pool| [true, false].map(|normalized| Way { pool, normalized });
        POOLS.into_iter().flat_map(both)
    }

    pub fn is_sound(self) -> bool {
        self.pool != Pool::MeanOfAll
    }

    /// What it was meant to be, if it is a fault.
    pub fn mended(self) -> Self {
        if self.is_sound() { self } else { Self { pool: Pool::Mean, ..self } }
    }

    pub fn words(self) -> String {
        let pool = match self.pool {
            Pool::Mean => "the mean over real tokens",
            Pool::First => "the state of the first token",
            Pool::FirstReal => "the state of the first real token",
            Pool::Largest => "the largest of each feature over real tokens",
            Pool::Pooler => "the pooler's output",
            Pool::Rooted => "the sum over real tokens, over the root of their number",
            Pool::Weighted => "the mean over real tokens, weighted by their places",
            Pool::Last => "the state of the last real token",
            Pool::MeanOfAll => "the mean over all positions, padding with them",
        };
        if self.normalized { format!("{pool}, of length 1") } else { pool.into() }
    }

    /// The embeddings, `[batch, width]`; nothing where the values are none that it can be made of.
    pub fn embed(self, states: &Value, pooled: Option<&Value>, mask: Option<&Value>) -> Option<Vec<f64>> {
        let &[batch, sequence, width] = states.shape() else { return None };
        let real: Vec<bool> = match mask {
            Some(mask) if mask.shape() == [batch, sequence] => {
                mask.to_f64().iter().map(|&bit| bit != 0.0).collect()
            }
            Some(_) => return None,
            None => vec![true; batch * sequence],
        };
        if sequence * width == 0 {
            return None;
        }
        let mut rows: Vec<f64> = match self.pool {
            Pool::Pooler => pooled.filter(|pooled| pooled.shape() == [batch, width])?.to_f64(),
            pool => {
                let states = states.to_f64();
                let rows = states.chunks(sequence * width).zip(real.chunks(sequence));
                rows.flat_map(|(states, real)| pool.row(states, real, width)).collect()
            }
        };
        if self.normalized {
            for row in rows.chunks_mut(width) {
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt().max(MIN_NORM);
                row.iter_mut().for_each(|x| *x /= norm);
            }
        }
        Some(rows)
    }
}

impl Pool {
    /// One row's vector. A row without any real token, which never decides, has one of zeros.
    fn row(self, states: &[f64], real: &[bool], width: usize) -> Vec<f64> {
        let first = real.iter().position(|&real| real);
        let last = real.iter().rposition(|&real| real);
        let weight = |at: usize| match self {
            Pool::First => f64::from(u8::from(at == 0)),
            Pool::FirstReal => f64::from(u8::from(Some(at) == first)),
            Pool::MeanOfAll => 1.0,
            Pool::Last => f64::from(u8::from(Some(at) == last)),
            _ if !real[at] => 0.0,
            Pool::Weighted => (at + 1) as f64,
            _ => 1.0,
        };
        // What does not count is left out, whatever it is.
        let counted: Vec<(f64, &[f64])> = states
            .chunks(width)
            .enumerate()
            .map(|(at, state)| (weight(at), state))
            .filter(|(weight, _)| *weight > 0.0)
            .collect();
        let total: f64 = counted.iter().map(|(weight, _)| weight).sum();
        let over = if self == Pool::Rooted { total.sqrt() } else { total };
        let feature = |at: usize| {
            let elements = counted.iter().map(|(weight, state)| weight * state[at]);
            match self {
                // A NaN is one in the result, too, which `f64::max` would leave out.
                Pool::Largest => {
                    elements.reduce(|a, b| if a.is_nan() || a > b { a } else { b }).unwrap_or(0.0)
                }
                _ if counted.is_empty() => 0.0,
                _ => elements.sum::<f64>() / over,
            }
        };
        (0..width).map(feature).collect()
    }
}

#[cfg(test)]
mod tests;
