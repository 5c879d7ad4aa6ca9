//! The checkpoint's side: its tensors, and where each has its place in the model.

use candle_bert::{BertConfig, BertError, used_tensors};
use checkpoint::{Checkpoint, TensorEntry};

use super::data::{floats_of, is_rounded};

/// The table of positions.
pub(super) const POSITIONS: &str = "embeddings.position_embeddings.weight";

/// The table of token types.
pub(super) const TOKEN_TYPES: &str = "embeddings.token_type_embeddings.weight";

/// A tensor of the checkpoint.
pub(super) struct Weight {
    /// Its name, without the prefix `bert.`, and `weight` and `bias` even where the file says `gamma` and `beta`.
    pub name: String,
    pub shape: Vec<usize>,
    /// A vector is one row.
    pub rows: usize,
    pub columns: usize,
    pub elements: Vec<f32>,
    /// Whether the base model uses it; the others are those of heads.
    pub used: bool,
    /// When its module is executed, counted in modules; `None` for tensors that the base model does not use.
    pub stage: Option<usize>,
    /// Whether the file's f64 had to be rounded.
    pub rounded: bool,
}

impl Weight {
    /// The path of its module.
    pub fn module(&self) -> &str {
        module(&self.name)
    }

    /// Whether this is a table of which a graph may hold some rows only: one that was traced at a fixed length, or without token types.
    pub fn is_table(&self) -> bool {
        self.name == POSITIONS || self.name == TOKEN_TYPES
    }

    fn new(name: String, entry: &TensorEntry, stage: Option<usize>) -> Option<Self> {
        let elements = floats_of(entry.dtype, &entry.bytes)?;
        let (rows, columns) = match entry.shape.as_slice() {
            [] => (1, 1),
            [columns] => (1, *columns),
            [rows, columns @ ..] => (*rows, columns.iter().product()),
        };
        Some(Self {
            name,
            shape: entry.shape.clone(),
            rows,
            columns,
            elements,
            used: stage.is_some(),
            stage,
            rounded: is_rounded(entry.dtype, &entry.bytes),
        })
    }
}

/// The path of a tensor's module.
pub(super) fn module(tensor: &str) -> &str {
    tensor.rsplit_once('.').map_or(tensor, |(module, _)| module)
}

/// The float tensors of a checkpoint, those of the base model first and in the order of execution.
pub(super) fn weights(checkpoint: &Checkpoint, config: &BertConfig) -> Result<Vec<Weight>, BertError> {
    let used = used_tensors(checkpoint, config)?;
    let others: Vec<&TensorEntry> = checkpoint
        .iter()
        .filter(|entry| used.iter().all(|(_, used)| used.name != entry.name))
        // The old buffer `embeddings.position_ids` is of integers.
        .filter(|entry| entry.dtype.is_float())
        .collect();
    let mut weights: Vec<Weight> = used
        .into_iter()
        .filter_map(|(name, entry)| {
            let stage = stage(&name);
            Weight::new(name, entry, Some(stage))
        })
        .collect();
    weights.extend(others.into_iter().filter_map(|entry| Weight::new(entry.name.clone(), entry, None)));
    Ok(weights)
}

/// Modules in the order of execution; those that do not wait for each other are equal.
fn stage(tensor: &str) -> usize {
    const LAYER: [(&str, usize); 6] = [
        ("attention.self.", 0),
        ("attention.output.dense", 1),
        ("attention.output.LayerNorm", 2),
        ("intermediate.dense", 3),
        ("output.dense", 4),
        ("output.LayerNorm", 5),
    ];
    if let Some((layer, part)) = tensor.strip_prefix("encoder.layer.").and_then(|rest| rest.split_once('.')) {
        let layer: usize = layer.parse().unwrap_or_default();
        let part = LAYER.iter().find(|(start, _)| part.starts_with(start)).map_or(0, |&(_, at)| at);
        return 2 + layer * LAYER.len() + part;
    }
    match tensor {
        _ if tensor.starts_with("embeddings.LayerNorm") => 1,
        _ if tensor.starts_with("embeddings.") => 0,
        // The pooler comes after everything else.
        _ => usize::MAX,
    }
}
