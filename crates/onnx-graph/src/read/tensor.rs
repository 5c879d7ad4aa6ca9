use std::fmt;

use bytes::Bytes;
use engine::DType;

use crate::external::ExternalFiles;
use crate::proto::{DataLocation, DataType, TensorProto};
use crate::tensor::byte_size;
use crate::write::data_type;
use crate::{GraphError, Tensor, TensorFault};

/// The dtype of that number in the file, or the name of what [`DType`] does not have.
pub(super) fn dtype(number: i32) -> Result<DType, String> {
    let found = DataType::try_from(number).map_err(|_| format!("number {number}"))?;
    let dtype = DType::ALL.into_iter().find(|&dtype| data_type(dtype) == found);
    dtype.ok_or_else(|| format!("{found:?}").to_lowercase())
}

/// The dtype of that number, as an attribute such as Cast's `to` has it (TensorProto.DataType); `None` for what [`DType`] does not have.
pub fn dtype_of(number: i64) -> Option<DType> {
    dtype(i32::try_from(number).ok()?).ok()
}

/// Reads a tensor; `label` is what messages call it. Bytes from `raw_data` and from external files are shared.
pub(super) fn read(
    label: &str,
    proto: TensorProto,
    external: &mut ExternalFiles,
) -> Result<Tensor, GraphError> {
    let fault = |fault| GraphError::Tensor { tensor: label.into(), fault };
    let dtype = dtype(proto.data_type).map_err(|dtype| fault(TensorFault::DType { dtype }))?;
    if proto.segment.is_some() {
        return Err(fault(TensorFault::Segment));
    }
    let shape: Vec<usize> = proto
        .dims
        .iter()
        .map(|&dim| usize::try_from(dim))
        .collect::<Result<_, _>>()
        .map_err(|_| fault(bad_dims(dtype, &proto.dims)))?;
    let size = byte_size(dtype, &shape).map_err(fault)?;
    let field = only_field(&proto).map_err(fault)?;
    let bytes = match DataLocation::try_from(proto.data_location) {
        Ok(DataLocation::Default) => inline(proto, dtype, field).map_err(fault)?,
        Ok(DataLocation::External) => match field {
            None => external.data(label, &proto.external_data, size)?,
            Some(second) => return Err(fault(TensorFault::TwoPlaces { first: "external_data", second })),
        },
        Err(_) => return Err(fault(TensorFault::DataLocation(proto.data_location))),
    };
    let tensor = Tensor { dtype, shape, bytes };
    tensor.check_size(field.unwrap_or("raw_data")).map_err(fault)?;
    Ok(tensor)
}

fn bad_dims(dtype: DType, dims: &[i64]) -> TensorFault {
    if dims.iter().any(|&dim| dim < 0) {
        TensorFault::NegativeDim { dims: dims.to_vec() }
    } else {
        TensorFault::Overflow { dtype, dims: dims.to_vec() }
    }
}

const RAW: &str = "raw_data";
const FLOAT: &str = "float_data";
const INT32: &str = "int32_data";
const STRING: &str = "string_data";
const INT64: &str = "int64_data";
const DOUBLE: &str = "double_data";
const UINT64: &str = "uint64_data";

/// The field of the message that holds data, if one does.
fn only_field(proto: &TensorProto) -> Result<Option<&'static str>, TensorFault> {
    let fields = [
        (RAW, proto.raw_data.is_empty()),
        (FLOAT, proto.float_data.is_empty()),
        (INT32, proto.int32_data.is_empty()),
        (STRING, proto.string_data.is_empty()),
        (INT64, proto.int64_data.is_empty()),
        (DOUBLE, proto.double_data.is_empty()),
        (UINT64, proto.uint64_data.is_empty()),
    ];
    let mut present = fields.into_iter().filter_map(|(field, is_empty)| (!is_empty).then_some(field));
    match (present.next(), present.next()) {
        (Some(first), Some(second)) => Err(TensorFault::TwoPlaces { first, second }),
        (field, _) => Ok(field),
    }
}

