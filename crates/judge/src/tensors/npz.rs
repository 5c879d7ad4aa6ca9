//! numpy's archives: a zip file with one `.npy` a tensor.

use std::io::{Cursor, Read as _, Write as _};
use std::path::Path;

use bytes::Bytes;
use engine::NamedValues;
use engine::memory::Budget;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{TensorsError, npy};

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
        let value = npy::array(entry.take(size)).map_err(|what| damaged(format!("'{name}' {what}")))?;
        values.insert(name, value);
    }
    Ok(values)
}

/// An archive of all values, none of them compressed: [`super::write`].
pub(super) fn bytes(path: &Path, values: &NamedValues) -> Result<Vec<u8>, TensorsError> {
    let failed = |error: ZipError| TensorsError::Write { path: path.into(), source: error.into() };
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    // Large, since the size of an array is not known to the archive before it is there.
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    for (name, value) in values.iter() {
        let array = npy::bytes(path, name, value)?;
        archive.start_file(npyz::npz::file_name_from_array_name(name), stored).map_err(failed)?;
        archive.write_all(&array).map_err(|error| failed(error.into()))?;
    }
    Ok(archive.finish().map_err(failed)?.into_inner())
}

#[cfg(test)]
mod tests {
    use engine::Value;

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
