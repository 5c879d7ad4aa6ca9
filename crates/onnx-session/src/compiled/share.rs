//! How a batch is shared out, and how what the shares give is put together.

use std::ops::Range;

use engine::Value;

use super::plan::{Plan, Rows};
use super::run::{Run, integer};

/// How one run sees its batch.
pub struct Batch<'a> {
    /// Sequences, and rows of each in the inputs.
    pub sequences: usize,
    pub stride: usize,
    /// How many keys each sequence sees, if its mask says no more than that.
    pub keys: Option<&'a [usize]>,
    /// Whether rows behind the keys are left out.
    pub packed: bool,
}

impl Batch<'_> {
    /// How many rows of a sequence are computed.
    pub fn rows(&self, sequence: usize) -> usize {
        match self.keys {
            Some(keys) if self.packed => keys[sequence],
            _ => self.stride,
        }
    }

    fn total(&self) -> usize {
        (0..self.sequences).map(|sequence| self.rows(sequence)).sum()
    }

    /// Whether each thread can have a share of its own: if the largest is little more than the others, or else threads would wait longer than they do
    /// for each other within the steps.
    pub fn is_balanced(&self, shares: usize) -> bool {
        if shares < 2 || self.sequences < shares {
            return false;
        }
        let rows = |share| self.share(share, shares).map(|sequence| self.rows(sequence)).sum::<usize>();
        let largest = (0..shares).map(rows).max().unwrap_or(0);
        // At most an eighth above the mean.
        largest * shares * 8 <= self.total() * 9
    }

    /// The sequences of a share.
    pub fn share(&self, index: usize, shares: usize) -> Range<usize> {
        let start = if index == 0 { 0 } else { self.cut(index, shares) };
        start..self.cut(index + 1, shares)
    }

    /// Where the first `index` of `shares` shares end: each has about as many rows.
    fn cut(&self, index: usize, shares: usize) -> usize {
        if index >= shares {
            return self.sequences;
        }
        let wanted = self.total() * index / shares;
        let mut rows = 0;
        (0..self.sequences)
            .find(|&sequence| {
                let half = self.rows(sequence) / 2;
                let before = rows + half >= wanted;
                rows += self.rows(sequence);
                before
            })
            .unwrap_or(self.sequences)
    }
}

/// Counts the real tokens of each row of a mask, which stand first. `false` if a row has none, or padding before a real one.
pub fn prefixes(mask: &Value, stride: usize, keys: &mut Vec<usize>) -> bool {
    keys.clear();
    let rows = mask.len().checked_div(stride).unwrap_or(0);
    for row in 0..rows {
        let at = |place: usize| integer(mask, row * stride + place).unwrap_or(0) != 0;
        let count = (0..stride).take_while(|&place| at(place)).count();
        if count == 0 || (count..stride).any(at) {
            return false;
        }
        keys.push(count);
    }
    true
}

/// Whether all elements are 0 or 1.
pub fn is_binary(mask: &Value) -> bool {
    if let Ok(elements) = mask.as_slice::<i64>() {
        return elements.iter().all(|element| matches!(element, 0 | 1));
    }
    if let Ok(elements) = mask.as_slice::<i32>() {
        return elements.iter().all(|element| matches!(element, 0 | 1));
    }
    mask.as_slice::<bool>().is_ok()
}

impl Plan {
    /// How many numbers an output has that is put together of shares.
    pub fn size(&self, output: usize, batch: &Batch<'_>) -> Option<usize> {
        let output = &self.outputs[output];
        let rows = match output.rows.as_ref()? {
            Rows::Tokens => batch.sequences.checked_mul(batch.stride)?,
            Rows::Sequences => batch.sequences,
            Rows::Fixed(_) => return None,
        };
        rows.checked_mul(output.width)
    }
}

impl Run<'_> {
    /// Copies what a share has of an output to where it belongs.
    pub fn collect(&self, output: usize, arena: &super::arena::Arena, whole: &mut [f32]) {
        let output = &self.plan.outputs[output];
        let (super::plan::Place::Register(register), width) = (output.place, output.width) else { return };
        let (share, from) = (&arena.share, &arena.registers[register]);
        if output.rows == Some(Rows::Sequences) {
            let count = share.sequences() * width;
            whole[share.first * width..][..count].copy_from_slice(&from[..count]);
            return;
        }
        for (sequence, ends) in share.offsets.windows(2).enumerate() {
            let to = (share.first + sequence) * self.stride * width;
            let rows = &from[ends[0] * width..ends[1] * width];
            let (real, padding) = whole[to..to + self.stride * width].split_at_mut(rows.len());
            real.copy_from_slice(rows);
            padding.fill(0.0);
        }
    }
}