/// The data in that field of the message, as little-endian bytes.
///
/// Which dtype may stand in which field: the comments on `TensorProto` in onnx-ml.proto. Half-precision floats stand in `int32_data`
/// as their bits.
fn inline(proto: TensorProto, dtype: DType, field: Option<&'static str>) -> Result<Bytes, TensorFault> {
    let Some(field) = field else { return Ok(Bytes::new()) };
    Ok(match (field, dtype) {
        (RAW, _) => proto.raw_data,
        (FLOAT, DType::F32) => little_endian(&proto.float_data, f32::to_le_bytes),
        (DOUBLE, DType::F64) => little_endian(&proto.double_data, f64::to_le_bytes),
        (INT64, DType::I64) => little_endian(&proto.int64_data, i64::to_le_bytes),
        (UINT64, DType::U64) => little_endian(&proto.uint64_data, u64::to_le_bytes),
        (UINT64, DType::U32) => narrow(&proto.uint64_data, dtype, u32::to_le_bytes)?,
        (INT32, DType::I32) => little_endian(&proto.int32_data, i32::to_le_bytes),
        (INT32, DType::I16) => narrow(&proto.int32_data, dtype, i16::to_le_bytes)?,
        (INT32, DType::I8) => narrow(&proto.int32_data, dtype, i8::to_le_bytes)?,
        (INT32, DType::U16 | DType::F16 | DType::BF16) => narrow(&proto.int32_data, dtype, u16::to_le_bytes)?,
        (INT32, DType::U8) => narrow(&proto.int32_data, dtype, u8::to_le_bytes)?,
        (INT32, DType::Bool) => narrow(&proto.int32_data, dtype, |Bit(bit)| [bit])?,
        (field, dtype) => return Err(TensorFault::WrongField { dtype, field }),
    })
}

fn little_endian<T: Copy, const N: usize>(elements: &[T], to_bytes: fn(T) -> [u8; N]) -> Bytes {
    elements.iter().flat_map(|&element| to_bytes(element)).collect()
}

fn narrow<S, T, const N: usize>(
    elements: &[S],
    dtype: DType,
    to_bytes: fn(T) -> [u8; N],
) -> Result<Bytes, TensorFault>
where
    S: Copy + fmt::Display,
    T: TryFrom<S>,
{
    let mut bytes = Vec::with_capacity(elements.len().saturating_mul(N));
    for (index, &element) in elements.iter().enumerate() {
        let narrowed = T::try_from(element).map_err(|_| TensorFault::OutOfRange {
            index,
            value: element.to_string(),
            dtype,
        })?;
        bytes.extend(to_bytes(narrowed));
    }
    Ok(bytes.into())
}

/// A bool as a byte.
struct Bit(u8);

impl TryFrom<i32> for Bit {
    type Error = ();

