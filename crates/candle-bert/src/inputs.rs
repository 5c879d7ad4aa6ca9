//! The checks that stand before every forward pass: after them no lookup can leave its table.

use candle_core::{DType, Device, Tensor};

use crate::{BertConfig, BertError};

/// The axes of the inputs of most models.
pub(crate) const TOKENS: &[&str] = &["batch", "sequence"];

/// Checked inputs, on the model's device. All tensors are `[rows, sequence]`: where there are several leading axes, they are one here.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// `u32`, each below `vocab_size`.
    pub(crate) input_ids: Tensor,
    /// `u32`, each below `type_vocab_size`.
    pub(crate) token_type_ids: Tensor,
    /// `u8`, 0 or 1; `None` if nothing is masked.
    pub(crate) attention_mask: Option<Tensor>,
    /// The axes before the last, as they were given: `[batch]`, or `[batch, choices]`.
    pub(crate) leading: Vec<usize>,
}

/// Inputs as they are given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) input_ids: &'a Tensor,
    pub(crate) attention_mask: Option<&'a Tensor>,
    pub(crate) token_type_ids: Option<&'a Tensor>,
}

impl Inputs {
    /// Checks the inputs of [`crate::BertModel::forward`] and of heads. They are read back to the host for it, where they were on
    /// another device. `axes` says what they must have.
    pub(crate) fn check(
        config: &BertConfig,
        device: &Device,
        axes: &'static [&'static str],
        given: Given,
    ) -> Result<Self, BertError> {
        let &BertConfig { vocab_size, type_vocab_size, max_position_embeddings, .. } = config;
        let ids = Table::read("input_ids", given.input_ids, axes)?;
        let shape = &ids.shape;
        if ids.elements.is_empty() {
            return Err(BertError::Empty { found: shape.clone() });
        }
        let (sequence, leading) = (ids.sequence(), shape[..shape.len() - 1].to_vec());
        if sequence > max_position_embeddings {
            return Err(BertError::TooLong { sequence, max_position_embeddings });
        }
        let input_ids =
            ids.below(vocab_size, device, |id, place| BertError::UnknownToken { id, place, vocab_size })?;
        let token_type_ids = match given.token_type_ids {
            None => input_ids.zeros_like()?,
            Some(types) => Table::read_as("token_type_ids", types, axes, shape)?.below(
                type_vocab_size,
                device,
                |found, place| BertError::UnknownTokenType { found, place, type_vocab_size },
            )?,
        };
        let attention_mask = match given.attention_mask {
            None => None,
            Some(mask) => {
                let mask = Table::read_as("attention_mask", mask, axes, shape)?;
                let tensor = mask.below(2, device, |found, place| BertError::MaskValue { found, place })?;
                if mask.elements.contains(&0) { Some(tensor.to_dtype(DType::U8)?) } else { None }
            }
        };
        Ok(Self { input_ids, token_type_ids, attention_mask, leading })
    }

    pub(crate) fn sequence(&self) -> usize {
        self.input_ids.dims()[1]
    }
}

/// An input on the host.
struct Table {
    shape: Vec<usize>,
    elements: Vec<i64>,
}

impl Table {
    fn read(input: &'static str, tensor: &Tensor, axes: &'static [&'static str]) -> Result<Self, BertError> {
        let shape = tensor.dims().to_vec();
        if shape.len() != axes.len() {
            return Err(BertError::Rank { input, axes, found: shape });
        }
        if !tensor.dtype().is_int() {
            return Err(BertError::NotIntegers { input, found: tensor.dtype() });
        }
        let elements = tensor.to_device(&Device::Cpu)?.to_dtype(DType::I64)?.flatten_all()?.to_vec1()?;
        Ok(Self { shape, elements })
    }

    /// The same for an input that must have the shape of `input_ids`.
    fn read_as(
        input: &'static str,
        tensor: &Tensor,
        axes: &'static [&'static str],
        expected: &[usize],
    ) -> Result<Self, BertError> {
        let table = Self::read(input, tensor, axes)?;
        if table.shape != expected {
            return Err(BertError::Shape { input, found: table.shape, expected: expected.into() });
        }
        Ok(table)
    }

    fn sequence(&self) -> usize {
        self.shape.last().copied().unwrap_or_default()
    }

    /// The elements as `u32` `[rows, sequence]` on `device`, if all are in `0..end`; else the error for the first that is not. There is one at least.
    fn below(
        &self,
        end: usize,
        device: &Device,
        error: impl Fn(i64, Vec<usize>) -> BertError,
    ) -> Result<Tensor, BertError> {
        let indices: Vec<u32> = self
            .elements
            .iter()
            .enumerate()
            .map(|(at, &element)| {
                u32::try_from(element)
                    .ok()
                    .filter(|&index| (index as usize) < end)
                    .ok_or_else(|| error(element, self.place(at)))
            })
            .collect::<Result<_, _>>()?;
        Ok(Tensor::from_vec(indices, ((), self.sequence()), device)?)
    }

    /// The indices of an element, by its number.
    fn place(&self, mut at: usize) -> Vec<usize> {
        let mut place: Vec<usize> = Vec::with_capacity(self.shape.len());
        for &size in self.shape.iter().rev() {
            place.push(at % size);
            at /= size;
        }
        place.reverse();
        place
    }
}
