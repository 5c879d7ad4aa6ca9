use candle_bert::Task;
use candle_core::{Device, Tensor};
use checkpoint::ModelFiles;
use tokenizers::Encoding;

use super::core::{Core, Need};
use super::runner::{RowOutput, Wanted};
use super::text_classification::outputs;
use super::{AsText, Options, Output, Pipeline, RunIter};
use crate::sentence::{Layer, Sentence};
use crate::tokenizer::{Cut, CutFrom};
use crate::{PipelineError, Pooling, Text, normalize};

const NEED: Need = Need { task: Task::FeatureExtraction, name: "embeddings", wanted: &[Wanted::HIDDEN] };
const NEED_WITH_POOLER: Need = Need { wanted: &[Wanted::HIDDEN, Wanted::POOLED], ..NEED };

/// One vector a text, as sentence-transformers' `encode` makes it: by the model's modules.json and the files beside it.
///
/// A model without these files gives the mean over its tokens. A model with them cuts texts that are too long, as they do, and
/// the output says so; without them such texts are refused.
pub struct Embeddings {
    core: Core,
    sentence: Sentence,
    prompt: Prompt,
}

/// What is put before every text.
#[derive(Debug, Clone, Default)]
struct Prompt {
    text: String,
    /// How many tokens of a row are the prompt's, `[CLS]` counted.
    tokens: usize,
}

impl Embeddings {
    /// The pipeline of a model: a folder, or the id of a model in the hub cache.
    ///
    /// # Errors
    /// If there is no such model, its files ask for what is not done here, or it cannot be run as the options ask.
    pub fn from_pretrained(model: &str, options: &Options) -> Result<Self, PipelineError> {
        Self::from_files(&ModelFiles::open(model)?, options)
    }

    /// The pipeline of a model whose files have been found.
    ///
    /// # Errors
    /// As [`Self::from_pretrained`].
    pub fn from_files(files: &ModelFiles, options: &Options) -> Result<Self, PipelineError> {
        Self::from_core(files, Core::open(files, NEED, options)?)
    }

    /// The pipeline with the model's own `pooler_output` in place of the pooling that its files ask for.
    ///
    /// # Errors
    /// As [`Self::from_pretrained`], and if the model has no pooler.
    pub fn with_pooler(files: &ModelFiles, options: &Options) -> Result<Self, PipelineError> {
        let mut pipeline = Self::from_core(files, Core::open(files, NEED_WITH_POOLER, options)?)?;
        pipeline.sentence.poolings = vec![Pooling::Pooler];
        Ok(pipeline)
    }

    /// The pipeline of a model that this engine runs; of the files all but the weights are read.
    ///
    /// # Errors
    /// If the engine does not give `last_hidden_state`, or a file is malformed.
    pub fn with_engine(
        files: &ModelFiles,
        engine: Box<dyn engine::Engine>,
        options: &Options,
    ) -> Result<Self, PipelineError> {
        Self::from_core(files, Core::with_engine(files, engine, NEED, options)?)
    }

    fn from_core(files: &ModelFiles, mut core: Core) -> Result<Self, PipelineError> {
        let sentence = Sentence::from_files(files)?;
        let longest = core.tokenizer.longest_row();
        let by_files = match (sentence.max_seq_length, longest) {
            (Some(length), Some(longest)) => Some(length.min(longest)),
            (length, longest) => length.or(longest),
        };
        let cuts =
            core.options.truncation.unwrap_or(sentence.is_declared || sentence.max_seq_length.is_some());
        if let Some(length) = by_files.filter(|_| cuts) {
            core.tokenizer = core.tokenizer.cutting(Cut { length, stride: 0, from: CutFrom::Longest })?;
        }
        let default = sentence.default_prompt.clone();
        let pipeline = Self { core, sentence, prompt: Prompt::default() };
        match default {
            Some(name) => pipeline.with_prompt_name(&name),
            None => Ok(pipeline),
        }
    }

