//! The checkpoint's side: its tensors, and where each has its place in the model.

use candle_bert::{BertConfig, BertError, Task, used_tensors_for};
use checkpoint::{Checkpoint, TensorEntry};

use super::data::{floats_of, is_rounded};

/// The table of positions.
pub(super) const POSITIONS: &str = "embeddings.position_embeddings.weight";

/// The table of words.
const WORDS: &str = "embeddings.word_embeddings.weight";

/// What a masked language model decodes with: the table of words by another name, where they are tied. A graph may hold it twice, or once for both.
const DECODER: &str = "cls.predictions.decoder.weight";

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
    /// Whether the model of the task uses it; the others are those of other heads.
    pub used: bool,
    /// When its module is executed, counted in modules; `None` for tensors that the model does not use, or uses at both ends.
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

/// The float tensors of a checkpoint, those that the model of the task uses first and in the order of execution.
pub(super) fn weights(
    checkpoint: &Checkpoint,
    task: Task,
    config: &BertConfig,
) -> Result<Vec<Weight>, BertError> {
    let mut used = used_tensors_for(task, checkpoint, config)?;
    if task == Task::MaskedLm && config.tie_word_embeddings {
        let words = used.iter().find(|(name, _)| name == WORDS).map(|&(_, entry)| entry);
        used.extend(words.map(|entry| (DECODER.to_string(), entry)));
    }
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
    // One tensor of the graph may be both, and has its place at either end.
    let tied = |weight: &&mut Weight| config.tie_word_embeddings && weight.name == DECODER;
    weights.iter_mut().filter(tied).for_each(|weight| weight.stage = None);
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
    // The pooler comes after the encoder, and a head after that.
    const END: usize = usize::MAX;
    match tensor {
        _ if tensor.starts_with("embeddings.LayerNorm") => 1,
        _ if tensor.starts_with("embeddings.") => 0,
        _ if tensor.starts_with("pooler.") => END - 3,
        _ if tensor.starts_with("cls.predictions.transform.dense") => END - 2,
        _ if tensor.starts_with("cls.predictions.transform.") => END - 1,
        _ => END,
    }
}