    fn try_from(value: i32) -> Result<Self, ()> {
        match value {
            0 => Ok(Self(0)),
            1 => Ok(Self(1)),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::Value;

    use super::*;

    fn read(proto: TensorProto) -> Result<Tensor, GraphError> {
        super::read("initializer 'w'", proto, &mut ExternalFiles::none())
    }

    fn proto(data_type: DataType, dims: &[i64]) -> TensorProto {
        TensorProto { data_type: data_type.into(), dims: dims.to_vec(), ..Default::default() }
    }

    fn value(proto: TensorProto) -> Value {
        read(proto).unwrap().to_value().unwrap()
    }

    fn fault(proto: TensorProto) -> TensorFault {
        match read(proto).unwrap_err() {
            GraphError::Tensor { fault, .. } => fault,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn typed_fields_become_bytes() {
        use engine::Element;
        use half::{bf16, f16};

        fn expect<T: Element>(proto: TensorProto, elements: Vec<T>) {
            assert_eq!(value(proto), Value::new([elements.len()], elements).unwrap());
        }
        let int32 = |data_type, data: &[i32]| TensorProto {
            int32_data: data.to_vec(),
            ..proto(data_type, &[data.len() as i64])
        };
        expect(TensorProto { float_data: vec![1.5, -2.], ..proto(DataType::Float, &[2]) }, vec![1.5f32, -2.]);
        expect(TensorProto { double_data: vec![0.1], ..proto(DataType::Double, &[1]) }, vec![0.1f64]);
        expect(TensorProto { int64_data: vec![i64::MIN], ..proto(DataType::Int64, &[1]) }, vec![i64::MIN]);
        expect(TensorProto { uint64_data: vec![u64::MAX], ..proto(DataType::Uint64, &[1]) }, vec![u64::MAX]);
        expect(TensorProto { uint64_data: vec![1 << 31], ..proto(DataType::Uint32, &[1]) }, vec![1u32 << 31]);
        expect(int32(DataType::Int32, &[-7]), vec![-7i32]);
        expect(int32(DataType::Int16, &[-7]), vec![-7i16]);
        expect(int32(DataType::Int8, &[-128]), vec![-128i8]);
        expect(int32(DataType::Uint16, &[65535]), vec![65535u16]);
        expect(int32(DataType::Uint8, &[255]), vec![255u8]);
        expect(int32(DataType::Bool, &[0, 1]), vec![false, true]);
        expect(int32(DataType::Float16, &[0x3c00]), vec![f16::ONE]);
        expect(int32(DataType::Bfloat16, &[0xbf80]), vec![bf16::NEG_ONE]);
    }

    #[test]
    fn raw_data_is_shared() {
        let raw_data = Bytes::from(vec![0; 8]);
        let tensor =
            read(TensorProto { raw_data: raw_data.clone(), ..proto(DataType::Float, &[2]) }).unwrap();
        assert_eq!(tensor.bytes.as_ptr(), raw_data.as_ptr());
    }

    #[test]
    fn empty_tensors_and_scalars_are_tensors() {
        assert!(value(proto(DataType::Float, &[0, i64::MAX, 9])).is_empty());
        let scalar = TensorProto { int64_data: vec![3], ..proto(DataType::Int64, &[]) };
        assert_eq!(value(scalar), Value::scalar(3i64));
    }

    #[test]
    fn unsupported_elements_are_named() {
        for (data_type, name) in [
            (DataType::String, "string"),
            (DataType::Float8e4m3fn, "float8e4m3fn"),
            (DataType::Int4, "int4"),
            (DataType::Complex64, "complex64"),
            (DataType::Undefined, "undefined"),
        ] {
            let error = read(proto(data_type, &[0])).unwrap_err().to_string();
            assert_eq!(error, format!("initializer 'w': elements of type {name} are not supported"));
        }
        let error = read(TensorProto { data_type: 99, ..Default::default() }).unwrap_err().to_string();
        assert_eq!(error, "initializer 'w': elements of type number 99 are not supported");
    }

    #[test]
    fn sizes_are_checked() {
        let floats =
            |dims: &[i64], n| TensorProto { float_data: vec![0.; n], ..proto(DataType::Float, dims) };
        assert!(matches!(
            fault(floats(&[2, 2], 3)),
            TensorFault::Size { expected: 16, field: FLOAT, found: 12, .. }
        ));
        assert!(matches!(
            fault(TensorProto { raw_data: vec![0; 17].into(), ..proto(DataType::Float, &[2, 2]) }),
            TensorFault::Size { expected: 16, field: RAW, found: 17, .. }
        ));
        assert!(matches!(fault(floats(&[1], 0)), TensorFault::Size { found: 0, .. }));
        assert!(matches!(fault(floats(&[0], 1)), TensorFault::Size { expected: 0, .. }));
        assert!(matches!(fault(floats(&[-1], 1)), TensorFault::NegativeDim { .. }));
        assert!(matches!(fault(floats(&[i64::MAX, 2], 0)), TensorFault::Overflow { .. }));
        assert!(matches!(fault(floats(&[1 << 62], 0)), TensorFault::Overflow { .. }));
    }

    #[test]
    fn data_stands_in_one_place_and_the_right_one() {
        let both =
            TensorProto { raw_data: vec![0; 4].into(), float_data: vec![0.], ..proto(DataType::Float, &[1]) };
        assert_eq!(fault(both), TensorFault::TwoPlaces { first: RAW, second: FLOAT });
        let external = TensorProto {
            raw_data: vec![0; 4].into(),
            data_location: DataLocation::External.into(),
            ..proto(DataType::Float, &[1])
        };
        assert_eq!(fault(external), TensorFault::TwoPlaces { first: "external_data", second: RAW });
        let wrong = TensorProto { int64_data: vec![0], ..proto(DataType::Float, &[1]) };
        assert_eq!(fault(wrong), TensorFault::WrongField { dtype: DType::F32, field: INT64 });
        let unknown = TensorProto { data_location: 7, ..proto(DataType::Float, &[0]) };
        assert_eq!(fault(unknown), TensorFault::DataLocation(7));
        let segment = TensorProto { segment: Some(Default::default()), ..proto(DataType::Float, &[0]) };
        assert_eq!(fault(segment), TensorFault::Segment);
    }

    #[test]
    fn elements_are_not_cut_to_fit() {
        for (data_type, element) in [
            (DataType::Int8, 128),
            (DataType::Uint8, -1),
            (DataType::Bool, 2),
            (DataType::Float16, 0x10000),
            (DataType::Int16, -40000),
        ] {
            let fault = fault(TensorProto { int32_data: vec![0, element], ..proto(data_type, &[2]) });
            assert!(matches!(fault, TensorFault::OutOfRange { index: 1, .. }), "{fault}");
        }
        let fault = fault(TensorProto { uint64_data: vec![u64::MAX], ..proto(DataType::Uint32, &[1]) });
        assert_eq!(fault.to_string(), "element 0 is 18446744073709551615, which is not u32");
    }
}
