//! From a checkpoint to a model: every tensor the config asks for is looked up before the first one is read, so that
//! one error can list all that does not fit.

use std::collections::HashSet;
use std::fmt;

use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use checkpoint::{Checkpoint, TensorEntry};

use crate::{BertConfig, BertError, BertModel, ConfigError, Task};

/// The prefixes that a BERT's tensors may have: none in a checkpoint of `BertModel`, `bert.` in one with a head; `model.` where either was an
/// attribute of a class of one's own (Lightning's way), `module.` where it was trained under `DataParallel`; `0.auto_model.` in
/// the state dict of a whole `SentenceTransformer`. Those of other architectures are not here: a RoBERTa's tensors have the same
/// names after theirs, and mean something else.
const PREFIXES: [&str; 7] =
    ["", "bert.", "model.", "model.bert.", "module.", "module.bert.", "0.auto_model."];

/// A buffer that `transformers` wrote into checkpoints before version 4.31: 0, 1, 2, … It is not a weight,
/// `transformers` itself no longer reads it, and so it is neither used here nor reported as unused.
const POSITION_IDS: &str = "embeddings.position_ids";

/// The decoder of a masked language model, and its bias, where checkpoints have copies of what they are tied to.
const DECODER: &str = "cls.predictions.decoder.weight";
const DECODER_BIAS: &str = "cls.predictions.decoder.bias";
const LM_BIAS: &str = "cls.predictions.bias";

/// A model, and what is to be known about its checkpoint.
#[derive(Debug, Clone)]
pub struct Loaded<M = BertModel> {
    /// The model.
    pub model: M,
    /// What stands before the names of its tensors in the checkpoint: nothing, `bert.`, `model.`, `0.auto_model.` or the like.
    pub prefix: &'static str,
    /// The tensors of the checkpoint that the model does not use, such as those of a head, in file order. The old buffer
    /// `embeddings.position_ids` is no weight, and never among them.
    pub unused: Vec<String>,
}

/// A tensor that a config asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedTensor {
    /// Its name, without a prefix: `encoder.layer.0.output.dense.weight`.
    pub name: String,
    /// Its shape: `[out, in]` for the weight of a dense layer.
    pub shape: Vec<usize>,
}

/// Every tensor that a [`BertModel`] of this config has, in the order of execution.
pub fn expected_tensors(config: &BertConfig, pooler: bool) -> Vec<ExpectedTensor> {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let mut tensors = Vec::new();
    let mut tensor =
        |name: String, shape: &[usize]| tensors.push(ExpectedTensor { name, shape: shape.into() });
    for (table, rows) in [
        ("word", config.vocab_size),
        ("token_type", config.type_vocab_size),
        ("position", config.max_position_embeddings),
    ] {
        tensor(format!("embeddings.{table}_embeddings.weight"), &[rows, hidden]);
    }
    let layer_norm = |module: &str| [(format!("{module}.LayerNorm"), vec![hidden])];
    let dense = |module: &str, inputs, outputs| [(module.to_string(), vec![outputs, inputs])];
    let mut modules = Vec::from(layer_norm("embeddings"));
    for n in 0..config.num_hidden_layers {
        let layer = |part: &str| format!("encoder.layer.{n}.{part}");
        for part in ["query", "key", "value"] {
            modules.extend(dense(&layer(&format!("attention.self.{part}")), hidden, hidden));
        }
        modules.extend(dense(&layer("attention.output.dense"), hidden, hidden));
        modules.extend(layer_norm(&layer("attention.output")));
        modules.extend(dense(&layer("intermediate.dense"), hidden, intermediate));
        modules.extend(dense(&layer("output.dense"), intermediate, hidden));
        modules.extend(layer_norm(&layer("output")));
    }
    if pooler {
        modules.extend(dense("pooler.dense", hidden, hidden));
    }
    for (module, weight) in modules {
        tensors.extend(affine(&module, &weight));
    }
    tensors
}

/// Every tensor that the head of a task has, in the order of execution, under its name beside the encoder: `classifier.weight`. A decoder that is tied to the
/// word embeddings is none of its own.
pub fn expected_head_tensors(task: Task, config: &BertConfig) -> Vec<ExpectedTensor> {
    let hidden = config.hidden_size;
    let dense = |module, outputs| affine(module, &[outputs, hidden]).into();
    match task {
        Task::FeatureExtraction => Vec::new(),
        Task::SequenceClassification | Task::TokenClassification => dense("classifier", config.num_labels),
        Task::MultipleChoice => dense("classifier", 1),
        Task::QuestionAnswering => dense("qa_outputs", 2),
        Task::NextSentencePrediction => dense("cls.seq_relationship", 2),
        Task::MaskedLm => {
            let vocabulary = config.vocab_size;
            let mut tensors: Vec<ExpectedTensor> = dense("cls.predictions.transform.dense", hidden);
            tensors.extend(affine("cls.predictions.transform.LayerNorm", &[hidden]));
            if !config.tie_word_embeddings {
                tensors.push(ExpectedTensor { name: DECODER.into(), shape: vec![vocabulary, hidden] });
            }
            tensors.push(ExpectedTensor { name: LM_BIAS.into(), shape: vec![vocabulary] });
            tensors
        }
    }
}

