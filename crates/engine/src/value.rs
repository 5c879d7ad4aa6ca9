use std::fmt;
use std::sync::Arc;

use half::{bf16, f16};

use crate::dtype::{DType, Element};

/// A dense, row-major tensor of any [`DType`]. Cloning shares the data.
///
/// Equality is that of its elements: a NaN never equals anything.
#[derive(Clone, PartialEq)]
pub struct Value {
    shape: Vec<usize>,
    data: Data,
}

/// The elements of a [`Value`]. Public only to [`Element`], which cannot be implemented outside this crate.
#[doc(hidden)]
#[derive(Clone, PartialEq)]
#[allow(missing_docs, reason = "hidden")]
pub enum Data {
    F16(Arc<[f16]>),
    BF16(Arc<[bf16]>),
    F32(Arc<[f32]>),
    F64(Arc<[f64]>),
    I8(Arc<[i8]>),
    I16(Arc<[i16]>),
    I32(Arc<[i32]>),
    I64(Arc<[i64]>),
    U8(Arc<[u8]>),
    U16(Arc<[u16]>),
    U32(Arc<[u32]>),
    U64(Arc<[u64]>),
    Bool(Arc<[bool]>),
}

/// Runs `$body` with `$slice` bound to the elements, whatever their type.
macro_rules! each_dtype {
    ($data:expr, $slice:ident => $body:expr) => {
        match $data {
            Data::F16($slice) => $body,
            Data::BF16($slice) => $body,
            Data::F32($slice) => $body,
            Data::F64($slice) => $body,
            Data::I8($slice) => $body,
            Data::I16($slice) => $body,
            Data::I32($slice) => $body,
            Data::I64($slice) => $body,
            Data::U8($slice) => $body,
            Data::U16($slice) => $body,
            Data::U32($slice) => $body,
            Data::U64($slice) => $body,
            Data::Bool($slice) => $body,
        }
    };
}

/// Why a [`Value`] could not be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum ValueError {
    /// The number of elements is not the product of the dimensions.
    #[error("shape {shape:?} needs {expected} elements, got {found}")]
    Length { shape: Vec<usize>, expected: usize, found: usize },
    /// The number of bytes is not what the shape and dtype need.
    #[error("{dtype} of shape {shape:?} needs {expected} bytes, got {found}")]
    Bytes { dtype: DType, shape: Vec<usize>, expected: usize, found: usize },
    /// The product of the dimensions, in bytes, does not fit the address space.
    #[error("shape {shape:?} of {dtype} is too large for this machine's address space")]
    Overflow { dtype: DType, shape: Vec<usize> },
    /// The value is of another dtype than the one asked for.
    #[error("expected {expected}, found {found}")]
    WrongDType { expected: DType, found: DType },
    /// A byte that should be a bool is neither 0 nor 1.
    #[error("a bool is stored as 0 or 1, found {found} at element {index}")]
    NotABool { index: usize, found: u8 },
    /// candle could not hand a tensor over.
    #[error("{0}")]
    Candle(String),
}

impl Value {
    /// A value of the given shape, its elements in row-major order.
    ///
    /// # Errors
    /// [`ValueError::Length`] if the number of elements is not the product of the dimensions.
    pub fn new<T: Element>(
        shape: impl Into<Vec<usize>>,
        data: impl Into<Arc<[T]>>,
    ) -> Result<Self, ValueError> {
        let (shape, data) = (shape.into(), data.into());
        let expected = element_count(&shape, T::DTYPE)?;
        if expected != data.len() {
            return Err(ValueError::Length { shape, expected, found: data.len() });
        }
        Ok(Self { shape, data: T::wrap(data) })
    }

    /// A value of rank 0.
    pub fn scalar<T: Element>(element: T) -> Self {
        Self { shape: Vec::new(), data: T::wrap(Arc::from([element])) }
    }

