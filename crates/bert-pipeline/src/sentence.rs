//! The files that sentence-transformers keeps beside a model. Together they are a program: how a
//! text is read, and what becomes of the transformer's output. What they mean is as in its version
//! 5.7.

mod dense;
mod layer_norm;
mod modules;
mod pool;
mod program;
mod transformer;
mod weights;

use std::collections::BTreeMap;

use checkpoint::ModelFiles;

use crate::activation::Activation;
use crate::settings::Settings;
use crate::similarity::Similarity;
use crate::{PipelineError, Pooling};

pub use modules::Modules;
use pool::Pool;
pub(crate) use program::{Features, Module, Program};
pub(crate) use transformer::{Output, Transformer};

pub(crate) const MODULES: &str = "modules.json";
/// Where the pooling stands by custom, and where it is looked for if there is no list of modules.
pub(crate) const POOLING_CONFIG: &str = "1_Pooling/config.json";
pub(crate) const SETTINGS: &str = "config_sentence_transformers.json";

/// The names of features: the tokens' states, a text's vector, a pair's scores.
const TOKENS: &str = "token_embeddings";
pub(crate) const SENTENCE: &str = "sentence_embedding";
pub(crate) const SCORES: &str = "scores";

/// What is said of vectors of length 1.
pub(crate) const NORMALIZED: &str = "normalized";

/// What a model is used as. A folder that was saved as the one is used as the other without its
/// modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A vector of a text.
    SentenceTransformer,
    /// Scores of a pair.
    CrossEncoder,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::SentenceTransformer => "SentenceTransformer",
            Self::CrossEncoder => "CrossEncoder",
        }
    }

    /// Whether the model was saved as one of these.
    pub(crate) fn is_meant_by(self, files: &ModelFiles) -> Result<bool, PipelineError> {
        self.is_named_in(&Settings::read(files, SETTINGS)?)
    }

    fn is_named_in(self, settings: &Settings) -> Result<bool, PipelineError> {
        // Versions before 5 saved no other kind with modules.
        let name = settings.string("model_type")?.unwrap_or(Kind::SentenceTransformer.name());
        Ok(name == self.name())
    }
}

/// What sentence-transformers does with a model.
#[derive(Debug, Clone)]
pub(crate) struct Sentence {
    /// Whether there is a modules.json that is followed, so that this is no guess.
    pub(crate) is_declared: bool,
    pub(crate) transformer: Transformer,
    pub(crate) program: Program,
    pub(crate) prompts: BTreeMap<String, String>,
    pub(crate) default_prompt: Option<String>,
    /// How many numbers of a vector are kept; all, if `None`.
    pub(crate) truncate_dim: Option<usize>,
    pub(crate) similarity: Similarity,
    /// What is done to a cross-encoder's scores, if the files say.
    pub(crate) activation: Option<Activation>,
}

impl Sentence {
    /// What the files say. Without them: the mean over all tokens, or the scores as they are.
    pub(crate) fn from_files(files: &ModelFiles, kind: Kind) -> Result<Self, PipelineError> {
        let settings = Settings::read(files, SETTINGS)?;
        let is_meant = kind.is_named_in(&settings)?;
        let listed = files.modules()?.filter(|_| is_meant);
        let is_declared = listed.is_some();
        let (transformer, program) = match (&listed, kind) {
            (Some(modules), _) => {
                let Some((first, others)) = modules.split_first() else {
                    return Err(unsupported_module("a model without modules"));
                };
                if !first.is_transformer() {
                    let what = format!("a module of type '{}' to begin with", first.class);
                    return Err(unsupported_module(&what));
                }
                let transformer = Transformer::from_files(files, &first.folder)?;
                let program = Program::from_files(files, &transformer, others)?;
                (transformer, program)
            }
            (None, Kind::SentenceTransformer) if is_meant => {
                let settings = Transformer::from_files(files, "")?;
                let transformer = settings.giving_instead(Output::Hidden);
                (transformer, Program::new(TOKENS, Some(Pool::from_files(files, POOLING_CONFIG)?)))
            }
            (None, Kind::SentenceTransformer) => {
                (Transformer::giving(Output::Hidden), Program::new(TOKENS, Some(Pool::default())))
            }
            (None, Kind::CrossEncoder) => (Transformer::giving(Output::Logits), Program::new(SCORES, None)),
        };
        let mut sentence = Self {
            is_declared,
            transformer,
            program,
            prompts: BTreeMap::new(),
            default_prompt: None,
            truncate_dim: None,
            similarity: Similarity::default(),
            activation: None,
        };
        if kind == Kind::SentenceTransformer {
            // Every model has these two names, for `encode_query` and `encode_document`.
            sentence.prompts = ["query", "document"].map(|name| (name.to_owned(), String::new())).into();
        }
        if is_declared || is_meant && kind == Kind::SentenceTransformer {
            sentence.follow(&settings)?;
        }
        sentence.tell_unknown(files, kind);
        Ok(sentence)
    }