/// The weight and the bias of a module.
fn affine(module: &str, weight: &[usize]) -> [ExpectedTensor; 2] {
    [
        ExpectedTensor { name: format!("{module}.weight"), shape: weight.into() },
        ExpectedTensor { name: format!("{module}.bias"), shape: weight[..1].into() },
    ]
}

/// A classifier without any label gives nothing.
pub(crate) fn refuse_no_labels(task: Task, config: &BertConfig) -> std::result::Result<(), ConfigError> {
    match task {
        Task::SequenceClassification | Task::TokenClassification if config.num_labels == 0 => {
            Err(ConfigError::Zero { field: "num_labels" })
        }
        _ => Ok(()),
    }
}

impl BertModel {
    /// Loads a model from a checkpoint, converting its float tensors to `dtype`.
    ///
    /// Prefixes such as `bert.` are found, and the model has a pooler if the checkpoint has its tensors. The names `gamma` and
    /// `beta`, which checkpoints converted from TensorFlow have in their layer norms, are understood.
    ///
    /// # Errors
    /// If the config is contradictory; or with the list of everything in the checkpoint that does not fit it ([`Misfits`]).
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        config: &BertConfig,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Loaded, BertError> {
        config.validate()?;
        let Survey { prefix, unused, .. } = survey(checkpoint, config, Task::FeatureExtraction)?;
        let vb = var_builder(checkpoint, dtype, device);
        let vb = if prefix.is_empty() { vb } else { vb.pp(prefix.trim_end_matches('.')) };
        Ok(Loaded { model: BertModel::load(vb, config)?, prefix, unused })
    }
}

/// Every tensor of a checkpoint that its [`BertModel`] uses, under its name without a prefix and in the order of execution, beside where it lies.
///
/// # Errors
/// As [`BertModel::from_checkpoint`].
pub fn used_tensors<'a>(
    checkpoint: &'a Checkpoint,
    config: &BertConfig,
) -> std::result::Result<Vec<(String, &'a TensorEntry)>, BertError> {
    used_tensors_for(Task::FeatureExtraction, checkpoint, config)
}

/// Every tensor of a checkpoint that the model of a task uses: those of the encoder under their names without a prefix, then those of the head. A decoder that
/// is tied to the word embeddings is not there a second time.
///
/// # Errors
/// As [`crate::BertForTask::from_checkpoint`].
pub fn used_tensors_for<'a>(
    task: Task,
    checkpoint: &'a Checkpoint,
    config: &BertConfig,
) -> std::result::Result<Vec<(String, &'a TensorEntry)>, BertError> {
    config.validate()?;
    Ok(survey(checkpoint, config, task)?.used)
}

/// A checkpoint as candle's `VarBuilder`, for [`BertModel::load`] and for heads. Its float tensors are converted to
/// `dtype`; any other is an error.
pub fn var_builder(checkpoint: &Checkpoint, dtype: DType, device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(Backend(checkpoint.clone())), dtype, device.clone())
}

/// Where a model's tensors are in a checkpoint, once all have been found to fit.
pub(crate) struct Survey<'a> {
    /// What stands before the names of the encoder.
    pub(crate) prefix: &'static str,
    /// What stands before the names of the head.
    pub(crate) head_prefix: &'static str,
    /// What the model uses, by its name without a prefix.
    used: Vec<(String, &'a TensorEntry)>,
    /// The names of what it does not use.
    pub(crate) unused: Vec<String>,
}

/// Looks up every tensor of the model of a task.
pub(crate) fn survey<'a>(
    checkpoint: &'a Checkpoint,
    config: &BertConfig,
    task: Task,
) -> std::result::Result<Survey<'a>, BertError> {
    refuse_no_labels(task, config)?;
    let (prefix, encoder) = expected_with_prefix(checkpoint, config, task)?;
    // The class that holds the encoder as `bert` holds the head, too.
    let head_prefix = prefix.strip_suffix("bert.").unwrap_or(prefix);
    let head = expected_head_tensors(task, config);
    let expected = encoder.into_iter().map(|tensor| (prefix, tensor));
    let expected = expected.chain(head.into_iter().map(|tensor| (head_prefix, tensor)));

    let mut misfits = Misfits::default();
    let mut used = Vec::new();
    for (prefix, ExpectedTensor { name, shape }) in expected {
        let Some(entry) = find(checkpoint, prefix, &name) else {
            misfits.missing.push(ExpectedTensor { name: format!("{prefix}{name}"), shape });
            continue;
        };
        if !entry.dtype.is_float() {
            misfits.not_float.push((entry.name.clone(), entry.dtype));
        }
        if entry.shape != shape {
            misfits.misshaped.push(Misshaped {
                name: entry.name.clone(),
                expected: shape,
                found: entry.shape.clone(),
            });
        }
        used.push((name, entry));
    }
    if misfits != Misfits::default() {
        return Err(misfits.into());
    }
    let mut known: HashSet<&str> = used.iter().map(|(_, entry)| entry.name.as_str()).collect();
    let position_ids = format!("{prefix}{POSITION_IDS}");
    known.insert(&position_ids);
    if task == Task::MaskedLm {
        known.extend(copies(checkpoint, prefix, head_prefix, config)?);
    }
    let unused = checkpoint.names().filter(|name| !known.contains(name)).map(String::from).collect();
    Ok(Survey { prefix, head_prefix, used, unused })
}

