//! The checkpoint's side: its tensors, and where each has its place in the model.

use std::collections::HashSet;

use architecture::{BindError, Bound, Family, Op, Program, Role, Task, TensorId, bind};
use checkpoint::{Checkpoint, TensorEntry};

use super::data::{floats_of, is_rounded};

/// A tensor of the checkpoint.
pub(super) struct Weight {
    /// Its name, without a prefix such as `bert.`, and `weight` and `bias` even where the file says
    /// `gamma` and `beta`.
    pub name: String,
    /// The name that it has in checkpoints converted from TensorFlow, if that is another.
    pub old_name: Option<String>,
    pub shape: Vec<usize>,
    /// A vector is one row.
    pub rows: usize,
    pub columns: usize,
    pub elements: Vec<f32>,
    /// What it is in the model of the task; nothing for those of other heads.
    pub part: Option<Part>,
    /// When its module is executed, counted in modules; `None` for tensors that the model does not use, or uses at both ends.
    pub stage: Option<usize>,
    /// Whether the file's f64 had to be rounded.
    pub rounded: bool,
    /// Whether the file has it once, as the table of word embeddings, and this is the decoder that
    /// a head multiplies with.
    pub tied: bool,
}

/// What a tensor is in the model.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// The step that reads it.
    pub step: usize,
    /// What kind of block that is.
    pub block: Block,
    /// Whether it is the block's bias.
    pub is_bias: bool,
    /// What its block's output is in an attention.
    pub role: Option<Role>,
}

/// The blocks that have tensors.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Block {
    /// A table that the first input is looked up in: all of its rows are needed.
    Vocabulary,
    /// A table of positions: a graph that was traced at a fixed length may hold some rows only.
    Positions,
    /// A table of anything else: a graph without token types may hold some rows only.
    Types,
    Linear,
    LayerNorm,
}

impl Weight {
    /// The path of its module.
    pub fn module(&self) -> &str {
        module(&self.name)
    }

    /// Whether the model of the task uses it; the others are those of other heads.
    pub fn is_used(&self) -> bool {
        self.part.is_some()
    }

    pub fn is_of(&self, block: Block) -> bool {
        self.part.is_some_and(|part| part.block == block)
    }

    /// Whether this is a table of which a graph may hold some rows only.
    pub fn is_partial_table(&self) -> bool {
        self.is_of(Block::Positions) || self.is_of(Block::Types)
    }

    /// Whether rows of it are looked up.
    pub fn is_table(&self) -> bool {
        self.is_of(Block::Vocabulary) || self.is_partial_table()
    }

    /// Whether the scale of the attention may be folded into it.
    pub fn takes_scale(&self) -> bool {
        let role = self.part.and_then(|part| part.role);
        matches!(role, Some(Role::Query | Role::Key))
    }

    fn new(name: String, entry: &TensorEntry) -> Option<Self> {
        let elements = floats_of(entry.dtype, &entry.bytes)?;
        let (rows, columns) = match entry.shape.as_slice() {
            [] => (1, 1),
            [columns] => (1, *columns),
            [rows, columns @ ..] => (*rows, columns.iter().product()),
        };
        Some(Self {
            name,
            old_name: None,
            shape: entry.shape.clone(),
            rows,
            columns,
            elements,
            part: None,
            stage: None,
            rounded: is_rounded(entry.dtype, &entry.bytes),
            tied: false,
        })
    }
}

/// The path of a tensor's module.
pub(super) fn module(tensor: &str) -> &str {
    tensor.rsplit_once('.').map_or(tensor, |(module, _)| module)
}