    /// This pipeline with the prompt of that name before every text, by config_sentence_transformers.json. At first it is the one that is
    /// named there as the default.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn with_prompt_name(self, name: &str) -> Result<Self, PipelineError> {
        let Some(prompt) = self.sentence.prompts.get(name).cloned() else {
            let has = self.sentence.prompts.keys().cloned().collect();
            return Err(PipelineError::NoPrompt { name: name.to_owned(), has });
        };
        self.with_prompt(&prompt)
    }

    /// This pipeline with that text before every text; `""` for none.
    ///
    /// # Errors
    /// If it cannot be tokenized.
    pub fn with_prompt(mut self, prompt: &str) -> Result<Self, PipelineError> {
        let read = self.read(prompt);
        let row = self.core.tokenizer.rows(0, &Text::from(&read))?.0.into_iter().next();
        let tokens = row.map_or(0, |row| {
            let ends_special = row.get_ids().last().is_some_and(|&id| self.core.tokenizer.is_special(id));
            row.len() - usize::from(ends_special)
        });
        self.prompt = Prompt { text: prompt.to_owned(), tokens };
        Ok(self)
    }

    /// What makes the vectors of the tokens' states: `mean`, or `cls + max`, and what comes after.
    pub fn recipe(&self) -> String {
        let poolings: Vec<String> = self.sentence.poolings.iter().map(Pooling::to_string).collect();
        let mut recipe = format!("{} pooling", poolings.join(" + "));
        for layer in &self.sentence.layers {
            recipe += match layer {
                Layer::Dense(_) => ", dense",
                Layer::Normalize => ", normalized",
            };
        }
        recipe
    }

    /// What runs the model: `reference` for the checkpoint, or the engine of the graph.
    pub fn engine(&self) -> &str {
        self.core.engine()
    }

    /// Why the checkpoint runs and not the graph, where there is one.
    pub fn note(&self) -> Option<&str> {
        self.core.note()
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

    /// A text as it is read: without white space at its ends, and in lower case if the model's files ask for it.
    fn read(&self, text: &str) -> String {
        let text = text.trim();
        if self.sentence.lowers_case { text.to_lowercase() } else { text.to_owned() }
    }

    fn vector(&self, row: &Encoding, outputs: &[RowOutput<'_>]) -> Result<Vec<f32>, PipelineError> {
        let tensor = |output: &RowOutput<'_>, shape: &[usize]| {
            Tensor::from_slice(output.numbers, shape, &Device::Cpu).map_err(PipelineError::from)
        };
        let Some(states) = outputs.first() else { return Err(PipelineError::NoPoolerOutput) };
        let tokens = row.len();
        let pooled = outputs.get(1).map(|pooled| tensor(pooled, &[1, pooled.width])).transpose()?;
        let states = tensor(states, &[1, tokens, states.width])?;
        let excluded = if self.sentence.includes_prompt { 0 } else { self.prompt.tokens };
        let mask: Vec<u8> = (0..tokens).map(|at| u8::from(at >= excluded)).collect();
        let mask = Tensor::from_vec(mask, (1, tokens), &Device::Cpu)?;
        let vectors = self
            .sentence
            .poolings
            .iter()
            .map(|pooling| pooling.pool(&states, &mask, pooled.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut vector = Tensor::cat(&vectors, 1)?;
        for layer in &self.sentence.layers {
            vector = match layer {
                Layer::Dense(dense) => dense.forward(&vector)?,
                Layer::Normalize => normalize(&vector)?,
            };
        }
        Ok(vector.flatten_all()?.to_vec1()?)
    }
}

impl Pipeline for Embeddings {
    type Prediction = Vec<f32>;

    fn run_texts(&self, texts: &[Text<'_>]) -> Result<Vec<Output<Vec<f32>>>, PipelineError> {
        // The prompt stands before the first text of a pair.
        let read: Vec<(String, Option<String>)> = texts
            .iter()
            .map(|text| {
                let first = self.read(&format!("{}{}", self.prompt.text, text.first));
                (first, text.second.map(|second| self.read(second)))
            })
            .collect();
        let texts: Vec<Text<'_>> =
            read.iter().map(|(first, second)| Text { first, second: second.as_deref() }).collect();
        let (rows, is_cut) = self.core.encode(&texts)?;
        let mut vectors = vec![Vec::new(); texts.len()];
        self.core.runner.run(&rows, self.core.options.batch_size, &|row| row, &mut |number, outputs| {
            if let (Some(place), Some(row)) = (vectors.get_mut(number), rows.get(number)) {
                *place = self.vector(row, outputs)?;
            }
            Ok(())
        })?;
        Ok(outputs(vectors, is_cut))
    }

    fn window(&self) -> usize {
        self.core.window()
    }
}
