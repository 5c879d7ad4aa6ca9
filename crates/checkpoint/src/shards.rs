//! Where a model's tensors lie: in one file, or in shards that an index lists.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use crate::tensors::Format;
use crate::{Checkpoint, CheckpointError, ModelFiles, from_json};

/// The files of a checkpoint, in the order they are looked for; the index of each one's shards comes right after it.
pub(crate) const WEIGHTS: [(&str, Format); 2] =
    [("model.safetensors", Format::Safetensors), ("pytorch_model.bin", Format::Torch)];

/// The name of the index of the shards that are there in place of a file.
pub(crate) fn index_of(weights: &str) -> String {
    format!("{weights}.index.json")
}

/// The tensors of all shards. Index and shards must fit exactly: whatever differs is left from another save, and nobody can know
/// which of the two is meant.
pub(crate) fn read(
    model: &ModelFiles,
    index: &str,
    bytes: &[u8],
    format: Format,
) -> Result<Checkpoint, CheckpointError> {
    let shown = model.shown(index);
    let json: Value =
        from_json(bytes).map_err(|source| CheckpointError::Index { index: shown.clone(), source })?;
    let no_map = || CheckpointError::NoWeightMap { index: shown.clone() };
    let map = json.get("weight_map").and_then(Value::as_object).filter(|map| !map.is_empty());
    let mut shards: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for (tensor, shard) in map.ok_or_else(no_map)? {
        shards.entry(shard.as_str().ok_or_else(no_map)?).or_default().insert(tensor);
    }

    let mut all = Vec::new();
    for (shard, tensors) in shards {
        let bytes = model.read(shard)?.ok_or_else(|| CheckpointError::MissingShard {
            index: shown.clone(),
            shard: shard.to_owned(),
            tensors: tensors.len(),
            has: model.listing(),
        })?;
        let checkpoint = format.read(shard, &model.shown(shard), &bytes)?;
        if let Some(stray) = checkpoint.names().find(|&name| !tensors.contains(name)) {
            return Err(CheckpointError::NotInIndex {
                index: shown,
                shard: shard.to_owned(),
                tensor: stray.to_owned(),
            });
        }
        if let Some(missing) = tensors.into_iter().filter(|&name| checkpoint.get(name).is_none()).min() {
            return Err(CheckpointError::NotInShard {
                index: shown,
                shard: shard.to_owned(),
                tensor: missing.to_owned(),
            });
        }
        all.extend(checkpoint.iter().cloned());
    }
    Ok(Checkpoint::of(all))
}

#[cfg(test)]
mod tests;