/// The names of what a masked language model has twice: the decoder, if it is tied, and its bias.
fn copies<'a>(
    checkpoint: &'a Checkpoint,
    prefix: &str,
    head_prefix: &str,
    config: &BertConfig,
) -> std::result::Result<Vec<&'a str>, BertError> {
    let mut copies = Vec::new();
    let is_copy = |copy: &TensorEntry, original: Option<&TensorEntry>| {
        original.is_some_and(|o| (o.dtype, &o.shape, &o.bytes) == (copy.dtype, &copy.shape, &copy.bytes))
    };
    if let Some(decoder) = find(checkpoint, head_prefix, DECODER).filter(|_| config.tie_word_embeddings) {
        if !is_copy(decoder, find(checkpoint, prefix, "embeddings.word_embeddings.weight")) {
            return Err(BertError::UntiedDecoder { tensor: decoder.name.clone() });
        }
        copies.push(decoder.name.as_str());
    }
    let bias = find(checkpoint, head_prefix, DECODER_BIAS);
    // Where it differs, nobody takes it, and it is left over.
    if let Some(bias) = bias.filter(|bias| is_copy(bias, find(checkpoint, head_prefix, LM_BIAS))) {
        copies.push(&bias.name);
    }
    Ok(copies)
}

/// The prefix under which more of the encoder's tensors are found, and those tensors.
fn expected_with_prefix(
    checkpoint: &Checkpoint,
    config: &BertConfig,
    task: Task,
) -> std::result::Result<(&'static str, Vec<ExpectedTensor>), BertError> {
    let candidates = PREFIXES.map(|prefix| {
        let is_there = || {
            let pooler = ["pooler.dense.weight", "pooler.dense.bias"];
            pooler.iter().any(|name| find(checkpoint, prefix, name).is_some())
        };
        let expected = expected_tensors(config, task.pooler().unwrap_or_else(is_there));
        let found = expected.iter().filter(|tensor| find(checkpoint, prefix, &tensor.name).is_some()).count();
        (found, prefix, expected)
    });
    match candidates.into_iter().max_by_key(|&(found, ..)| found) {
        Some((1.., prefix, expected)) => Ok((prefix, expected)),
        _ => Err(BertError::NotABert {
            found: checkpoint.names().take(3).map(String::from).collect(),
            total: checkpoint.len(),
        }),
    }
}

fn find<'a>(checkpoint: &'a Checkpoint, prefix: &str, name: &str) -> Option<&'a TensorEntry> {
    checkpoint.get(&format!("{prefix}{name}")).or_else(|| {
        let legacy = match name.strip_suffix("LayerNorm.weight") {
            Some(module) => format!("{prefix}{module}LayerNorm.gamma"),
            None => format!("{prefix}{}LayerNorm.beta", name.strip_suffix("LayerNorm.bias")?),
        };
        checkpoint.get(&legacy)
    })
}

/// All that does not fit between a checkpoint and its config, in the order of execution. Names are those of the
/// checkpoint, prefix included.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Misfits {
    /// Tensors that the config asks for and the checkpoint does not have.
    pub missing: Vec<ExpectedTensor>,
    /// Tensors of another shape.
    pub misshaped: Vec<Misshaped>,
    /// Tensors that stand in place of a weight and are not of a float dtype.
    pub not_float: Vec<(String, engine::DType)>,
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
            "the checkpoint does not fit config.json in {count} place{}",
            if count == 1 { "" } else { "s" }
        )?;
        for ExpectedTensor { name, shape } in missing {
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

/// A checkpoint in candle's terms.
struct Backend(Checkpoint);

impl SimpleBackend for Backend {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            let got = tensor.shape().clone();
            return Err(Error::UnexpectedShape { msg: name.into(), expected: shape, got });
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let entry = self.0.get(name).ok_or_else(|| Error::CannotFindTensor { path: name.into() })?;
        let stored = match entry.dtype {
            engine::DType::F16 => DType::F16,
            engine::DType::BF16 => DType::BF16,
            engine::DType::F32 => DType::F32,
            engine::DType::F64 => DType::F64,
            other => return Err(Error::Msg(format!("{name} is {other}, a weight must be a float"))),
        };
        // Converted on the CPU: some devices have no f64.
        Tensor::from_raw_buffer(&entry.bytes, stored, &entry.shape, &Device::Cpu)?
            .to_dtype(dtype)?
            .to_device(device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }
}

#[cfg(test)]
mod tests;