    /// Takes what config_sentence_transformers.json says.
    fn follow(&mut self, settings: &Settings) -> Result<(), PipelineError> {
        if let Some(value) = settings.get("prompts") {
            let wrong = || settings.wrong("prompts", "an object of texts under their names", value);
            for (name, text) in value.as_object().ok_or_else(wrong)? {
                let text = if text.is_null() { "" } else { text.as_str().ok_or_else(wrong)? };
                self.prompts.insert(name.clone(), text.to_owned());
            }
        }
        self.default_prompt = settings.string("default_prompt_name")?.map(str::to_owned);
        self.truncate_dim = settings.size("truncate_dim")?;
        if let Some(name) = settings.string("similarity_fn_name")? {
            self.similarity =
                name.parse().map_err(|()| settings.unsupported(format!("the similarity '{name}'")))?;
        }
        if let Some(class) = settings.string("activation_fn")? {
            self.activation = Some(Activation::named(class, SETTINGS)?);
        }
        Ok(())
    }

    /// Takes vectors as the model gives them, where it makes them itself.
    pub(crate) fn is_given(&mut self) {
        self.transformer = self.transformer.clone().giving_instead(Output::Vector);
        self.program = Program::new(SENTENCE, None);
    }

    /// The prompt of that name.
    pub(crate) fn prompt(&self, name: &str) -> Result<&str, PipelineError> {
        self.prompts.get(name).map(String::as_str).ok_or_else(|| PipelineError::NoPrompt {
            name: name.to_owned(),
            has: self.prompts.keys().cloned().collect(),
        })
    }

    /// Where a row is cut: by the settings of the transformer, else by those of the tokenizer; but
    /// not beyond the model's positions.
    pub(crate) fn longest_row(&self, tokenizer: &crate::Tokenizer) -> Option<usize> {
        let length = self.transformer.max_length.or(tokenizer.words.model_max_length);
        [length, tokenizer.max_positions()].into_iter().flatten().min()
    }

    /// What becomes of the transformer's output, for a person to read: `mean pooling, normalized`.
    pub(crate) fn recipe(&self) -> String {
        let mut steps: Vec<String> = self.program.modules().iter().map(Module::words).collect();
        if steps.is_empty() {
            steps.push("as the model gives it".to_owned());
        }
        steps.extend(self.truncate_dim.map(|length| format!("cut to {length} numbers")));
        steps.join(", ")
    }

    /// Without a network a file that is not here may still be one of the model's, and its answers
    /// others than these.
    fn tell_unknown(&self, files: &ModelFiles, kind: Kind) {
        let consequence = match kind {
            Kind::SentenceTransformer => {
                let recipe = self.recipe();
                format!("embeddings are made by {recipe} and may be others than the model's")
            }
            Kind::CrossEncoder => "scores may be others than the model's".to_owned(),
        };
        let mut wanted = vec![MODULES, SETTINGS];
        if kind == Kind::SentenceTransformer && !self.is_declared {
            wanted.push(POOLING_CONFIG);
        }
        // These are names of one file.
        if !self.transformer.is_declared && kind == Kind::SentenceTransformer {
            wanted.push(transformer::CONFIGS[0]);
        }
        files.tell_unknown(&wanted, &consequence);
    }
}

fn unsupported_module(what: &str) -> PipelineError {
    PipelineError::UnsupportedPooling { file: MODULES.to_owned(), what: what.to_owned() }
}

/// The path of a file in a folder of the model.
pub(crate) fn in_folder(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") }
}

impl Pooling {
    /// How this model's embeddings are meant to be made, and whether they are normalised
    /// afterwards, by the files that sentence-transformers keeps (modules.json,
    /// 1_Pooling/config.json). Without them: the mean, not normalised.
    ///
    /// # Errors
    /// If a file is malformed, or asks for more than one pooling and its normalisation, which
    /// [`crate::pipeline::Embeddings`] follows.
    pub fn from_files(files: &ModelFiles) -> Result<(Self, bool), PipelineError> {
        let sentence = Sentence::from_files(files, Kind::SentenceTransformer)?;
        let refused = |what: String| Err(unsupported_module(&what));
        let (pool, normalized) = match sentence.program.modules() {
            [Module::Pool(pool)] => (pool, false),
            [Module::Pool(pool), Module::Normalize] => (pool, true),
            _ => return refused(sentence.recipe()),
        };
        match pool.modes.as_slice() {
            &[mode] => Ok((mode, normalized)),
            _ => refused(sentence.recipe()),
        }
    }
}

#[cfg(test)]
mod tests;
