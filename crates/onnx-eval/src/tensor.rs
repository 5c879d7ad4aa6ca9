//! What the operators compute with.

use engine::{DType, Value, ValueError};
use half::{bf16, f16};
use ndarray::{ArcArray, ArrayD, IxDyn};

use crate::fault::Fault;
use crate::round::{Precision, round, wrap};

/// An array of any rank; cloning shares it.
pub(crate) type Array<T> = ArcArray<T, IxDyn>;

/// A tensor of the dtype that the graph gives it. What holds its elements is wider: `f64` for the four float types, `i128` for integers
/// and bools. So an operator is written once for all floats and once for all integers, and overflows nowhere inside.
/// [`Tensor::settled`] then brings each element back to what the dtype can hold.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub dtype: DType,
    pub data: Data,
}

#[derive(Debug, Clone)]
pub(crate) enum Data {
    Float(Array<f64>),
    /// A bool is 0 or 1.
    Int(Array<i128>),
}

/// A tensor of the same dtype, made by the same expression whatever the type of the elements.
macro_rules! each {
    ($tensor:expr, $array:ident => $body:expr) => {{
        let tensor: &$crate::tensor::Tensor = $tensor;
        match &tensor.data {
            $crate::tensor::Data::Float($array) => $crate::tensor::Tensor::float(tensor.dtype, $body),
            $crate::tensor::Data::Int($array) => $crate::tensor::Tensor::int(tensor.dtype, $body),
        }
    }};
}
pub(crate) use each;

/// The array of these elements in row-major order.
pub(crate) fn array<T>(shape: &[usize], elements: Vec<T>) -> Result<ArrayD<T>, Fault> {
    let found = elements.len();
    ArrayD::from_shape_vec(IxDyn(shape), elements)
        .map_err(|_| Fault::Elements { shape: shape.to_vec(), found })
}

/// The same elements under another shape.
pub(crate) fn reshaped<T: Clone>(array: &Array<T>, shape: &[usize]) -> Result<ArrayD<T>, Fault> {
    let wrong = |_| Fault::Elements { shape: shape.to_vec(), found: array.len() };
    Ok(array.to_shape(IxDyn(shape)).map_err(wrong)?.into_owned())
}

impl Tensor {
    pub fn float(dtype: DType, array: ArrayD<f64>) -> Self {
        Self { dtype, data: Data::Float(array.into_shared()) }
    }

    pub fn int(dtype: DType, array: ArrayD<i128>) -> Self {
        Self { dtype, data: Data::Int(array.into_shared()) }
    }

    pub fn bool(array: &ArrayD<bool>) -> Self {
        Self::int(DType::Bool, array.mapv(i128::from))
    }

    /// An i64 tensor of rank 1.
    pub fn sizes(sizes: impl IntoIterator<Item = usize>) -> Self {
        let sizes: Vec<i128> = sizes.into_iter().map(|size| size as i128).collect();
        Self::int(DType::I64, ndarray::Array1::from_vec(sizes).into_dyn())
    }

    pub fn shape(&self) -> &[usize] {
        match &self.data {
            Data::Float(array) => array.shape(),
            Data::Int(array) => array.shape(),
        }
    }

    pub fn rank(&self) -> usize {
        self.shape().len()
    }

    pub fn len(&self) -> usize {
        match &self.data {
            Data::Float(array) => array.len(),
            Data::Int(array) => array.len(),
        }
    }

    /// The elements as floats; integers beyond 2⁵³ are rounded.
    pub fn to_floats(&self) -> Array<f64> {
        match &self.data {
            Data::Float(array) => array.clone(),
            Data::Int(array) => array.mapv(|x| x as f64).into_shared(),
        }
    }

    /// The same under another dtype; integers become floats where it is one, floats are truncated where it is none.
    pub fn cast(&self, dtype: DType) -> Self {
        let data = match &self.data {
            Data::Float(array) if dtype == DType::Bool => {
                Data::Int(array.mapv(|x| i128::from(x != 0.0)).into_shared())
            }
            Data::Int(array) if dtype == DType::Bool => {
                Data::Int(array.mapv(|x| i128::from(x != 0)).into_shared())
            }
            Data::Float(array) if !dtype.is_float() => Data::Int(array.mapv(|x| x as i128).into_shared()),
            Data::Int(array) if dtype.is_float() => Data::Float(array.mapv(|x| x as f64).into_shared()),
            data => data.clone(),
        };
        Self { dtype, data }
    }

