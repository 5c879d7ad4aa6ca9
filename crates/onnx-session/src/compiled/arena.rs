//! The memory of a run, kept between runs.

use engine::Value;
use kernels::Buffer;

use super::plan::{Plan, Rows};

/// The buffers of one thread's share of a run.
#[derive(Default)]
pub struct Arena {
    pub registers: Vec<Buffer>,
    pub slots: Vec<Option<Value>>,
    pub scratch: Buffer,
    pub share: Share,
    /// What the mask adds, by row.
    pub additive: Buffer,
}

/// The sequences of a run that are computed together.
#[derive(Default)]
pub struct Share {
    /// Which sequence of the batch is the first.
    pub first: usize,
    /// Where each begins among the rows, and where the last ends.
    pub offsets: Vec<usize>,
    /// How many keys of each are seen, where `counted`.
    pub lengths: Vec<usize>,
    /// Whether the mask says no more than that.
    pub counted: bool,
    /// Whether the rows of other keys are left out.
    pub packed: bool,
}

impl Share {
    pub fn tokens(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    pub fn sequences(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Makes these the sequences from `first` on, each of so many rows. `keys` are how many keys each sees.
    pub fn set(
        &mut self,
        first: usize,
        rows: impl Iterator<Item = usize>,
        keys: Option<&[usize]>,
        packed: bool,
    ) {
        (self.first, self.packed) = (first, packed);
        self.offsets.clear();
        self.offsets.push(0);
        let mut end = 0;
        for rows in rows {
            end += rows;
            self.offsets.push(end);
        }
        self.counted = keys.is_some();
        self.lengths.clear();
        self.lengths.extend_from_slice(keys.unwrap_or_default());
    }
}

/// More than any batch of BERT needs: a hostile graph ends in an error before it takes the machine's memory.
const LIMIT: usize = 16 << 30;

/// How large the largest share of a run is.
pub struct Largest {
    pub tokens: usize,
    pub sequences: usize,
    /// What attention needs beside its results.
    pub scratch: usize,
}

impl Arena {
    /// Makes the buffers large enough for any share of a run, so that it does not matter which thread gets which; `None` if that would be too large.
    /// Buffers never shrink, so a shape that was seen takes no memory anew.
    pub fn prepare(&mut self, plan: &Plan, symbols: &[usize], largest: &Largest) -> Option<()> {
        self.registers.resize_with(plan.registers.len(), Buffer::default);
        self.slots.clear();
        self.slots.resize(plan.slots, None);
        let mut total = 0usize;
        let mut reserve = |buffer: &mut Buffer, needed: usize| {
            total =
                total.checked_add(needed.checked_mul(size_of::<f32>())?).filter(|&total| total <= LIMIT)?;
            buffer.grow(needed).ok()
        };
        for (register, buffer) in plan.registers.iter().zip(&mut self.registers) {
            let rows = match &register.rows {
                Rows::Tokens => largest.tokens,
                Rows::Sequences => largest.sequences,
                Rows::Fixed(dim) => dim.size(symbols)?,
            };
            reserve(buffer, rows.checked_mul(register.width)?)?;
        }
        reserve(&mut self.scratch, largest.scratch)?;
        reserve(&mut self.additive, largest.tokens)?;
        for buffer in [&mut self.share.offsets, &mut self.share.lengths] {
            buffer.reserve((largest.sequences + 1).saturating_sub(buffer.len()));
        }
        Some(())
    }
}

impl Share {
    pub fn rows(&self, rows: &Rows, symbols: &[usize]) -> Option<usize> {
        match rows {
            Rows::Tokens => Some(self.tokens()),
            Rows::Sequences => Some(self.sequences()),
            Rows::Fixed(dim) => dim.size(symbols),
        }
    }
}
