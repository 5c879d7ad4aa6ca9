//! `pytorch_model.bin` and its like: what `torch.save` makes of a state dict, in both of its formats.
//!
//! Both hold a pickle, which is a program. Only the part of it that describes plain tensors is understood, and nothing is run;
//! all else is refused by name. A tensor that lies in one piece is a slice of the file. One that does not (a transpose, every
//! second row, a row repeated) is copied into row-major order, within a [`Budget`].

mod archive;
mod error;
mod globals;
mod legacy;
mod pickle;
mod state_dict;
mod view;

use std::sync::Arc;

use bytes::Bytes;

pub use error::TorchError;

use crate::{CheckpointError, TensorEntry};
use state_dict::StateDict;

/// How much memory the tensors of a file may take that do not lie in it in one piece: a transposed weight takes its own size, once
/// for each of its names; a hostile file could repeat one number a billion times.
const MOST_COPIED: u64 = 4;

/// That much is always allowed: small files may repeat a row or two.
const ALWAYS_COPIED: u64 = 1 << 20;

/// The tensors of a file, in the order of its dict. `file` is the name for entries, `shown` the one for errors.
pub(crate) fn read(file: &str, shown: &str, bytes: &Bytes) -> Result<Vec<TensorEntry>, CheckpointError> {
    let at_file = |source| CheckpointError::Torch { file: shown.to_owned(), source };
    entries(&Arc::from(file), bytes).map_err(at_file)
}

fn entries(file: &Arc<str>, bytes: &Bytes) -> Result<Vec<TensorEntry>, TorchError> {
    let mut budget = Budget::of(bytes.len());
    // A safetensors file may begin as a pickle does.
    let is_pickle = bytes.starts_with(b"\x80") && bytes.get(8) != Some(&b'{');
    if bytes.starts_with(b"PK\x03\x04") {
        let mut archive = archive::Archive::open(bytes)?;
        let pickle = archive.pickle(&mut budget)?;
        let pickle = pickle::load(&pickle)?;
        let dict = StateDict::new(&pickle)?;
        let storages = archive.storages(&dict, &mut budget)?;
        dict.entries(file, &storages, &mut budget)
    } else if is_pickle {
        let (pickle, keys) = legacy::object(bytes)?;
        let dict = StateDict::new(&pickle)?;
        let storages = legacy::storages(bytes, keys, &dict)?;
        dict.entries(file, &storages, &mut budget)
    } else {
        Err(TorchError::Unrecognised(other_format(bytes)))
    }
}

fn other_format(bytes: &[u8]) -> &'static str {
    if bytes.is_empty() {
        "it is empty"
    } else if bytes.get(8) == Some(&b'{') {
        "it is a safetensors file"
    } else if bytes.starts_with(b"<!") || bytes.starts_with(b"<html") {
        "it is a web page"
    } else {
        "it is neither a zip archive nor a pickle"
    }
}

/// How many bytes may still be copied.
struct Budget(u64);

impl Budget {
    fn of(file_bytes: usize) -> Self {
        Self((file_bytes as u64).saturating_mul(MOST_COPIED).saturating_add(ALWAYS_COPIED))
    }

    /// Before `bytes` are allocated for this tensor or record.
    fn spend(&mut self, tensor: &str, bytes: u64) -> Result<(), TorchError> {
        match self.0.checked_sub(bytes) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => Err(TorchError::Unfolded { tensor: tensor.to_owned(), bytes }),
        }
    }
}

#[cfg(test)]
mod tests;