/// The float tensors of a checkpoint, those that the model of the task uses first and in the order
/// of execution; and the model.
pub(super) fn weights(
    checkpoint: &Checkpoint,
    task: Task,
    family: &dyn Family,
) -> Result<(Vec<Weight>, Program), BindError> {
    let bound = bind(checkpoint, family, task)?;
    let program = &bound.program;
    let stages = stages(program);
    let mut readers: Vec<Option<usize>> = vec![None; program.tensors.len()];
    for (step, of) in program.steps.iter().enumerate() {
        of.op.tensors().iter().for_each(|&(_, id)| _ = readers[id].get_or_insert(step));
    }
    let mut weights: Vec<Weight> = Vec::new();
    for (id, (tensor, &entry)) in program.tensors.iter().zip(&bound.entries).enumerate() {
        let Some(weight) = Weight::new(tensor.name.clone(), entry) else { continue };
        let step = readers[id];
        weights.push(Weight {
            old_name: tensor.old_name.clone(),
            part: step.and_then(|step| part(program, step, id)),
            // What is made of places alone may be computed anywhere before it is added.
            stage: step
                .filter(|&step| !matches!(program.steps[step].op, Op::RelativeBias { .. }))
                .map(|step| stages[step]),
            ..weight
        });
    }
    // A tensor that is two by one name: a graph may hold it twice, or once for both, and it has its
    // place at either end.
    for copied in program.copies.iter().filter(|copied| copied.tied) {
        let reads = |step: &usize| program.steps[*step].op.tensors().iter().any(|&(_, id)| id == copied.of);
        let last = (0..program.steps.len()).rev().find(reads);
        if let Some(weight) = Weight::new(copied.name.clone(), bound.entries[copied.of]) {
            let part = last.and_then(|step| part(program, step, copied.of));
            weights.push(Weight { part, tied: true, ..weight });
        }
    }
    weights.extend(tied_of_others(checkpoint, family, &bound));
    let used: HashSet<&str> = bound.entries.iter().map(|entry| entry.name.as_str()).collect();
    // Such as the old buffer of positions, which is of integers.
    let others = checkpoint.iter().filter(|entry| entry.dtype.is_float());
    let others = others.filter(|entry| !used.contains(entry.name.as_str()));
    weights.extend(others.filter_map(|entry| Weight::new(entry.name.clone(), entry)));
    Ok((weights, bound.program))
}

/// The decoders that are tied to the word embeddings in heads that the checkpoint has and the task
/// does not use: a graph for the features may hold one, and so may one whose head is of its own
/// kind.
fn tied_of_others(checkpoint: &Checkpoint, family: &dyn Family, bound: &Bound) -> Vec<Weight> {
    let known = |name: &str| {
        bound.program.copies.iter().any(|copied| copied.name == name)
            || checkpoint.get(&format!("{}{name}", bound.head_prefix)).is_some()
    };
    let mut tied: Vec<Weight> = Vec::new();
    for other in Task::ALL.into_iter().filter_map(|task| bind(checkpoint, family, task).ok()) {
        for copied in other.program.copies.iter().filter(|copied| copied.tied && !known(&copied.name)) {
            if tied.iter().all(|weight| weight.name != copied.name) {
                let weight = Weight::new(copied.name.clone(), other.entries[copied.of]);
                tied.extend(weight.map(|weight| Weight { tied: true, ..weight }));
            }
        }
    }
    tied
}

fn part(program: &Program, step: usize, id: TensorId) -> Option<Part> {
    let op = &program.steps[step].op;
    let block = match op {
        Op::Embedding { .. } if program.is_of_first_input(step) => Block::Vocabulary,
        Op::Embedding { .. } => Block::Types,
        Op::Positions { .. } => Block::Positions,
        Op::RelativeBias { .. } => Block::Types,
        Op::Linear { .. } => Block::Linear,
        Op::LayerNorm { .. } => Block::LayerNorm,
        _ => return None,
    };
    let is_bias = op.tensors().iter().any(|&(parameter, other)| parameter == "bias" && other == id);
    Some(Part { step, block, is_bias, role: program.role(step) })
}

/// For each step, how many blocks with tensors stand before it at least: those that do not wait for
/// each other may be equal.
fn stages(program: &Program) -> Vec<usize> {
    let mut stages: Vec<usize> = Vec::with_capacity(program.steps.len());
    for step in &program.steps {
        // What has no tensors, such as a sum, is counted to what comes before it.
        let after = |at: usize| stages[at] + usize::from(!program.steps[at].op.tensors().is_empty());
        let before = step.inputs.iter().filter_map(|wire| wire.step());
        stages.push(before.map(after).max().unwrap_or(0));
    }
    stages
}
