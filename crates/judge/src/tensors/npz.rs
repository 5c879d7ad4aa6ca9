//! numpy's archives: a zip file with one `.npy` a tensor.

use std::io::{Cursor, Read};
use std::path::Path;

use bytes::Bytes;
use engine::memory::Budget;
use engine::{DType, NamedValues, Value};
use npyz::{NpyFile, Order};
use zip::ZipArchive;

use super::TensorsError;

/// The longest header of an array that numpy reads (`max_header_size` of `numpy.lib.format`).
const MAX_HEADER: usize = 10_000;

/// How deep its header is nested at most: a dict of a list of a tuple of a tuple is.
const MAX_NESTED: usize = 8;

/// Reads all tensors of an `.npz` file, in file order. What they say they unpack to is added up
/// before any of them is unpacked.
pub(super) fn read(path: &Path, bytes: Bytes) -> Result<NamedValues, TensorsError> {
    let damaged = |what: String| TensorsError::Npz { path: path.into(), what };
    let mut budget = Budget::of(path.display().to_string(), bytes.len() as u64);
    budget.spend_zip_index(&bytes)?;
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(error.to_string()))?;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| damaged(error.to_string()))?;
        // Once as it is unpacked, and once as a value.
        budget.spend(entry.size().saturating_mul(2))?;
    }
    let mut values = NamedValues::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|error| damaged(error.to_string()))?;
        let file = entry.name().map_err(|error| damaged(error.to_string()))?.into_owned();
        let Some(name) = npyz::npz::array_name_from_file_name(&file) else {
            return Err(damaged(format!("'{file}' is not a .npy file")));
        };
        // An entry that is larger than it says is not read to its end.
        let size = entry.size();
        let value = array(entry.take(size)).map_err(|what| damaged(format!("'{name}' {what}")))?;
        values.insert(name, value);
    }
    Ok(values)
}

/// One array; the error says what is wrong with it.
fn array(mut reader: impl Read) -> Result<Value, String> {
    let header = header(&mut reader)?;
    let file = NpyFile::new(header.chain(reader)).map_err(|error| format!("is damaged: {error}"))?;
    let npyz::DType::Plain(kind) = file.dtype() else {
        return Err("has fields, and is not a plain array".into());
    };
    let dtype = match kind.to_string().as_str() {
        "<f2" => DType::F16,
        "<f4" => DType::F32,
        "<f8" => DType::F64,
        "|i1" => DType::I8,
        "<i2" => DType::I16,
        "<i4" => DType::I32,
        "<i8" => DType::I64,
        "|u1" => DType::U8,
        "<u2" => DType::U16,
        "<u4" => DType::U32,
        "<u8" => DType::U64,
        "|b1" => DType::Bool,
        other => return Err(format!("is of dtype '{other}', which is not one that graphs take here")),
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

    fn read(path: &Path) -> Result<NamedValues, TensorsError> {
        super::read(path, engine::read_file(path).unwrap())
    }

    #[test]
    fn numpy_archives_are_read() {
        // make.py beside the file made it: every dtype, a scalar, an empty array, and one that is compressed.
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tensors/testdata");
        for file in ["plain.npz", "compressed.npz"] {
            let values = read(&folder.join(file)).unwrap();
            assert_eq!(values.get("ids"), Some(&Value::new([2, 2], vec![1i64, -2, 3, 4]).unwrap()), "{file}");
            assert_eq!(values.get("mask"), Some(&Value::new([3], vec![true, false, true]).unwrap()));
            assert_eq!(values.get("scalar"), Some(&Value::scalar(1.5f32)));
            assert_eq!(values.get("empty"), Some(&Value::new([0, 3], Vec::<f64>::new()).unwrap()));
            let half = half::f16::from_f32(0.5);
            assert_eq!(values.get("half"), Some(&Value::new([1], vec![half]).unwrap()));
        }
        let error = read(&folder.join("fortran.npz")).unwrap_err().to_string();
        assert!(error.contains("'x' is stored column by column"), "{error}");
        let error = read(&folder.join("strings.npz")).unwrap_err().to_string();
        assert!(error.contains("'x' is of dtype '<U1'"), "{error}");
        assert!(read(&folder.join("make.py")).unwrap_err().to_string().contains("make.py"));
    }
}
