//! The building blocks that a program is made of.

use crate::Activation;
use crate::program::{Tensor, TensorId};

/// The building blocks. What each computes is written in the back ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Several leading axes as one, in an input: `[batch, choices, sequence]` to rows.
    Rows,
    /// The leading axes as they are in the first input, of one number for each row.
    Unrows,
    /// What attention makes of a mask of ones and zeros.
    Mask {
        /// How far a token sees, in either direction; without it as far as the text is.
        window: Option<usize>,
    },
    /// Rows of a table, by ids.
    Embedding {
        /// `[rows, width]`.
        table: TensorId,
    },
    /// Rows of a table, by position. It is fed nothing, or where `padding` is told, ids.
    Positions {
        /// `[rows, width]`.
        table: TensorId,
        /// Without it the first row is for the first token of each text, and so on. With it the
        /// row of that number is for all tokens that have it as their id, and those after it are
        /// for the others, which alone are counted (RoBERTa).
        padding: Option<usize>,
    },
    /// An affine map of the features.
    Linear {
        /// `[out, in]`.
        weight: TensorId,
        /// `[out]`, where there is one.
        bias: Option<TensorId>,
    },
    /// Layer normalisation over the features.
    LayerNorm {
        /// `[width]`.
        weight: TensorId,
        /// `[width]`, where there is one.
        bias: Option<TensorId>,
        /// What is added to the variance.
        eps: f64,
    },
    /// A number for each head and each pair of tokens, by how far one stands from the other: a row
    /// of a table for each bucket of distances (Raffel et al. 2020, section 2.1). It is fed nothing
    /// and gives `[sequence, sequence, heads]`, the token that asks first.
    ///
    /// Half of the buckets are for tokens that come later. Of each half the first half are
    /// distances by themselves; the others grow with the logarithm, up to `farthest` and all
    /// beyond.
    RelativeBias {
        /// `[buckets, heads]`.
        table: TensorId,
        /// How many buckets there are.
        buckets: usize,
        /// The distance at which the last bucket begins.
        farthest: usize,
    },
    /// The cosines, or the sines, of the angles by which tokens are turned (Su et al. 2021, section
    /// 3.2.2): `[1, sequence, size]`, of the tokens' places alone. It is fed nothing.
    Angles {
        /// Which angles.
        rotation: Rotation,
        /// Whether sines; if not, cosines.
        sines: bool,
    },
    /// Turns the first features of each head in pairs, fed them, cosines and sines; the others
    /// stay.
    Rotate {
        /// How many heads there are.
        heads: usize,
        /// Which features are pairs; see [`Rotation::neighbours`].
        neighbours: bool,
    },
    /// Multi-head attention of query, key, value and mask, scaled by the size of a head. A fifth
    /// input is added to the scores, as [`Op::RelativeBias`] gives it.
    Attention {
        /// How many heads there are.
        heads: usize,
    },
    /// A function of every element.
    Activation {
        /// Which.
        function: Activation,
        /// Whether config.json chooses it; if not, it is the architecture's.
        configured: bool,
    },
    /// The sum of all inputs.
    Sum,
    /// The product of all inputs, element by element.
    Product,
    /// Some of the features: one of several parts of the same width.
    Part {
        /// Which.
        at: usize,
        /// How many parts there are.
        of: usize,
    },
    /// The mean over those tokens of each text that a mask shows, fed both.
    Mean,
    /// The first token of each text that a mask shows, fed both; of a text that it hides, the
    /// first.
    FirstShown,
    /// One token of each text.
    Token {
        /// Its position.
        at: usize,
    },
    /// One feature of each token.
    Feature {
        /// Which.
        at: usize,
    },
}

impl Op {
    /// The shape of what it gives when it is first fed a value of this one.
    pub(crate) fn shape(&self, fed: Shape, tensors: &[Tensor]) -> Shape {
        let size = |tensor: TensorId, axis: usize| tensors.get(tensor)?.shape.get(axis).copied();
        match *self {
            Self::Rows | Self::Mask { .. } => Shape::IDS,
            Self::Unrows => Shape { per_token: false, width: None },
            Self::Embedding { table } | Self::Positions { table, .. } | Self::RelativeBias { table, .. } => {
                Shape { per_token: true, width: size(table, 1) }
            }
            Self::Linear { weight, .. } => Shape { width: size(weight, 0), ..fed },
            Self::Angles { rotation, .. } => Shape { per_token: true, width: Some(rotation.size) },
            Self::Part { of, .. } => {
                Shape { width: fed.width.and_then(|width| width.checked_div(of)), ..fed }
            }
            Self::LayerNorm { .. }
            | Self::Attention { .. }
            | Self::Rotate { .. }
            | Self::Activation { .. }
            | Self::Sum
            | Self::Product => fed,
            Self::Token { .. } | Self::Mean | Self::FirstShown => Shape { per_token: false, ..fed },
            Self::Feature { .. } => Shape { width: None, ..fed },
        }
    }

    /// The tensors that it reads, with the parameter that each is.
    pub fn tensors(&self) -> Vec<(&'static str, TensorId)> {
        match *self {
            Self::Embedding { table } | Self::Positions { table, .. } | Self::RelativeBias { table, .. } => {
                vec![("weight", table)]
            }
            Self::Linear { weight, bias } | Self::LayerNorm { weight, bias, .. } => {
                [("weight", weight)].into_iter().chain(bias.map(|bias| ("bias", bias))).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// By how much tokens are turned: at place *p*, the pair *i* of features by the angle
/// *p* · *base*^(−2*i*/*size*) / *slower*.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotation {
    /// How many features of each head are turned: an even number.
    pub size: usize,
    /// The number whose powers the angles are.
    pub base: f64,
    /// What all angles are divided by.
    pub slower: f64,
    /// Whether a feature is turned with the one beside it; if not, with that of the other half.
    pub neighbours: bool,
    /// The most tokens in a text.
    pub positions: usize,
}

impl Rotation {
    /// What the place of a token is multiplied with for the angle of each pair of features.
    pub fn frequencies(&self) -> impl Iterator<Item = f64> + use<'_> {
        (0..self.size / 2).map(|pair| self.base.powf(-2.0 * pair as f64 / self.size as f64) / self.slower)
    }

    /// The pair that a feature is of.
    pub fn pair(&self, feature: usize) -> usize {
        if self.neighbours { feature / 2 } else { feature % (self.size / 2).max(1) }
    }
}

/// The shape of a value: rows, then tokens, then features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Whether there is a value for each token: `[rows, sequence, …]`.
    pub per_token: bool,
    /// How many features there are; none where there is no such axis.
    pub width: Option<usize>,
}

impl Shape {
    /// That of an input.
    pub(crate) const IDS: Self = Self { per_token: true, width: None };
}
