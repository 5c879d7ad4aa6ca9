//! From the checkpoint's tensors to the graph's initializers.

use std::collections::HashMap;

use checkpoint::TensorEntry;
use engine::DType;
use half::f16;
use onnx_graph::Tensor;

use crate::{ExportError, FloatType, Weights};

/// The side of the squares in which a matrix is transposed: 32 × 32 f32 of two matrices are 8 KiB,
/// which any first-level cache holds.
const SQUARE: usize = 32;

/// The tensors of a checkpoint, under their names without a prefix.
pub(crate) struct Store<'a> {
    tensors: HashMap<String, &'a TensorEntry>,
    form: Weights,
    dtype: FloatType,
}

impl<'a> Store<'a> {
    pub fn new(
        tensors: Vec<(String, &'a TensorEntry)>,
        form: Weights,
        dtype: FloatType,
    ) -> Result<Self, ExportError> {
        if form == Weights::AsStored
            && let Some((_, entry)) = tensors.iter().find(|(_, entry)| entry.dtype != DType::F32)
        {
            return Err(ExportError::NotF32 { tensor: entry.name.clone(), dtype: entry.dtype });
        }
        Ok(Self { tensors: tensors.into_iter().collect(), form, dtype })
    }

    /// Whether dense weights come as `[in, out]`.
    pub fn transposes(&self) -> bool {
        self.form == Weights::Transposed
    }

    /// The name and the tensor that stand for a tensor of the model. Its bytes are the
    /// checkpoint's, unless they have to be rounded.
    pub fn plain(&self, name: &str) -> Result<(String, Tensor), ExportError> {
        let entry = self.entry(name)?;
        let dtype = self.dtype.dtype();
        let bytes = match self.dtype {
            _ if entry.dtype == dtype => entry.bytes.clone(),
            // f16 and bf16 become f32 without loss; f64 is rounded.
            FloatType::F32 => {
                singles(entry)?.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into()
            }
            FloatType::F16 => {
                halves(entry)?.into_iter().flat_map(f16::to_le_bytes).collect::<Vec<u8>>().into()
            }
        };
        let tensor = Tensor::new(dtype, entry.shape.clone(), bytes)
            .map_err(|source| ExportError::Tensor { tensor: entry.name.clone(), source })?;
        // A graph that uses the weights where they lie has them under the names they have there.
        let name = if self.transposes() { name } else { &entry.name };
        Ok((name.to_string(), tensor))
    }

    /// The same for a matrix, its axes swapped.
    pub fn transposed(&self, name: &str) -> Result<(String, Tensor), ExportError> {
        let (stored, Tensor { dtype, shape, bytes }) = self.plain(name)?;
        let &[rows, columns] = shape.as_slice() else {
            return Err(ExportError::NotAMatrix { tensor: stored, shape });
        };
        let bytes = match self.dtype {
            FloatType::F32 => transpose::<{ size_of::<f32>() }>(&bytes, rows, columns),
            FloatType::F16 => transpose::<{ size_of::<f16>() }>(&bytes, rows, columns),
        };
        let tensor = Tensor::new(dtype, [columns, rows], bytes)
            .map_err(|source| ExportError::Tensor { tensor: stored, source })?;
        Ok((format!("{name}_transposed"), tensor))
    }

    /// Every tensor that is asked for was found before; see [`architecture::bind`].
    fn entry(&self, name: &str) -> Result<&'a TensorEntry, ExportError> {
        self.tensors.get(name).copied().ok_or_else(|| ExportError::Missing { tensor: name.into() })
    }
}

/// The elements of a tensor, rounded to f32.
fn singles(entry: &TensorEntry) -> Result<Vec<f32>, ExportError> {
    Ok(match entry.dtype {
        DType::F32 => entry.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        _ => entry.to_value()?.to_f64().into_iter().map(|x| x as f32).collect(),
    })
}

/// The elements of a tensor, rounded to f16.
fn halves(entry: &TensorEntry) -> Result<Vec<f16>, ExportError> {
    let round = |x: f32| match f16::from_f32(x) {
        half if half.is_infinite() && x.is_finite() => {
            Err(ExportError::TooLargeForHalf { tensor: entry.name.clone(), value: x })
        }
        half => Ok(half),
    };
    singles(entry)?.into_iter().map(round).collect()
}

/// A row-major matrix of elements of so many bytes, with its axes swapped.
fn transpose<const SIZE: usize>(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let mut swapped = vec![0; bytes.len()];
    for top in (0..rows).step_by(SQUARE) {
        for left in (0..columns).step_by(SQUARE) {
            for row in top..rows.min(top + SQUARE) {
                for column in left..columns.min(left + SQUARE) {
                    let (from, to) = ((row * columns + column) * SIZE, (column * rows + row) * SIZE);
                    swapped[to..to + SIZE].copy_from_slice(&bytes[from..from + SIZE]);
                }
            }
        }
    }
    swapped
}

#[cfg(test)]
mod tests {
    use checkpoint::Checkpoint;
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;

    /// A checkpoint of one tensor [2, 1].
    fn checkpoint(dtype: Dtype, bytes: &[u8]) -> Checkpoint {
        let view = TensorView::new(dtype, vec![2, 1], bytes).unwrap();
        let file = safetensors::serialize([("bert.w", view)], None).unwrap();
        Checkpoint::from_safetensors("model.safetensors", file.into()).unwrap()
    }

