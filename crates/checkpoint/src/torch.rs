//! `pytorch_model.bin` and its like: what `torch.save` makes of a state dict, in both of its formats.
//!
//! Both hold a pickle, which is a program. Only the part of it that describes plain tensors is understood, and nothing is run;
//! all else is refused by name. A tensor that lies in one piece is a slice of the file. One that does not (a transpose, every
//! second row, a row repeated) is copied into row-major order, within a [`Budget`] of memory.

mod archive;
mod error;
mod globals;
mod legacy;
mod pickle;
mod state_dict;
mod view;

use std::sync::Arc;

use bytes::Bytes;
use engine::memory::Budget;

pub use error::TorchError;

use crate::{CheckpointError, TensorEntry};
use state_dict::StateDict;

/// What a tensor takes beside its elements: its name twice, its shape, its strides, and its places
/// in three maps.
const TENSOR: u64 = 1024;

/// The tensors of a file, in the order of its dict. `file` is the name for entries, `shown` the one for errors.
pub(crate) fn read(file: &str, shown: &str, bytes: &Bytes) -> Result<Vec<TensorEntry>, CheckpointError> {
    entries(&Arc::from(file), shown, bytes).map_err(|source| match source {
        // It names the file itself.
        TorchError::Memory(error) => error.into(),
        source => CheckpointError::Torch { file: shown.to_owned(), source },
    })
}

fn entries(file: &Arc<str>, shown: &str, bytes: &Bytes) -> Result<Vec<TensorEntry>, TorchError> {
    let mut budget = Budget::of(shown, bytes.len() as u64);
    // A safetensors file may begin as a pickle does.
    let is_pickle = bytes.starts_with(b"\x80") && bytes.get(8) != Some(&b'{');
    if bytes.starts_with(b"PK\x03\x04") {
        let mut archive = archive::Archive::open(bytes, &mut budget)?;
        let pickle = archive.pickle(&mut budget)?;
        let pickle = pickle::load(&pickle)?;
        let dict = StateDict::new(&pickle, &mut budget)?;
        let storages = archive.storages(&dict, &mut budget)?;
        dict.entries(file, &storages, &mut budget)
    } else if is_pickle {
        let (pickle, keys) = legacy::object(bytes)?;
        let dict = StateDict::new(&pickle, &mut budget)?;
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

/// Before `bytes` are allocated for this tensor or record.
fn unfold(tensor: &str, bytes: u64, budget: &mut Budget) -> Result<(), TorchError> {
    budget.spend(bytes).map_err(|source| TorchError::Unfolded { tensor: tensor.to_owned(), bytes, source })
}

#[cfg(test)]
mod tests;
