//! A program and the checkpoint that it is of: every tensor is looked up before the first one is
//! read, so that one error can list all that does not fit.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;

use checkpoint::{Checkpoint, TensorEntry};

use crate::program::{Program, Tensor};
use crate::{Family, Task};

/// A program, and where its tensors lie.
#[derive(Debug, Clone)]
pub struct Bound<'a> {
    /// The model of the task.
    pub program: Program,
    /// What stands before the names of the tensors of the model without its head: nothing, `bert.`,
    /// `model.`, `0.auto_model.` or the like.
    pub prefix: String,
    /// What stands before the names of the tensors of the head.
    pub head_prefix: String,
    /// Where each of [`Program::tensors`] lies.
    pub entries: Vec<&'a TensorEntry>,
    /// The tensors of the checkpoint that the model does not use, such as those of another head, in
    /// file order.
    pub unused: Vec<String>,
}

impl<'a> Bound<'a> {
    /// The tensors by their names without a prefix, in the order of execution.
    pub fn named(&self) -> impl Iterator<Item = (&str, &'a TensorEntry)> {
        let names = self.program.tensors.iter().map(|tensor| tensor.name.as_str());
        names.zip(self.entries.iter().copied())
    }
}

/// Why a checkpoint is not that of a program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum BindError {
    /// The config has no such model.
    #[error(transparent)]
    Config(Box<dyn Error + Send + Sync>),
    /// Not one tensor of the checkpoint has the name it has in the model.
    #[error(
        "the checkpoint has none of the tensors of {family}, with or without a prefix such as '{base}.'; its \
         {total} tensors begin with {}; give a checkpoint of {family}, as save_pretrained writes it",
        .found.join(", ")
    )]
    NoTensors { family: &'static str, base: &'static str, found: Vec<String>, total: usize },
    /// The whole model under more than one prefix.
    #[error(
        "the checkpoint has two whole {family} models, one under '{first}' and one under '{second}': save the one \
         that is meant in a file of its own"
    )]
    SeveralModels { family: &'static str, first: String, second: String },
    /// Some tensors of the checkpoint do not fit the config.
    #[error(transparent)]
    Misfits(#[from] Misfits),
    /// A checkpoint that has a tensor twice, with a config that says that both are one. Versions of
    /// transformers take it differently: the fourth takes the one that config.json names, the fifth
    /// the other.
    #[error(
        "{tensor} differs from the word embeddings, but config.json ties the two; \
         write \"tie_word_embeddings\": false there if it is a decoder of its own, or take it out of the checkpoint if it is not"
    )]
    Untied { tensor: String },
}

/// The prefixes that tensors usually have, `base` being the family's: none in a checkpoint of the
/// model alone, `bert.` in one with a head; `model.` where either was an attribute of a class of
/// one's own (Lightning's way), `module.` where it was trained under `DataParallel`;
/// `0.auto_model.` in the state dict of a whole `SentenceTransformer`.
fn usual_prefixes(base: &str) -> Vec<String> {
    let within = |outer: &str| [outer.to_string(), format!("{outer}{base}.")];
    let of_wrappers = ["", "model.", "module."].into_iter().flat_map(within);
    of_wrappers.chain(["0.auto_model.".to_string()]).collect()
}

/// Models whose tensors have names of others, and mean something else: their prefix is theirs.
const FAMILIES: [&str; 14] = [
    "bert",
    "roberta",
    "xlm_roberta",
    "camembert",
    "electra",
    "distilbert",
    "mpnet",
    "albert",
    "new",
    "ernie",
    "data2vec_text",
    "layoutlm",
    "esm",
    "deberta",
];

/// Any other prefix under which all tensors of the model without its head are found, as
/// `_orig_mod.` of `torch.compile`; `without` is its program without what only some checkpoints
/// have, and `base` the family's own.
fn other_prefixes<'a>(checkpoint: &'a Checkpoint, without: &Program, base: &str) -> Vec<&'a str> {
    let tensors: Vec<&Tensor> = without.tensors.iter().filter(|tensor| tensor.in_base).collect();
    let Some(first) = tensors.first() else { return Vec::new() };
    let prefix = |name: &'a str| name.strip_suffix(&first.name).filter(|prefix| prefix.ends_with('.'));
    let is_other = |prefix: &str| prefix.split('.').any(|part| part != base && FAMILIES.contains(&part));
    // Each stops at the first tensor that is not there: a checkpoint may have many such names.
    let has_all = |prefix: &&str| tensors.iter().all(|tensor| find(checkpoint, prefix, tensor).is_some());
    checkpoint.names().filter_map(prefix).filter(|prefix| !is_other(prefix)).filter(has_all).collect()
}

