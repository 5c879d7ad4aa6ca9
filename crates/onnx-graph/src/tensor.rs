use std::fmt;

use bytes::Bytes;
use engine::{DType, Value, ValueError};

use crate::TensorFault;

/// A dense, row-major tensor, kept as the little-endian bytes it has in the file. Cloning shares them.
///
/// Equality is that of the bytes, so a tensor with a NaN equals its copy.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    /// The type of its elements.
    pub dtype: DType,
    /// Its dimensions; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its elements, little-endian, without padding; a bool takes a byte. They need not be aligned.
    pub bytes: Bytes,
}

impl Tensor {
    /// A tensor of the given bytes.
    ///
    /// # Errors
    /// If their number is not what dtype and shape need.
    pub fn new(
        dtype: DType,
        shape: impl Into<Vec<usize>>,
        bytes: impl Into<Bytes>,
    ) -> Result<Self, TensorFault> {
        let tensor = Self { dtype, shape: shape.into(), bytes: bytes.into() };
        tensor.check_size("the buffer")?;
        Ok(tensor)
    }

    /// A tensor of a value's elements, which are copied.
    pub fn from_value(value: &Value) -> Self {
        Self { dtype: value.dtype(), shape: value.shape().to_vec(), bytes: value.to_le_bytes().into() }
    }

    /// The elements as a value, copied.
    ///
    /// # Errors
    /// If the number of bytes does not fit, or a bool is neither 0 nor 1.
    pub fn to_value(&self) -> Result<Value, ValueError> {
        Value::from_le_bytes(self.dtype, self.shape.clone(), &self.bytes)
    }

    /// Whether the bytes, which `field` holds, are as many as dtype and shape need.
    pub(crate) fn check_size(&self, field: &'static str) -> Result<(), TensorFault> {
        let expected = byte_size(self.dtype, &self.shape)?;
        if expected == self.bytes.len() {
            return Ok(());
        }
        Err(TensorFault::Size {
            dtype: self.dtype,
            shape: self.shape.clone(),
            expected,
            field,
            found: self.bytes.len(),
        })
    }
}

/// The number of bytes of a tensor, at most `isize::MAX`, which is Rust's limit for an object in memory.
pub(crate) fn byte_size(dtype: DType, shape: &[usize]) -> Result<usize, TensorFault> {
    // A zero anywhere makes the product zero, whatever stands beside it.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(dtype.size(), |bytes, &dim| bytes.checked_mul(dim))
        .filter(|&bytes| isize::try_from(bytes).is_ok())
        .ok_or_else(|| TensorFault::Overflow {
            dtype,
            dims: shape.iter().map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect(),
        })
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?} ({} bytes)", self.dtype, self.shape, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_must_fit_the_shape() {
        let error = Tensor::new(DType::F32, [2, 3], vec![0; 20]).unwrap_err();
        assert_eq!(error.to_string(), "f32[2, 3] needs 24 bytes, the buffer has 20");
        let error = Tensor::new(DType::F32, [usize::MAX, 2], vec![]).unwrap_err();
        assert!(matches!(error, TensorFault::Overflow { .. }), "{error}");
        assert!(Tensor::new(DType::F32, [usize::MAX, 2, 0], vec![]).is_ok());
    }

    #[test]
    fn values_round_trip() {
        let value = Value::new([2, 1], vec![-1i16, 300]).unwrap();
        let tensor = Tensor::from_value(&value);
        assert_eq!(tensor.bytes[..], [0xff, 0xff, 0x2c, 0x01]);
        assert_eq!(tensor.to_value().unwrap(), value);
    }

    #[test]
    fn a_bool_that_is_none_is_not_handed_out() {
        let tensor = Tensor::new(DType::Bool, [2], vec![1, 7]).unwrap();
        assert_eq!(tensor.to_value().unwrap_err(), ValueError::NotABool { index: 1, found: 7 });
    }
}
