use candle_core::{Device, Tensor};
use checkpoint::ModelFiles;

use super::sentence::Encoder;
use super::text_classification::outputs;
use super::{AsText, Options, Output, Pipeline, RunIter, constructors};
use crate::sentence::{Kind, NORMALIZED, SENTENCE};
use crate::{PipelineError, Similarity, Text, normalize};

const NAME: &str = "embeddings";

/// One vector a text, as sentence-transformers' `encode` makes it: by the model's modules.json and the files beside it.
///
/// A model without these files gives the mean over its tokens. A model with them cuts texts that are too long, as they do, and
/// the output says so; without them such texts are refused.
pub struct Embeddings {
    encoder: Encoder,
    /// Whether vectors are brought to length 1, whatever the model's files ask for.
    normalizes: bool,
}

constructors!(Embeddings, encoder.core, |files, engine, options| {
    Self::of(Encoder::new(files, Kind::SentenceTransformer, NAME, engine, options)?)
});

impl Embeddings {
    /// The pipeline with the model's own `pooler_output` in place of the pooling that its files ask for.
    ///
    /// # Errors
    /// As [`Self::from_pretrained`], and if the model has no pooler.
    pub fn with_pooler(files: &ModelFiles, options: &Options) -> Result<Self, PipelineError> {
        Self::of(Encoder::with_pooler(files, NAME, options)?)
    }

    fn of(encoder: Encoder) -> Result<Self, PipelineError> {
        encoder.sentence.program.must_give(SENTENCE)?;
        Ok(Self { encoder, normalizes: false })
    }

    /// This pipeline with the prompt of that name before every text, by
    /// config_sentence_transformers.json. At first it is the one that is named there as the
    /// default. `query` and `document` are empty where the file does not have them.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn with_prompt_name(self, name: &str) -> Result<Self, PipelineError> {
        Ok(Self { encoder: self.encoder.with_prompt_name(name)?, ..self })
    }

    /// This pipeline with that text before every text; `""` for none.
    ///
    /// # Errors
    /// If it cannot be tokenized.
    pub fn with_prompt(self, prompt: &str) -> Result<Self, PipelineError> {
        Ok(Self { encoder: self.encoder.with_prompt(prompt)?, ..self })
    }

    /// This pipeline with every vector brought to length 1 at the end, after it was cut where it
    /// is.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.normalizes = true;
        self
    }

    /// This pipeline with only the first so many numbers of each vector, or all of them (`None`).
    /// At first it is as config_sentence_transformers.json says (`truncate_dim`). What is left is
    /// not normalised again.
    #[must_use]
    pub fn with_truncate_dim(mut self, length: Option<usize>) -> Self {
        self.encoder.sentence.truncate_dim = length;
        self
    }

    /// What makes the vectors of the tokens' states: `mean pooling`, or `cls + max pooling`, and
    /// what comes before and after.
    pub fn recipe(&self) -> String {
        let own = self.encoder.sentence.recipe();
        match self.normalizes && !own.ends_with(NORMALIZED) {
            true => format!("{own}, {NORMALIZED}"),
            false => own,
        }
    }

    /// How the model's vectors are meant to be compared (`similarity_fn_name` of
    /// config_sentence_transformers.json).
    pub fn similarity(&self) -> Similarity {
        self.encoder.sentence.similarity
    }

    /// The vectors of all texts, in their order.
    ///
    /// # Errors
    /// As [`Pipeline::run_texts`].
    pub fn embed<T: AsText>(&self, texts: &[T]) -> Result<Vec<Vec<f32>>, PipelineError> {
        Ok(self.run(texts)?.into_iter().map(|output| output.prediction).collect())
    }

    /// The vectors of any number of texts, in bounded memory: [`Pipeline::run_iter`].
    pub fn embed_iter<I: IntoIterator<Item: AsText>>(&self, texts: I) -> RunIter<'_, Self, I::IntoIter> {
        self.run_iter(texts)
    }
}

/// A vector of length 1.
fn unit(vector: Vec<f32>) -> Result<Vec<f32>, PipelineError> {
    let row = Tensor::new(vector, &Device::Cpu)?.unsqueeze(0)?;
    Ok(normalize(&row)?.squeeze(0)?.to_vec1()?)
}

impl Pipeline for Embeddings {
    type Prediction = Vec<f32>;

    fn run_texts(&self, texts: &[Text<'_>]) -> Result<Vec<Output<Vec<f32>>>, PipelineError> {
        let (mut vectors, is_cut) = self.encoder.run(texts, 0, SENTENCE)?;
        if let Some(length) = self.encoder.sentence.truncate_dim {
            vectors.iter_mut().for_each(|vector| vector.truncate(length));
        }
        if self.normalizes {
            vectors = vectors.into_iter().map(unit).collect::<Result<_, _>>()?;
        }
        Ok(outputs(vectors, is_cut))
    }

    fn window(&self) -> usize {
        self.encoder.core.window()
    }
}
