//! What a model's answers depend on beside its weights and its tokenizer's ids, as a list that can
//! be held against that of another folder.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use candle_core::Tensor;
use checkpoint::ModelFiles;

use crate::sentence::{Kind, Sentence};
use crate::settings::Settings;
use crate::tokenizer::CONFIG as TOKENIZER_CONFIG;
use crate::{PipelineError, Tokenizer};

const MODEL_CONFIG: &str = "config.json";

/// A setting that answers depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The file that says it, or where it would stand.
    pub file: String,
    /// What it is, in words: `labels`, `the prompt 'query'`.
    pub what: String,
    /// What holds, in words; what the files leave out has its default.
    pub value: String,
}

impl Setting {
    fn new(file: impl Into<String>, what: impl Into<String>, value: impl ToString) -> Self {
        Self { file: file.into(), what: what.into(), value: value.to_string() }
    }
}

/// The names of a classifier's labels, and how its scores are read (`problem_type`).
///
/// # Errors
/// If config.json is missing or contradicts itself.
pub fn labels(files: &ModelFiles) -> Result<Vec<Setting>, PipelineError> {
    let family = candle_bert::family(&files.config()?)?;
    let names: Vec<String> =
        (0..family.num_labels()).map(|id| format!("{id} = {}", family.label(id))).collect();
    let kind = Settings::read(&files.transformer()?, MODEL_CONFIG)?;
    let kind = kind.string("problem_type")?.unwrap_or("not set").to_owned();
    Ok(vec![
        Setting::new(MODEL_CONFIG, "labels", names.join(", ")),
        Setting::new(MODEL_CONFIG, "problem_type", kind),
    ])
}

/// The most tokens of a text that are read, and the word that is filled. `file` of the former is
/// the one that says the length.
///
/// # Errors
/// If a file is malformed, or the model has no tokenizer that is read here.
pub fn reading(files: &ModelFiles) -> Result<Vec<Setting>, PipelineError> {
    let own = files.transformer()?;
    let positions = match own.read(MODEL_CONFIG)? {
        Some(bytes) => Some(candle_bert::family(&bytes)?.limits().positions),
        None => None,
    };
    let tokenizer = Tokenizer::from_files(files, positions)?;
    let sentence = Sentence::from_files(files, kind(files)?)?;
    let longest = sentence.longest_row(&tokenizer);
    let file = match (sentence.transformer.max_length, tokenizer.words.model_max_length) {
        (Some(length), _) if Some(length) == longest => sentence.transformer.file.clone(),
        (None, Some(length)) if Some(length) == longest => TOKENIZER_CONFIG.to_owned(),
        _ => MODEL_CONFIG.to_owned(),
    };
    let length = longest.map_or("not set".to_owned(), |length| format!("{length} tokens"));
    Ok(vec![
        Setting::new(file, "the maximum length", length),
        Setting::new(TOKENIZER_CONFIG, "the mask token", &tokenizer.words.mask),
    ])
}

/// What sentence-transformers does before and after the transformer: modules, prompts, and how
/// vectors are cut and compared.
///
/// # Errors
/// If a file is malformed, or asks for what is not done here.
pub fn sentence(files: &ModelFiles) -> Result<Vec<Setting>, PipelineError> {
    let sentence = Sentence::from_files(files, kind(files)?)?;
    let pooling = if files.modules()?.is_some() { crate::sentence::MODULES } else { POOLING };
    let mut settings = vec![Setting::new(pooling, "pooling", sentence.recipe())];
    for (folder, tensors, then) in sentence.program.weights() {
        let file = crate::sentence::in_folder(folder, MODEL_CONFIG);
        let value = fingerprint(&tensors)? + &then;
        settings.push(Setting::new(file, format!("the weights of {folder}"), value));
    }
    let file = &sentence.transformer.file;
    settings.push(Setting::new(file, "do_lower_case", sentence.transformer.lowers_case));
    const OWN: &str = crate::sentence::SETTINGS;
    for (name, text) in &sentence.prompts {
        settings.push(Setting::new(OWN, format!("the prompt '{name}'"), format!("{text:?}")));
    }
    let none = || "not set".to_owned();
    let default = sentence.default_prompt.clone().unwrap_or_else(none);
    let length = sentence.truncate_dim.map_or_else(none, |length| length.to_string());
    let activation = sentence.activation.map_or_else(none, |activation| format!("{activation:?}"));
    settings.extend([
        Setting::new(OWN, "default_prompt_name", default),
        Setting::new(OWN, "truncate_dim", length),
        Setting::new(OWN, "similarity_fn_name", sentence.similarity),
        Setting::new(OWN, "activation_fn", activation),
    ]);
    Ok(settings)
}

const POOLING: &str = crate::sentence::POOLING_CONFIG;

/// What the model was saved as.
fn kind(files: &ModelFiles) -> Result<Kind, PipelineError> {
    let is_encoder = Kind::CrossEncoder.is_meant_by(files)?;
    Ok(if is_encoder { Kind::CrossEncoder } else { Kind::SentenceTransformer })
}

/// Shapes, and a number that other elements hardly have.
fn fingerprint(tensors: &[Tensor]) -> Result<String, PipelineError> {
    let mut hasher = DefaultHasher::new();
    for tensor in tensors {
        for number in tensor.flatten_all()?.to_vec1::<f32>()? {
            number.to_bits().hash(&mut hasher);
        }
    }
    let shapes: Vec<String> = tensors.iter().map(|tensor| format!("{:?}", tensor.dims())).collect();
    Ok(format!("{} ({:016x})", shapes.join(" and "), hasher.finish()))
}
