//! numpy's archives: a zip file with one `.npy` a tensor.

use std::io::{Cursor, Read};
use std::path::Path;

use engine::{DType, NamedValues, Value, map_file};
use npyz::{NpyFile, Order};
use zip::ZipArchive;

use super::TensorsError;

/// Reads all tensors of an `.npz` file, in file order.
pub(super) fn read(path: &Path) -> Result<NamedValues, TensorsError> {
    let bytes = map_file(path).map_err(|error| TensorsError::Map(error.to_string()))?;
    let damaged = |what: String| TensorsError::Npz { path: path.into(), what };
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(error.to_string()))?;
    let mut values = NamedValues::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|error| damaged(error.to_string()))?;
        let file = entry.name().map_err(|error| damaged(error.to_string()))?.into_owned();
        let Some(name) = npyz::npz::array_name_from_file_name(&file) else {
            return Err(damaged(format!("'{file}' is not a .npy file")));
        };
        let value = array(entry).map_err(|what| damaged(format!("'{name}' {what}")))?;
        values.insert(name, value);
    }
    Ok(values)
}

/// One array; the error says what is wrong with it.
fn array(reader: impl Read) -> Result<Value, String> {
    let file = NpyFile::new(reader).map_err(|error| format!("is damaged: {error}"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