    fn store(checkpoint: &Checkpoint, form: Weights) -> Result<Store<'_>, ExportError> {
        Store::new(vec![("w".into(), checkpoint.get("bert.w").unwrap())], form, FloatType::F32)
    }

    fn half_store(checkpoint: &Checkpoint) -> Store<'_> {
        let tensors = vec![("w".into(), checkpoint.get("bert.w").unwrap())];
        Store::new(tensors, Weights::Transposed, FloatType::F16).unwrap()
    }

    #[test]
    fn weights_of_other_float_dtypes_are_rounded_to_f32() {
        // 1.5 and −2 in f16 and bf16; in f64, a third, which f32 has to round.
        let f64s = [1.0 / 3.0, -2.0f64].map(f64::to_le_bytes).concat();
        for (dtype, bytes, expected) in [
            (Dtype::F16, vec![0x00, 0x3e, 0x00, 0xc0], [1.5, -2.0]),
            (Dtype::BF16, vec![0xc0, 0x3f, 0x00, 0xc0], [1.5, -2.0]),
            (Dtype::F64, f64s, [1.0 / 3.0, -2.0f32]),
        ] {
            let checkpoint = checkpoint(dtype, &bytes);
            let (name, tensor) = store(&checkpoint, Weights::Transposed).unwrap().plain("w").unwrap();
            assert_eq!(
                (name.as_str(), tensor.dtype, tensor.shape.as_slice()),
                ("w", DType::F32, &[2, 1][..])
            );
            assert_eq!(tensor.bytes[..], expected.map(f32::to_le_bytes).concat(), "{dtype:?}");
            // Nobody can point at what has to be rounded.
            let error = store(&checkpoint, Weights::AsStored).err().unwrap().to_string();
            assert!(error.starts_with("'bert.w' is ") && error.contains("only at weights in f32"), "{error}");
        }
    }

    #[test]
    fn weights_are_rounded_to_the_nearest_f16() {
        let f64s = [1.0 / 3.0, -2.0f64].map(f64::to_le_bytes).concat();
        for (dtype, bytes, expected) in [
            (Dtype::F32, [0.1f32, -2.0].map(f32::to_le_bytes).concat(), [0x2e66, 0xc000]),
            (Dtype::F64, f64s, [0x3555, 0xc000]),
            (Dtype::BF16, vec![0xc0, 0x3f, 0x00, 0xc0], [0x3e00, 0xc000u16]),
            // The largest number, what is nearer to it than to the next, and what is less than the
            // least.
            (Dtype::F32, [65504f32, 65519.0].map(f32::to_le_bytes).concat(), [0x7bff, 0x7bff]),
            (Dtype::F32, [6e-8f32, 2e-8].map(f32::to_le_bytes).concat(), [1, 0]),
        ] {
            let checkpoint = checkpoint(dtype, &bytes);
            let (name, tensor) = half_store(&checkpoint).plain("w").unwrap();
            assert_eq!((name.as_str(), tensor.dtype), ("w", DType::F16));
            assert_eq!(tensor.bytes[..], expected.map(u16::to_le_bytes).concat(), "{dtype:?}");
        }
        // What is f16 already is not copied.
        let checkpoint = checkpoint(Dtype::F16, &[0x00, 0x3e, 0x00, 0xc0]);
        let (_, tensor) = half_store(&checkpoint).plain("w").unwrap();
        assert_eq!(tensor.bytes.as_ptr(), checkpoint.get("bert.w").unwrap().bytes.as_ptr());
    }

    #[test]
    fn a_weight_that_f16_cannot_hold_is_named() {
        for (dtype, bytes, shown) in [
            (Dtype::F32, [1.0f32, 65520.0].map(f32::to_le_bytes).concat(), "6.552e4"),
            (Dtype::F64, [1.0f64, -1e6].map(f64::to_le_bytes).concat(), "-1e6"),
        ] {
            let checkpoint = checkpoint(dtype, &bytes);
            for result in [half_store(&checkpoint).plain("w"), half_store(&checkpoint).transposed("w")] {
                let error = result.unwrap_err().to_string();
                assert_eq!(error, format!("'bert.w' has {shown}, and f16 ends at 65504; export it in f32"));
            }
        }
    }

    #[test]
    fn weights_in_f32_are_not_copied() {
        let checkpoint = checkpoint(Dtype::F32, &[7; 8]);
        let here = checkpoint.get("bert.w").unwrap().bytes.as_ptr();
        for (form, name) in [(Weights::Transposed, "w"), (Weights::AsStored, "bert.w")] {
            let (found, tensor) = store(&checkpoint, form).unwrap().plain("w").unwrap();
            assert_eq!((found.as_str(), tensor.bytes.as_ptr()), (name, here));
        }
        let (name, tensor) = store(&checkpoint, Weights::Transposed).unwrap().transposed("w").unwrap();
        assert_eq!((name.as_str(), tensor.shape), ("w_transposed", vec![1, 2]));
    }

    #[test]
    fn rows_become_columns() {
        // Sides below, at and above the square's.
        for (rows, columns) in [(1, 1), (3, 5), (32, 32), (33, 70), (1, 100)] {
            let matrix: Vec<u8> = (0..rows * columns).flat_map(|x: usize| (x as f32).to_le_bytes()).collect();
            let swapped = transpose::<4>(&matrix, rows, columns);
            let narrow: Vec<u8> = matrix.chunks_exact(4).flat_map(|bytes| [bytes[2], bytes[3]]).collect();
            let narrow = transpose::<2>(&narrow, rows, columns);
            for (at, element) in swapped.chunks_exact(4).enumerate() {
                let (column, row) = (at / rows, at % rows);
                let expected = (row * columns + column) as f32;
                assert_eq!(element, expected.to_le_bytes(), "[{row}, {column}] of [{rows}, {columns}]");
                assert_eq!(narrow[2 * at..][..2], expected.to_le_bytes()[2..]);
            }
        }
    }
}
