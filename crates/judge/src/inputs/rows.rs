//! What stands in one row of a default input.

use architecture::Limits;
use engine::{NamedValues, Value, ValueError};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::tables::Token;

/// One row: what it is called, and what its ids, token types and mask are.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) ids: Ids,
    pub(super) types: Types,
    pub(super) mask: Mask,
}

/// Where a row's ids come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ids {
    /// Any, each for itself.
    Random,
    /// The first and the last of the vocabulary, in turn.
    Ends,
    /// One, over and over: attention has nothing but positions to tell them apart.
    One,
    /// The one that pads, in the text and not beneath the mask: at its start and at its end, and
    /// two in between.
    Padding(usize),
    /// These, in turn, with their own types.
    Tokens(Vec<Token>),
}

/// What a row's token types are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Types {
    /// Any, each for itself.
    Random,
    /// 0, as in a single text.
    Zero,
    /// 0 in the first half, 1 in the second, as in a pair of texts.
    Segments,
    /// 1.
    One,
}

/// What a row's attention mask leaves in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mask {
    Full,
    Right,
    Left,
    Holes,
    Single,
    Empty,
}

impl Mask {
    pub(super) fn keeps(self, position: usize, sequence: usize) -> bool {
        match self {
            Mask::Full => true,
            Mask::Right => position < sequence.div_ceil(2),
            // A third is left out, and one token where there are two: without a mask it would not be padded.
            Mask::Left => position >= (sequence / 3).max(1).min(sequence - 1),
            // Position 0 stays: it is the one that the pooler reads.
            Mask::Holes => position % 3 != 1,
            // In the middle, where it is neither the first nor the last.
            Mask::Single => position == sequence / 2,
            Mask::Empty => false,
        }
    }
}

impl Row {
    /// A row of random ids and token types.
    pub(super) const fn random(name: &'static str, mask: Mask) -> Self {
        Self { name, ids: Ids::Random, types: Types::Random, mask }
    }
}

/// A case's inputs of that shape: the rows in turn, as often as the batch needs.
pub(super) fn inputs(
    limits: &Limits,
    [batch, sequence]: [usize; 2],
    rows: &[Row],
    rng: &mut ChaCha8Rng,
) -> Result<NamedValues, ValueError> {
    let (vocabulary, last_type) = (limits.vocabulary as i64, limits.token_types.max(1) as i64 - 1);
    let (mut ids, mut mask, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for (_, row) in (0..batch).zip(rows.iter().cycle()) {
        let one = rng.random_range(0..vocabulary);
        for position in 0..sequence {
            let random = rng.random_range(0..vocabulary);
            let random_type = rng.random_range(0..=last_type);
            let (id, own_type) = match &row.ids {
                Ids::Random => (random, None),
                Ids::Ends => (if position % 2 == 0 { 0 } else { vocabulary - 1 }, None),
                Ids::One => (one, None),
                Ids::Padding(padding) => {
                    let pads = position == 0 || position + 1 == sequence || (3..5).contains(&position);
                    (if pads { *padding as i64 } else { random }, None)
                }
                Ids::Tokens(tokens) => match tokens.get(position % tokens.len().max(1)) {
                    Some(token) => (token.id, Some(token.token_type)),
                    None => (random, None),
                },
            };
            ids.push(id);
            mask.push(i64::from(row.mask.keeps(position, sequence)));
            types.push(own_type.unwrap_or(match row.types {
                Types::Random => random_type,
                Types::Zero => 0,
                Types::Segments => i64::from(position >= sequence / 2).min(last_type),
                Types::One => last_type.min(1),
            }));
        }
    }
    let all = [("input_ids", ids), ("attention_mask", mask), ("token_type_ids", types)];
    let told = all.into_iter().filter(|(name, _)| *name != "token_type_ids" || limits.token_types > 0);
    told.map(|(name, elements)| Ok((name, Value::new([batch, sequence], elements)?))).collect()
}