    /// A value read from little-endian bytes, the form of both ONNX's `raw_data` and safetensors. The bytes need no alignment.
    ///
    /// # Errors
    /// If the number of bytes does not fit, or a bool is neither 0 nor 1.
    pub fn from_le_bytes(
        dtype: DType,
        shape: impl Into<Vec<usize>>,
        bytes: &[u8],
    ) -> Result<Self, ValueError> {
        let shape = shape.into();
        let expected = element_count(&shape, dtype)? * dtype.size();
        if expected != bytes.len() {
            return Err(ValueError::Bytes { dtype, shape, expected, found: bytes.len() });
        }
        macro_rules! read {
            ($t:ty) => {
                <$t>::wrap(
                    bytes
                        .chunks_exact(size_of::<$t>())
                        .map(|chunk| {
                            let mut element = [0; size_of::<$t>()];
                            element.copy_from_slice(chunk);
                            <$t>::from_le_bytes(element)
                        })
                        .collect(),
                )
            };
        }
        let data = match dtype {
            DType::F16 => read!(f16),
            DType::BF16 => read!(bf16),
            DType::F32 => read!(f32),
            DType::F64 => read!(f64),
            DType::I8 => read!(i8),
            DType::I16 => read!(i16),
            DType::I32 => read!(i32),
            DType::I64 => read!(i64),
            DType::U8 => read!(u8),
            DType::U16 => read!(u16),
            DType::U32 => read!(u32),
            DType::U64 => read!(u64),
            DType::Bool => Data::Bool(
                bytes
                    .iter()
                    .enumerate()
                    .map(|(index, &byte)| match byte {
                        0 => Ok(false),
                        1 => Ok(true),
                        found => Err(ValueError::NotABool { index, found }),
                    })
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(Self { shape, data })
    }

    /// The elements as little-endian bytes: the inverse of [`Value::from_le_bytes`].
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::Bool(data) => data.iter().map(|&b| u8::from(b)).collect(),
            Data::F16(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::BF16(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::F32(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::F64(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I8(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I16(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I32(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I64(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U8(data) => data.to_vec(),
            Data::U16(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U32(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U64(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        fn dtype_of<T: Element>(_: &[T]) -> DType {
            T::DTYPE
        }
        each_dtype!(&self.data, data => dtype_of(data))
    }

    /// The dimensions; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements: 1 for a scalar.
    pub fn len(&self) -> usize {
        each_dtype!(&self.data, data => data.len())
    }

    /// Whether some dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements in row-major order.
    ///
    /// # Errors
    /// [`ValueError::WrongDType`] if they are not of type `T`; nothing is converted.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], ValueError> {
        T::slice(&self.data).ok_or(ValueError::WrongDType { expected: T::DTYPE, found: self.dtype() })
    }

    /// The elements as `f64`: exact for all but 64-bit integers beyond 2⁵³. A bool is 0 or 1.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            Data::F16(data) => data.iter().map(|x| x.to_f64()).collect(),
            Data::BF16(data) => data.iter().map(|x| x.to_f64()).collect(),
            Data::F32(data) => data.iter().map(|&x| f64::from(x)).collect(),
            Data::F64(data) => data.to_vec(),
            Data::I8(data) => data.iter().map(|&x| f64::from(x)).collect(),
            Data::I16(data) => data.iter().map(|&x| f64::from(x)).collect(),
            Data::I32(data) => data.iter().map(|&x| f64::from(x)).collect(),
            Data::I64(data) => data.iter().map(|&x| x as f64).collect(),
            Data::U8(data) => data.iter().map(|&x| f64::from(x)).collect(),
            Data::U16(data) => data.iter().map(|&x| f64::from(x)).collect(),
            Data::U32(data) => data.iter().map(|&x| f64::from(x)).collect(),
            Data::U64(data) => data.iter().map(|&x| x as f64).collect(),
            Data::Bool(data) => data.iter().map(|&x| f64::from(u8::from(x))).collect(),
        }
    }
}

/// The number of elements, if their bytes can be counted in an `isize` (Rust's own limit for an allocation).
fn element_count(shape: &[usize], dtype: DType) -> Result<usize, ValueError> {
    // A zero anywhere makes the product zero, whatever stands beside it.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1usize, |count, &dim| count.checked_mul(dim))
        .filter(|count| count.checked_mul(dtype.size()).is_some_and(|bytes| isize::try_from(bytes).is_ok()))
        .ok_or_else(|| ValueError::Overflow { dtype, shape: shape.to_vec() })
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        write!(f, "{}{:?} ", self.dtype(), self.shape)?;
        each_dtype!(&self.data, data => {
            let mut list = f.debug_list();
            list.entries(data.iter().take(SHOWN));
            if data.len() > SHOWN {
                list.entry(&format_args!("… {} more", data.len() - SHOWN));
            }
            list.finish()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn length_must_match_the_shape() {
        let error = Value::new([2, 3], vec![0f32; 5]).unwrap_err();
        assert_eq!(error.to_string(), "shape [2, 3] needs 6 elements, got 5");
    }

    #[test]
    fn a_shape_that_overflows_is_an_error() {
        let error = Value::new([usize::MAX, 2], Vec::<f32>::new()).unwrap_err();
        assert!(matches!(error, ValueError::Overflow { .. }));
        // A zero dimension makes any shape empty.
        assert!(Value::new([usize::MAX, 2, 0], Vec::<f32>::new()).unwrap().is_empty());
    }

    #[test]
    fn dtypes_are_not_converted_silently() {
        let value = Value::scalar(1i32);
        assert_eq!(
            value.as_slice::<i64>().unwrap_err(),
            ValueError::WrongDType { expected: DType::I64, found: DType::I32 }
        );
    }

    #[test]
    fn bools_are_zero_or_one() {
        let error = Value::from_le_bytes(DType::Bool, [3], &[0, 1, 2]).unwrap_err();
        assert_eq!(error, ValueError::NotABool { index: 2, found: 2 });
    }

    #[test]
    fn nan_is_never_equal() {
        let nan = Value::scalar(f32::NAN);
        assert_ne!(nan, nan.clone());
    }

    proptest! {
        #[test]
        fn bytes_round_trip(bits in proptest::collection::vec(any::<u64>(), 0..20)) {
            let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
            for dtype in [
                DType::F16, DType::BF16, DType::F32, DType::F64, DType::I8, DType::I16, DType::I32, DType::I64,
                DType::U8, DType::U16, DType::U32, DType::U64,
            ] {
                let value = Value::from_le_bytes(dtype, [bytes.len() / dtype.size()], &bytes).unwrap();
                prop_assert_eq!(value.dtype(), dtype);
                prop_assert_eq!(value.to_le_bytes(), bytes.clone());
            }
        }
    }
}
