use checkpoint::ModelFiles;
use serde::Serialize;

use super::constructors;
use super::sentence::Encoder;
use crate::activation::Activation;
use crate::scores::descending;
use crate::sentence::{Kind, Output, SCORES};
use crate::settings::Settings;
use crate::{PipelineError, Text};

const NAME: &str = "text-ranking";

const CONFIG: &str = "config.json";

/// A document's place in a ranking: documents come in it with the best first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranked {
    /// Which document, counted from 0.
    pub corpus_id: usize,
    /// How well it fits the query.
    pub score: f32,
    /// Whether query and document together were longer than the model takes, so that an end was not read.
    #[serde(skip)]
    pub truncated: bool,
}

/// Documents by how well they fit a query, each read together with it: a cross-encoder, as sentence-transformers' `CrossEncoder.rank`.
///
/// The score is that of the model's classification head, or what the modules of modules.json make
/// of the tokens' states. Pairs that are too long are cut, as they are there.
pub struct TextRanking {
    encoder: Encoder,
    activation: Activation,
}

constructors!(TextRanking, encoder.core, |files, engine, options| {
    Self::of(files, Encoder::new(files, Kind::CrossEncoder, NAME, engine, options)?)
});

impl TextRanking {
    fn of(files: &ModelFiles, encoder: Encoder) -> Result<Self, PipelineError> {
        encoder.sentence.program.must_give(SCORES)?;
        let labels = encoder.core.family.num_labels();
        if encoder.sentence.transformer.output == Output::Logits && labels != 1 {
            return Err(PipelineError::NotARanking { labels });
        }
        let activation = match encoder.sentence.activation {
            Some(activation) => activation,
            None => activation(&files.transformer()?)?,
        };
        Ok(Self { encoder, activation })
    }

    /// Whether the files say that this model is a cross-encoder: then ranking is what it is for,
    /// whatever config.json's `architectures` are.
    ///
    /// # Errors
    /// If config_sentence_transformers.json is malformed.
    pub fn is_meant_by(files: &ModelFiles) -> Result<bool, PipelineError> {
        Kind::CrossEncoder.is_meant_by(files)
    }

    /// This pipeline with the prompt of that name before every query, by
    /// config_sentence_transformers.json. At first it is the one that is named there as the
    /// default.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn with_prompt_name(self, name: &str) -> Result<Self, PipelineError> {
        Ok(Self { encoder: self.encoder.with_prompt_name(name)?, ..self })
    }

    /// This pipeline with that text before every query; `""` for none.
    ///
    /// # Errors
    /// If it cannot be tokenized.
    pub fn with_prompt(self, prompt: &str) -> Result<Self, PipelineError> {
        Ok(Self { encoder: self.encoder.with_prompt(prompt)?, ..self })
    }

    /// The documents, the best first; of equally good ones, the one that comes first.
    ///
    /// # Errors
    /// If there are no documents, or the model fails.
    pub fn rank(&self, query: &str, documents: &[impl AsRef<str>]) -> Result<Vec<Ranked>, PipelineError> {
        if documents.is_empty() {
            return Err(PipelineError::NoCandidates { what: "documents" });
        }
        let mut ranking: Vec<Ranked> = Vec::with_capacity(documents.len());
        // Documents may be many and long: their tokens are made as they are run.
        for part in documents.chunks(self.encoder.core.window()) {
            let first = ranking.len();
            let pairs: Vec<Text<'_>> =
                part.iter().map(|document| Text::from((query, document.as_ref()))).collect();
            let (scores, is_cut) = self.encoder.run(&pairs, first, SCORES)?;
            for (scores, truncated) in scores.into_iter().zip(is_cut) {
                let &[score] = scores.as_slice() else {
                    return Err(PipelineError::NotARanking { labels: scores.len() });
                };
                let score = self.activation.of(score)?;
                ranking.push(Ranked { corpus_id: ranking.len(), score, truncated });
            }
        }
        ranking.sort_by(|a, b| descending(a.score, b.score).then(a.corpus_id.cmp(&b.corpus_id)));
        Ok(ranking)
    }
}

/// What is done to the score by config.json: in `sentence_transformers`, or where versions before 4
/// wrote it; the sigmoid, if it says nothing.
fn activation(files: &ModelFiles) -> Result<Activation, PipelineError> {
    let config = Settings::read(files, CONFIG)?;
    let section = config.object("sentence_transformers")?;
    let of_section = section.as_ref().map(|section| section.string("activation_fn")).transpose()?.flatten();
    match of_section.or(config.string("sbert_ce_default_activation_function")?) {
        Some(class) => Activation::named(class, CONFIG),
        None => Ok(Activation::Sigmoid),
    }
}