/// Looks up every tensor of the model of a task. Prefixes, and the names that checkpoints converted
/// from TensorFlow have, are understood: the usual prefixes, and any other one under which the
/// whole model is.
///
/// # Errors
/// If the config has no such model; if the whole model is there under several unusual prefixes; or
/// with the list of everything in the checkpoint that does not fit it ([`Misfits`]).
pub fn bind<'a>(checkpoint: &'a Checkpoint, family: &dyn Family, task: Task) -> Result<Bound<'a>, BindError> {
    let mut best: Option<(usize, String, Program)> = None;
    for prefix in usual_prefixes(family.base()) {
        // A config may ask for many layers, and most prefixes stand before nothing.
        if !checkpoint.names().any(|name| name.starts_with(&prefix)) {
            continue;
        }
        let has = |name: &str| checkpoint.get(&format!("{prefix}{name}")).is_some();
        let program = family.program(task, &has).map_err(BindError::Config)?;
        let tensors = program.tensors.iter().filter(|tensor| tensor.in_base);
        let found = tensors.filter(|tensor| find(checkpoint, &prefix, tensor).is_some()).count();
        if found > 0 && found >= best.as_ref().map_or(0, |(most, ..)| *most) {
            best = Some((found, prefix, program));
        }
    }
    let of_base = |program: &Program| program.tensors.iter().filter(|tensor| tensor.in_base).count();
    if best.as_ref().is_none_or(|(found, _, program)| *found < of_base(program)) {
        let without = family.program(task, &|_| false).map_err(BindError::Config)?;
        match other_prefixes(checkpoint, &without, family.base())[..] {
            [] => {}
            [prefix] => {
                let has = |name: &str| checkpoint.get(&format!("{prefix}{name}")).is_some();
                let program = family.program(task, &has).map_err(BindError::Config)?;
                best = Some((of_base(&program), prefix.into(), program));
            }
            [first, second, ..] => {
                let (family, first, second) = (family.name(), first.into(), second.into());
                return Err(BindError::SeveralModels { family, first, second });
            }
        }
    }
    let Some((_, prefix, program)) = best else {
        return Err(BindError::NoTensors {
            family: family.name(),
            base: family.base(),
            found: checkpoint.names().take(3).map(String::from).collect(),
            total: checkpoint.len(),
        });
    };
    // The class that holds the encoder as `bert` holds the head, too.
    let head_prefix = prefix.strip_suffix(&format!("{}.", family.base())).unwrap_or(&prefix).to_string();
    bind_program(checkpoint, program, prefix, head_prefix)
}

/// Looks up every tensor of a program under known prefixes.
///
/// # Errors
/// As [`bind`].
pub fn bind_program(
    checkpoint: &Checkpoint,
    program: Program,
    prefix: String,
    head_prefix: String,
) -> Result<Bound<'_>, BindError> {
    let before = |tensor: &Tensor| if tensor.in_base { &prefix } else { &head_prefix };
    let mut misfits = Misfits::default();
    let mut entries = Vec::new();
    for tensor in &program.tensors {
        let prefix = before(tensor);
        let Some(entry) = find(checkpoint, prefix, tensor) else {
            let name = format!("{prefix}{}", tensor.name);
            misfits.missing.push(Missing { name, shape: tensor.shape.clone() });
            continue;
        };
        if !entry.dtype.is_float() {
            misfits.not_float.push((entry.name.clone(), entry.dtype));
        }
        if entry.shape != tensor.shape {
            misfits.misshaped.push(Misshaped {
                name: entry.name.clone(),
                expected: tensor.shape.clone(),
                found: entry.shape.clone(),
            });
        }
        entries.push(entry);
    }
    if misfits != Misfits::default() {
        return Err(misfits.into());
    }
    let mut known: HashSet<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    known.extend(program.buffers.iter().map(|name| format!("{prefix}{name}")));
    for copied in &program.copies {
        let Some(copy) = checkpoint.get(&format!("{head_prefix}{}", copied.name)) else { continue };
        let Some(&original) = entries.get(copied.of) else { continue };
        let same =
            (original.dtype, &original.shape, &original.bytes) == (copy.dtype, &copy.shape, &copy.bytes);
        if same {
            known.insert(copy.name.clone());
        } else if copied.tied {
            return Err(BindError::Untied { tensor: copy.name.clone() });
        }
    }
    let unused = checkpoint.names().filter(|name| !known.contains(*name)).map(String::from).collect();
    Ok(Bound { program, prefix, head_prefix, entries, unused })
}

fn find<'a>(checkpoint: &'a Checkpoint, prefix: &str, tensor: &Tensor) -> Option<&'a TensorEntry> {
    let named = |name: &str| checkpoint.get(&format!("{prefix}{name}"));
    named(&tensor.name).or_else(|| named(tensor.old_name.as_ref()?))
}

/// All that does not fit between a checkpoint and its config, in the order of execution. Names are
/// those of the checkpoint, prefix included.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Misfits {
    /// Tensors that the config asks for and the checkpoint does not have.
    pub missing: Vec<Missing>,
    /// Tensors of another shape.
    pub misshaped: Vec<Misshaped>,
    /// Tensors that stand in place of a weight and are not of a float dtype.
    pub not_float: Vec<(String, engine::DType)>,
}

/// A tensor that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The name it would have in the checkpoint.
    pub name: String,
    /// The shape that follows from the config.
    pub shape: Vec<usize>,
}

/// A tensor whose shape is not what the config makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshaped {
    /// Its name in the checkpoint.
    pub name: String,
    /// The shape that follows from the config.
    pub expected: Vec<usize>,
    /// The shape it has.
    pub found: Vec<usize>,
}

impl fmt::Display for Misfits {
    /// A summary, then one line for each tensor.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { missing, misshaped, not_float } = self;
        let count = missing.len() + misshaped.len() + not_float.len();
        write!(
            f,
            "the checkpoint does not fit config.json in {count} place{}; take both from one save of the \
             model, or name another task",
            if count == 1 { "" } else { "s" }
        )?;
        for Missing { name, shape } in missing {
            write!(f, "\n  {name} {shape:?} is missing")?;
        }
        for Misshaped { name, expected, found } in misshaped {
            write!(f, "\n  {name} is {found:?}, config.json makes it {expected:?}")?;
        }
        for (name, dtype) in not_float {
            write!(f, "\n  {name} is {dtype}, a weight must be a float")?;
        }
        Ok(())
    }
}
