//! The checks that stand before every forward pass: after them no lookup can leave its table.

use candle_core::{DType, Device, Tensor};

use crate::{BertConfig, BertError};

/// Checked inputs, on the model's device; all tensors `[batch, sequence]`.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// `u32`, each below `vocab_size`.
    pub(crate) input_ids: Tensor,
    /// `u32`, each below `type_vocab_size`.
    pub(crate) token_type_ids: Tensor,
    /// `u8`, 0 or 1; `None` if nothing is masked.
    pub(crate) attention_mask: Option<Tensor>,
}

impl Inputs {
    /// Checks the inputs of [`crate::BertModel::forward`]. They are read back to the host for it, where they were on
    /// another device.
    pub(crate) fn check(
        config: &BertConfig,
        device: &Device,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        token_type_ids: Option<&Tensor>,
    ) -> Result<Self, BertError> {
        let &BertConfig { vocab_size, type_vocab_size, max_position_embeddings, .. } = config;
        let ids = Matrix::read("input_ids", input_ids)?;
        let shape = ids.shape;
        if ids.elements.is_empty() {
            return Err(BertError::Empty { found: shape.into() });
        }
        if shape[1] > max_position_embeddings {
            return Err(BertError::TooLong { sequence: shape[1], max_position_embeddings });
        }
        let input_ids = ids.below(vocab_size, device, |id, row, position| BertError::UnknownToken {
            id,
            row,
            position,
            vocab_size,
        })?;
        let token_type_ids = match token_type_ids {
            None => Tensor::zeros((shape[0], shape[1]), DType::U32, device)?,
            Some(types) => Matrix::read_as("token_type_ids", types, shape)?.below(
                type_vocab_size,
                device,
                |found, row, position| BertError::UnknownTokenType { found, row, position, type_vocab_size },
            )?,
        };
        let attention_mask = match attention_mask {
            None => None,
            Some(mask) => {
                let mask = Matrix::read_as("attention_mask", mask, shape)?;
                let tensor = mask.below(2, device, |found, row, position| BertError::MaskValue {
                    found,
                    row,
                    position,
                })?;
                if mask.elements.contains(&0) { Some(tensor.to_dtype(DType::U8)?) } else { None }
            }
        };
        Ok(Self { input_ids, token_type_ids, attention_mask })
    }

    pub(crate) fn sequence(&self) -> usize {
        self.input_ids.dims()[1]
    }
}

/// An input on the host.
struct Matrix {
    shape: [usize; 2],
    elements: Vec<i64>,
}

impl Matrix {
    fn read(input: &'static str, tensor: &Tensor) -> Result<Self, BertError> {
        let &[rows, columns] = tensor.dims() else {
            return Err(BertError::Rank { input, found: tensor.dims().to_vec() });
        };
        if !tensor.dtype().is_int() {
            return Err(BertError::NotIntegers { input, found: tensor.dtype() });
        }
        let elements = tensor.to_device(&Device::Cpu)?.to_dtype(DType::I64)?.flatten_all()?.to_vec1()?;
        Ok(Self { shape: [rows, columns], elements })
    }

    /// The same for an input that must have the shape of `input_ids`.
    fn read_as(input: &'static str, tensor: &Tensor, expected: [usize; 2]) -> Result<Self, BertError> {
        let matrix = Self::read(input, tensor)?;
        if matrix.shape != expected {
            return Err(BertError::Shape { input, found: matrix.shape.into(), expected: expected.into() });
        }
        Ok(matrix)
    }

    /// The elements as `u32` on `device`, if all are in `0..end`; else the error for the first that is not.
    fn below(
        &self,
        end: usize,
        device: &Device,
        error: impl Fn(i64, usize, usize) -> BertError,
    ) -> Result<Tensor, BertError> {
        let indices: Vec<u32> = self
            .elements
            .iter()
            .enumerate()
            .map(|(at, &element)| {
                u32::try_from(element)
                    .ok()
                    .filter(|&index| (index as usize) < end)
                    .ok_or_else(|| error(element, at / self.shape[1], at % self.shape[1]))
            })
            .collect::<Result<_, _>>()?;
        Ok(Tensor::from_vec(indices, (self.shape[0], self.shape[1]), device)?)
    }
}
