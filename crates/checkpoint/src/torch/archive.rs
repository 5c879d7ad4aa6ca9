//! The format of PyTorch 1.6 and later: a zip archive of a pickle and one record for each storage, as a rule stored as they
//! are, aligned to 64 bytes. Checksums are not compared: PyTorch can be told not to write them.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use bytes::Bytes;
use zip::{CompressionMethod, ZipArchive};

use super::state_dict::{Found, StateDict};
use super::{Budget, TorchError, unfold};

/// The pickle, the byte order, and where the storages lie; PyTorch writes them all into one folder.
const PICKLE: &str = "data.pkl";
const BYTE_ORDER: &str = "byteorder";
const STORAGES: &str = "data/";

/// What only a TorchScript program has.
const SCRIPT: &str = "constants.pkl";

/// Deflate cannot do better than 1032 to 1: a record that says it does is wrong.
const MOST_DEFLATED: u64 = 1032;

pub(super) struct Archive<'a> {
    bytes: &'a Bytes,
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// The records of the folder, by their names in it, and their places in the archive.
    records: HashMap<String, usize>,
}

impl<'a> Archive<'a> {
    pub fn open(bytes: &'a Bytes, budget: &mut Budget) -> Result<Self, TorchError> {
        budget.spend_zip_index(bytes)?;
        let mut zip = ZipArchive::new(Cursor::new(&bytes[..]))?;
        let wrong = |record: &str, reason| TorchError::Record { record: record.to_owned(), reason };
        if zip.has_duplicate_names() {
            return Err(wrong("a record", "is there twice"));
        }
        let mut names = Vec::new();
        for index in 0..zip.len() {
            names.push(zip.by_index_raw(index)?.name()?.into_owned());
        }
        // The folder's name and a slash; it lies in no other.
        let folders = names.iter().filter_map(|name| name.strip_suffix(PICKLE));
        let mut folders = folders.filter(|folder| folder.find('/') == Some(folder.len().wrapping_sub(1)));
        let folder = match (folders.next(), folders.next()) {
            (Some(folder), None) => folder,
            (None, _) => return Err(TorchError::Unrecognised("it is a zip archive without a data.pkl")),
            _ => return Err(wrong(PICKLE, "is there twice")),
        };
        let records = names.iter().enumerate();
        let records: HashMap<String, usize> = records
            .filter_map(|(index, name)| Some((name.strip_prefix(folder)?.to_owned(), index)))
            .collect();
        if records.contains_key(SCRIPT) {
            return Err(TorchError::TorchScript);
        }
        Ok(Self { bytes, zip, records })
    }

    /// The pickle, once the byte order is known to be ours. Before PyTorch 2.1 the archive did not tell it.
    pub fn pickle(&mut self, budget: &mut Budget) -> Result<Bytes, TorchError> {
        let missing = || TorchError::Unrecognised("it is a zip archive without a data.pkl");
        if let Some(order) = self.read(BYTE_ORDER, budget)? {
            match &order.bytes[..] {
                b"little" => {}
                b"big" => return Err(TorchError::BigEndian),
                _ => {
                    let reason = "is neither 'little' nor 'big'";
                    return Err(TorchError::Record { record: BYTE_ORDER.to_owned(), reason });
                }
            }
        }
        Ok(self.read(PICKLE, budget)?.ok_or_else(missing)?.bytes)
    }

    /// Every storage that the tensors need, by its key.
    pub fn storages<'p>(
        &mut self,
        dict: &StateDict<'p>,
        budget: &mut Budget,
    ) -> Result<HashMap<&'p str, Found>, TorchError> {
        let keys = self.records.keys().filter_map(|name| name.strip_prefix(STORAGES));
        // An empty one is the folder itself. The least is named, so that the message does not vary.
        if let Some(key) = keys.filter(|&key| !key.is_empty() && !dict.storages.contains_key(key)).min() {
            return Err(TorchError::UnusedStorage { storage: key.to_owned() });
        }
        let mut storages = HashMap::new();
        for (&key, wanted) in &dict.storages {
            let (tensor, storage) = (wanted.tensor.to_owned(), key.to_owned());
            let Some(found) = self.read(&format!("{STORAGES}{key}"), budget)? else {
                return Err(TorchError::NoStorage { tensor, storage });
            };
            let (promised, length) = (wanted.bytes(), found.bytes.len() as u64);
            if promised != length {
                return Err(TorchError::StorageSize { tensor, storage, promised, found: length });
            }
            storages.insert(key, found);
        }
        Ok(storages)
    }

    /// A record: a slice of the file where it is stored as it is, else unpacked.
    fn read(&mut self, name: &str, budget: &mut Budget) -> Result<Option<Found>, TorchError> {
        let Some(&index) = self.records.get(name) else { return Ok(None) };
        let wrong = |reason| TorchError::Record { record: name.to_owned(), reason };
        let record = self.zip.by_index_raw(index)?;
        if record.encrypted() {
            return Err(wrong("is encrypted"));
        }
        let (size, packed) = (record.size(), record.compressed_size());
        match record.compression() {
            CompressionMethod::Stored => {
                let start = record.data_start().and_then(|start| usize::try_from(start).ok());
                let end = start.zip(usize::try_from(size).ok());
                let end = end.and_then(|(start, size)| start.checked_add(size));
                let range = start.zip(end).filter(|&(_, end)| size == packed && end <= self.bytes.len());
                let (start, end) = range.ok_or_else(|| wrong("reaches beyond the file"))?;
                Ok(Some(Found { bytes: self.bytes.slice(start..end), offset: Some(start as u64) }))
            }
            CompressionMethod::Deflated => {
                if size > packed.saturating_mul(MOST_DEFLATED) {
                    return Err(wrong("claims to be larger than it can be"));
                }
                unfold(name, size, budget)?;
                drop(record);
                let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
                let mut limited = self.zip.by_index(index)?.take(size);
                limited.read_to_end(&mut bytes).map_err(zip::result::ZipError::Io)?;
                if bytes.len() as u64 != size {
                    return Err(wrong("is shorter than it claims to be"));
                }
                Ok(Some(Found { bytes: bytes.into(), offset: None }))
            }
            _ => Err(wrong("is compressed in a way that is not read")),
        }
    }
}
