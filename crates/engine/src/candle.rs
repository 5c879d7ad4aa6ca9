//! Conversions at the border to candle. They copy, and never change a dtype except where candle has none.

use candle_core::{DType as CandleDType, Device, Tensor};
use half::{bf16, f16};

use crate::{DType, Element, Value, ValueError};

impl Value {
    /// This value as a candle tensor. candle has no bool: those become `u8`, 0 or 1.
    ///
    /// # Errors
    /// For i8, u16 and u64, which candle does not have either, and if the device fails.
    pub fn to_tensor(&self, device: &Device) -> candle_core::Result<Tensor> {
        fn tensor<T: Element + candle_core::WithDType>(
            value: &Value,
            device: &Device,
        ) -> candle_core::Result<Tensor> {
            let data = value.as_slice::<T>().map_err(candle_core::Error::wrap)?;
            Tensor::from_slice(data, value.shape(), device)
        }
        match self.dtype() {
            DType::F16 => tensor::<f16>(self, device),
            DType::BF16 => tensor::<bf16>(self, device),
            DType::F32 => tensor::<f32>(self, device),
            DType::F64 => tensor::<f64>(self, device),
            DType::I16 => tensor::<i16>(self, device),
            DType::I32 => tensor::<i32>(self, device),
            DType::I64 => tensor::<i64>(self, device),
            DType::U8 => tensor::<u8>(self, device),
            DType::U32 => tensor::<u32>(self, device),
            DType::Bool => Tensor::from_vec(self.to_le_bytes(), self.shape(), device),
            dtype @ (DType::I8 | DType::U16 | DType::U64) => {
                candle_core::bail!("candle has no dtype {dtype}")
            }
        }
    }

    /// The value of a candle tensor, copied from its device.
    ///
    /// # Errors
    /// For candle's 8-, 6- and 4-bit floats, and if the device fails.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self, ValueError> {
        fn value<T: Element + candle_core::WithDType>(tensor: &Tensor) -> Result<Value, ValueError> {
            let data = tensor
                .flatten_all()
                .and_then(|tensor| tensor.to_vec1::<T>())
                .map_err(|error| ValueError::Candle(error.to_string()))?;
            Value::new(tensor.dims(), data)
        }
        match tensor.dtype() {
            CandleDType::F16 => value::<f16>(tensor),
            CandleDType::BF16 => value::<bf16>(tensor),
            CandleDType::F32 => value::<f32>(tensor),
            CandleDType::F64 => value::<f64>(tensor),
            CandleDType::I16 => value::<i16>(tensor),
            CandleDType::I32 => value::<i32>(tensor),
            CandleDType::I64 => value::<i64>(tensor),
            CandleDType::U8 => value::<u8>(tensor),
            CandleDType::U32 => value::<u32>(tensor),
            other => Err(ValueError::Candle(format!("candle dtype {other:?} is not one of ONNX's numbers"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_round_trip() {
        let value = Value::new([2, 2], vec![1f64, 2., 3., 4.]).unwrap();
        let tensor = value.to_tensor(&Device::Cpu).unwrap();
        // A transposed tensor is read in its own order, not in that of its memory.
        let back = Value::from_tensor(&tensor.t().unwrap()).unwrap();
        assert_eq!(back, Value::new([2, 2], vec![1f64, 3., 2., 4.]).unwrap());
        let scalar = Value::scalar(7i64);
        assert_eq!(Value::from_tensor(&scalar.to_tensor(&Device::Cpu).unwrap()).unwrap(), scalar);
    }

    #[test]
    fn what_candle_lacks_is_refused_by_name() {
        let error = Value::scalar(1u16).to_tensor(&Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("candle has no dtype u16"), "{error}");
    }
}
