//! The checks that stand before every forward pass: after them no lookup can leave its table.

use architecture::Program;
use candle_core::{DType, Device, Tensor};

use crate::ModelError;

/// Inputs as a model takes them, in the order of [`Program::inputs`]: `u32` of the shape they were
/// given in, each below what it may be. A mask of ones alone is none.
pub(crate) fn check(
    program: &Program,
    device: &Device,
    given: &[(&str, &Tensor)],
) -> Result<Vec<Option<Tensor>>, ModelError> {
    let known: Vec<&'static str> = program.inputs.iter().map(|input| input.name).collect();
    if let Some((input, _)) = given.iter().find(|(name, _)| !known.contains(name)) {
        return Err(ModelError::NoSuchInput { input: input.to_string(), known });
    }
    let of = |name: &str| given.iter().find(|(known, _)| *known == name).map(|&(_, tensor)| tensor);
    let (axes, max_position_embeddings) = (program.axes, program.limits().positions);
    let mut checked = Vec::with_capacity(known.len());
    let mut shape: Vec<usize> = Vec::new();
    for (at, &input) in known.iter().enumerate() {
        let below = program.below(at).unwrap_or(usize::MAX);
        let tensor = match of(input) {
            Some(tensor) if at == 0 => {
                let ids = Table::read(input, tensor, axes)?;
                shape = ids.shape.clone();
                if ids.elements.is_empty() {
                    return Err(ModelError::Empty { found: shape });
                }
                let sequence = shape.last().copied().unwrap_or_default();
                if sequence > max_position_embeddings {
                    return Err(ModelError::TooLong { sequence, max_position_embeddings });
                }
                Some(ids.below(below, device, |id, place| ModelError::UnknownToken {
                    input,
                    id,
                    place,
                    vocab_size: below,
                })?)
            }
            None if at == 0 => return Err(ModelError::MissingInput { input }),
            None if program.is_mask(at) => None,
            None => Some(Tensor::zeros(shape.as_slice(), DType::U32, device)?),
            Some(mask) if program.is_mask(at) => {
                let mask = Table::read_as(input, mask, axes, &shape)?;
                let tensor =
                    mask.below(below, device, |found, place| ModelError::MaskValue { input, found, place })?;
                mask.elements.contains(&0).then_some(tensor)
            }
            Some(types) => {
                Some(Table::read_as(input, types, axes, &shape)?.below(below, device, |found, place| {
                    ModelError::UnknownTokenType { input, found, place, type_vocab_size: below }
                })?)
            }
        };
        checked.push(tensor);
    }
    Ok(checked)
}

/// An input on the host.
struct Table {
    shape: Vec<usize>,
    elements: Vec<i64>,
}

impl Table {
    fn read(input: &'static str, tensor: &Tensor, axes: &'static [&'static str]) -> Result<Self, ModelError> {
        let shape = tensor.dims().to_vec();
        if shape.len() != axes.len() {
            return Err(ModelError::Rank { input, axes, found: shape });
        }
        if !tensor.dtype().is_int() {
            return Err(ModelError::NotIntegers { input, found: tensor.dtype() });
        }
        let elements = tensor.to_device(&Device::Cpu)?.to_dtype(DType::I64)?.flatten_all()?.to_vec1()?;
        Ok(Self { shape, elements })
    }

    /// Reads an input that must have the shape of the first one.
    fn read_as(
        input: &'static str,
        tensor: &Tensor,
        axes: &'static [&'static str],
        expected: &[usize],
    ) -> Result<Self, ModelError> {
        let table = Self::read(input, tensor, axes)?;
        if table.shape != expected {
            return Err(ModelError::Shape { input, found: table.shape, expected: expected.into() });
        }
        Ok(table)
    }

    /// The elements as `u32` on `device`, if all are in `0..end`; else the error for the first that
    /// is not. There is one at least.
    fn below(
        &self,
        end: usize,
        device: &Device,
        error: impl Fn(i64, Vec<usize>) -> ModelError,
    ) -> Result<Tensor, ModelError> {
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
        Ok(Tensor::from_vec(indices, self.shape.as_slice(), device)?)
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