    /// Each element as its dtype holds it: floats rounded to the nearest, ties to even; integers modulo their width, which is what
    /// two's complement does.
    pub fn settled(self, precision: Precision) -> Self {
        let dtype = self.dtype;
        let data = match self.data {
            Data::Float(array) if precision.keeps(dtype) => Data::Float(array),
            Data::Float(array) => {
                Data::Float(array.into_owned().mapv_into(|x| round(x, dtype, precision)).into_shared())
            }
            Data::Int(array) if array.iter().all(|&x| wrap(x, dtype) == x) => Data::Int(array),
            Data::Int(array) => Data::Int(array.mapv(|x| wrap(x, dtype)).into_shared()),
        };
        Self { dtype, data }
    }

    /// Nothing is rounded: f32 becomes f64 exactly.
    pub fn from_value(value: &Value) -> Result<Self, Fault> {
        fn ints<T: engine::Element + Into<i128>>(value: &Value) -> Result<Vec<i128>, ValueError> {
            Ok(value.as_slice::<T>()?.iter().map(|&x| x.into()).collect())
        }
        let dtype = value.dtype();
        let elements = match dtype {
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => {
                return Ok(Self::float(dtype, array(value.shape(), value.to_f64())?));
            }
            DType::I8 => ints::<i8>(value),
            DType::I16 => ints::<i16>(value),
            DType::I32 => ints::<i32>(value),
            DType::I64 => ints::<i64>(value),
            DType::U8 => ints::<u8>(value),
            DType::U16 => ints::<u16>(value),
            DType::U32 => ints::<u32>(value),
            DType::U64 => ints::<u64>(value),
            DType::Bool => ints::<bool>(value),
        }
        .map_err(Fault::Value)?;
        Ok(Self::int(dtype, array(value.shape(), elements)?))
    }

    /// The tensor of a graph.
    pub fn from_graph(tensor: &onnx_graph::Tensor) -> Result<Self, Fault> {
        Self::from_value(&tensor.to_value().map_err(Fault::Value)?)
    }

    /// In `f64`, every float type becomes f64: that is what was computed.
    pub fn to_value(&self, precision: Precision) -> Result<Value, ValueError> {
        let shape = self.shape().to_vec();
        macro_rules! floats {
            ($array:ident, $convert:expr) => {
                Value::new(shape, $array.iter().map($convert).collect::<Vec<_>>())
            };
        }
        macro_rules! ints {
            ($array:ident, $t:ty) => {
                Value::new(shape, $array.iter().map(|&x| x as $t).collect::<Vec<_>>())
            };
        }
        match &self.data {
            Data::Float(a) => match precision.output(self.dtype) {
                DType::F16 => floats!(a, |&x| f16::from_f64(x)),
                DType::BF16 => floats!(a, |&x| bf16::from_f64(x)),
                DType::F32 => floats!(a, |&x| x as f32),
                _ => floats!(a, |&x| x),
            },
            Data::Int(a) => match self.dtype {
                DType::I8 => ints!(a, i8),
                DType::I16 => ints!(a, i16),
                DType::I32 => ints!(a, i32),
                DType::U8 => ints!(a, u8),
                DType::U16 => ints!(a, u16),
                DType::U32 => ints!(a, u32),
                DType::U64 => ints!(a, u64),
                DType::Bool => Value::new(shape, a.iter().map(|&x| x != 0).collect::<Vec<_>>()),
                _ => ints!(a, i64),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_dtype_come_back() {
        let values = [
            Value::new([2], vec![f16::from_f32(0.1), f16::INFINITY]).unwrap(),
            Value::new([2], vec![bf16::from_f32(0.1), bf16::MIN_POSITIVE]).unwrap(),
            Value::new([2], vec![0.1f32, -0.0]).unwrap(),
            Value::new([2], vec![0.1f64, 5e-324]).unwrap(),
            Value::new([2], vec![i8::MIN, i8::MAX]).unwrap(),
            Value::new([2], vec![i16::MIN, i16::MAX]).unwrap(),
            Value::new([2], vec![i32::MIN, i32::MAX]).unwrap(),
            Value::new([2], vec![i64::MIN, i64::MAX]).unwrap(),
            Value::new([2], vec![0, u8::MAX]).unwrap(),
            Value::new([2], vec![0, u16::MAX]).unwrap(),
            Value::new([2], vec![0, u32::MAX]).unwrap(),
            Value::new([2], vec![0, u64::MAX]).unwrap(),
            Value::new([2], vec![true, false]).unwrap(),
        ];
        for value in values {
            let tensor = Tensor::from_value(&value).unwrap().settled(Precision::F32);
            assert_eq!(tensor.to_value(Precision::F32).unwrap(), value);
        }
    }
}
