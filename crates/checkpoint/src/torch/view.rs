//! A tensor as a view of a storage: where it begins, its shape, and how far apart its elements lie.

use bytes::Bytes;
use engine::DType;

use super::{Budget, TorchError, unfold};

pub(super) struct View {
    /// Where the part of the storage begins that the tensor may use, in bytes.
    pub begin: usize,
    /// How many elements of the tensor's dtype that part has.
    pub elements: usize,
    /// Where the first element lies in that part, in elements.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// In elements; one for each dimension.
    pub strides: Vec<usize>,
}

impl View {
    /// The elements in row-major order: a slice of the storage, and where it begins in it, if they lie so; else a copy.
    pub fn read(
        &self,
        tensor: &str,
        dtype: DType,
        storage: &Bytes,
        budget: &mut Budget,
    ) -> Result<(Bytes, Option<usize>), TorchError> {
        let too_large = || TorchError::Layout {
            tensor: tensor.to_owned(),
            reason: "its shape has more elements than can be counted",
        };
        let outside = || TorchError::OutOfStorage {
            tensor: tensor.to_owned(),
            shape: self.shape.clone(),
            elements: self.elements,
        };
        let at = |element: usize| {
            element.checked_mul(dtype.size())?.checked_add(self.begin).filter(|&at| at <= storage.len())
        };
        if self.shape.contains(&0) {
            return Ok((Bytes::new(), at(self.offset)));
        }
        let count = self.shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
        let length = count.and_then(|count| count.checked_mul(dtype.size())).ok_or_else(too_large)?;
        let last = self.shape.iter().zip(&self.strides).try_fold(self.offset, |last, (&size, &stride)| {
            last.checked_add((size - 1).checked_mul(stride)?)
        });
        if last.is_none_or(|last| last >= self.elements) {
            return Err(outside());
        }
        let begin = at(self.offset).ok_or_else(outside)?;
        if self.is_contiguous() {
            let end = begin.checked_add(length).filter(|&end| end <= storage.len()).ok_or_else(outside)?;
            return Ok((storage.slice(begin..end), Some(begin)));
        }
        unfold(tensor, length as u64, budget)?;
        self.gather(dtype, storage.get(begin..).unwrap_or_default(), length)
            .map(|bytes| (bytes.into(), None))
            .ok_or_else(outside)
    }

    /// Dimensions of one element may have any stride.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().filter(|&(&size, _)| size != 1).all(|(&size, &stride)| {
            let is_next = stride == expected;
            expected *= size;
            is_next
        })
    }

    /// Copies element by element. `bytes` begin with the first one.
    fn gather(&self, dtype: DType, bytes: &[u8], length: usize) -> Option<Vec<u8>> {
        let (&row, outer) = self.shape.split_last()?;
        let (&step, strides) = self.strides.split_last()?;
        let mut gathered = Vec::with_capacity(length);
        let mut index = vec![0; outer.len()];
        let mut start = 0;
        while gathered.len() < length {
            for column in 0..row {
                let at = (start + column * step) * dtype.size();
                gathered.extend_from_slice(bytes.get(at..at + dtype.size())?);
            }
            // The next row: as an odometer counts.
            for dimension in (0..outer.len()).rev() {
                index[dimension] += 1;
                start += strides[dimension];
                if index[dimension] < outer[dimension] {
                    break;
                }
                start -= index[dimension] * strides[dimension];
                index[dimension] = 0;
            }
        }
        Some(gathered)
    }
}
