//! numpy's arrays, alone in a file
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use std::io::{Cursor, Read};
use std::path::Path;

use bytes::Bytes;
use engine::memory::Budget;
use engine::{DType, Value};
use npyz::{NpyFile, Order};

use super::{NUMPY, TensorsError};

/// The longest header of an array that numpy reads (`max_header_size` of `numpy.lib.format`).
const MAX_HEADER: usize = 10_000;

/// How deep its header is nested at most: a dict of a list of a tuple of a tuple is.
const MAX_NESTED: usize = 8;

/// The elements of an array that is written begin at a multiple of this (`ARRAY_ALIGN`).
const ALIGNMENT: usize = 64;

/// What numpy calls the dtypes, in the order of bytes that is read and written here.
const DTYPES: [(&str, DType); 12] = [
    ("<f2", DType::F16),
    ("<f4", DType::F32),
    ("<f8", DType::F64),
    ("|i1", DType::I8),
    ("<i2", DType::I16),
    ("<i4", DType::I32),
    ("<i8", DType::I64),
    ("|u1", DType::U8),
    ("<u2", DType::U16),
    ("<u4", DType::U32),
    ("<u8", DType::U64),
    ("|b1", DType::Bool),
];

/// Reads the array of a file.
pub(super) fn read(path: &Path, bytes: Bytes) -> Result<Value, TensorsError> {
    // Once more as a value.
    let size = bytes.len() as u64;
    Budget::of(path.display().to_string(), size).spend(size)?;
    array(Cursor::new(bytes))
        .map_err(|what| TensorsError::Npz { path: path.into(), what: format!("it {what}") })
}

/// An array as a file of version 1.0; `path` and `name` are for errors.
pub(super) fn bytes(path: &Path, name: &str, value: &Value) -> Result<Vec<u8>, TensorsError> {
    let dtype = DTYPES.into_iter().find(|(_, dtype)| *dtype == value.dtype());
    let Some((dtype, _)) = dtype else {
        return Err(TensorsError::NotNumpy { path: path.into(), name: name.into() });
    };
    let dims: Vec<String> = value.shape().iter().map(usize::to_string).collect();
    // A tuple of one has a comma, too.
    let comma = if dims.len() == 1 { "," } else { "" };
    let shape = dims.join(", ") + comma;
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}");
    let before = NUMPY.len() + 4;
    let length = (before + header.len() + 1).next_multiple_of(ALIGNMENT) - before;
    let mut bytes = NUMPY.to_vec();
    bytes.extend([1, 0]);
    // A value has so few dimensions that this is far below 2¹⁶.
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{header:<width$}\n", width = length - 1).bytes());
    bytes.extend(value.to_le_bytes());
    Ok(bytes)
}

/// One array; the error says what is wrong with it.
pub(super) fn array(mut reader: impl Read) -> Result<Value, String> {
    let header = header(&mut reader)?;
    let file = NpyFile::new(header.chain(reader)).map_err(|error| format!("is damaged: {error}"))?;
    let npyz::DType::Plain(kind) = file.dtype() else {
        return Err("has fields, and is not a plain array; save each field as an array of its own".into());
    };
    let kind = kind.to_string();
    let Some((_, dtype)) = DTYPES.into_iter().find(|(name, _)| *name == kind) else {
        return Err(format!(
            "is of dtype '{kind}', which is not one that graphs take here; save it \
             as another, as astype('<f4') makes it"
        ));
    };
    let dims: Result<Vec<usize>, _> = file.shape().iter().map(|&dim| usize::try_from(dim)).collect();
    let shape = dims.map_err(|_| "is too large for this machine".to_string())?;
    if file.order() == Order::Fortran && shape.iter().filter(|&&dim| dim != 1).count() > 1 {
        return Err("is stored column by column; save numpy.ascontiguousarray of it".into());
    }
    let mut data = Vec::new();
    // An archive may unpack to far more than its array needs; one byte more is enough to see that.
    let needed = shape.iter().try_fold(dtype.size() as u64, |size, &dim| size.checked_mul(dim as u64));
    let limit = needed.and_then(|needed| needed.checked_add(1)).ok_or("is too large for this machine")?;
    file.into_inner().take(limit).read_to_end(&mut data).map_err(|error| format!("is damaged: {error}"))?;
    Value::from_le_bytes(dtype, shape, &data).map_err(|error| format!("is damaged: {error}"))
}

/// The beginning of an array up to its elements
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>), if it is one that
/// can be read: npyz makes room for a header of any length, and follows brackets to any depth.
fn header(reader: &mut impl Read) -> Result<Cursor<Vec<u8>>, String> {
    let mut take = |bytes: &mut Vec<u8>, count: usize| {
        let found = reader.take(count as u64).read_to_end(bytes).map_err(|error| error.to_string());
        match found {
            Ok(found) if found == count => Ok(()),
            Ok(_) => Err("is damaged: its header is cut short".to_string()),
            Err(error) => Err(format!("is damaged: {error}")),
        }
    };
    let mut bytes = Vec::new();
    take(&mut bytes, 8)?;
    // The second version and later have a longer length.
    let width = if bytes[6] < 2 { 2 } else { 4 };
    take(&mut bytes, width)?;
    let length = bytes[8..].iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte));
    if length > MAX_HEADER {
        return Err(format!(
            "is damaged: its header has {length} bytes, and numpy's have at most {MAX_HEADER}"
        ));
    }
    let start = bytes.len();
    take(&mut bytes, length)?;
    let mut nested = 0usize;
    for byte in &bytes[start..] {
        match byte {
            b'(' | b'[' | b'{' => nested += 1,
            b')' | b']' | b'}' => nested = nested.saturating_sub(1),
            _ => {}
        }
        if nested > MAX_NESTED {
            return Err("is damaged: its header is nested too deeply".into());
        }
    }
    Ok(Cursor::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_written_as_numpy_writes_it() {
        // What numpy.save of numpy 2.4 writes for `numpy.array([[1, -2, 3]], "<i4")`.
        let header = "{'descr': '<i4', 'fortran_order': False, 'shape': (1, 3), }";
        let mut file = b"\x93NUMPY\x01\x00v\x00".to_vec();
        file.extend(format!("{header:<117}\n").bytes());
        file.extend([1i32, -2, 3].iter().flat_map(|x| x.to_le_bytes()));
        let value = Value::new([1, 3], vec![1i32, -2, 3]).unwrap();
        assert_eq!(bytes("x.npy".as_ref(), "x", &value).unwrap(), file);
    }

    #[test]
    fn arrays_round_trip() {
        let half = half::f16::from_f32(0.5);
        for value in [
            Value::scalar(1.5f64),
            Value::new([2], vec![true, false]).unwrap(),
            Value::new([0, 3], Vec::<f32>::new()).unwrap(),
            Value::new([2, 1, 1, 1], vec![half, half]).unwrap(),
        ] {
            let file = bytes("x.npy".as_ref(), "x", &value).unwrap();
            assert_eq!((file.len() - value.to_le_bytes().len()) % ALIGNMENT, 0);
            assert_eq!(read("x.npy".as_ref(), file.into()).unwrap(), value);
        }
        let brain = Value::scalar(half::bf16::from_f32(0.5));
        let error = bytes("x.npy".as_ref(), "x", &brain).unwrap_err().to_string();
        assert!(error.contains("'x', which is bf16") && error.contains("use .safetensors"), "{error}");
    }
}
