//! The format from before PyTorch 1.6 (July 2020): five pickles in a row — a magic number, the protocol, the machine, the
//! object, the keys of its storages — and then, in the order of the keys, the storages, each behind its number of elements.

use std::collections::HashMap;

use bytes::Bytes;

use super::TorchError;
use super::pickle::{self, Object, Pickle};
use super::state_dict::{Found, StateDict};

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The only one there ever was.
const PROTOCOL: i64 = 1001;

/// The number of elements before each storage, a little-endian i64.
const COUNT_BYTES: usize = 8;

/// The object of the file, and where the pickle of its keys begins.
pub(super) fn object(bytes: &[u8]) -> Result<(Pickle<'_>, usize), TorchError> {
    let magic = pickle::load(bytes)?;
    if magic.object != Object::Long(&MAGIC) {
        return Err(TorchError::Unrecognised("it is a pickle, but not one that torch.save wrote"));
    }
    let mut next = magic.length;
    let mut load = || -> Result<Pickle<'_>, TorchError> {
        let pickle = pickle::load(bytes.get(next..).unwrap_or_default())?;
        next += pickle.length;
        Ok(pickle)
    };
    if load()?.object != Object::Int(PROTOCOL) {
        return Err(TorchError::Unrecognised("it is of a protocol other than 1001"));
    }
    let machine = load()?;
    let items = match machine.object {
        Object::Dict(dict) => machine.arena.dict(dict),
        _ => &[],
    };
    match items.iter().find(|(key, _)| *key == Object::Str("little_endian")) {
        Some((_, Object::Bool(true))) => {}
        Some((_, Object::Bool(false))) => return Err(TorchError::BigEndian),
        _ => return Err(TorchError::Unrecognised("it does not tell its byte order")),
    }
    let object = load()?;
    Ok((object, next))
}

/// Every storage, by its key. `next` is where the pickle of the keys begins.
pub(super) fn storages<'p>(
    bytes: &'p Bytes,
    mut next: usize,
    dict: &StateDict<'p>,
) -> Result<HashMap<&'p str, Found>, TorchError> {
    let keys = pickle::load(bytes.get(next..).unwrap_or_default())?;
    next += keys.length;
    let Object::List(list) = keys.object else {
        return Err(TorchError::Unrecognised("it has no list of its storages"));
    };

    let mut storages = HashMap::new();
    for &key in keys.arena.list(list) {
        let Object::Str(key) = key else {
            return Err(TorchError::Unrecognised("a storage's key is not a text"));
        };
        let Some(wanted) = dict.storages.get(key) else {
            return Err(TorchError::UnusedStorage { storage: key.to_owned() });
        };
        let begin = next.saturating_add(COUNT_BYTES);
        let truncated = || TorchError::Truncated {
            tensor: wanted.tensor.to_owned(),
            promised: (begin as u64).saturating_add(wanted.bytes()),
            found: bytes.len() as u64,
        };
        let count = bytes.get(next..begin).and_then(|count| count.try_into().ok()).ok_or_else(truncated)?;
        let count = u64::from_le_bytes(count);
        if count != wanted.elements {
            return Err(TorchError::StorageSize {
                tensor: wanted.tensor.to_owned(),
                storage: key.to_owned(),
                promised: wanted.bytes(),
                found: count.saturating_mul(wanted.size),
            });
        }
        let end = usize::try_from(wanted.bytes()).ok().and_then(|size| begin.checked_add(size));
        let end = end.filter(|&end| end <= bytes.len()).ok_or_else(truncated)?;
        let found = Found { bytes: bytes.slice(begin..end), offset: Some(begin as u64) };
        if storages.insert(key, found).is_some() {
            return Err(TorchError::Unrecognised("it lists a storage twice"));
        }
        next = end;
    }
    if let Some((&key, wanted)) = dict.storages.iter().find(|&(key, _)| !storages.contains_key(key)) {
        let (tensor, storage) = (wanted.tensor.to_owned(), key.to_owned());
        return Err(TorchError::NoStorage { tensor, storage });
    }
    match bytes.len() - next {
        0 => Ok(storages),
        rest => Err(TorchError::TrailingBytes { bytes: rest as u64 }),
    }
}
