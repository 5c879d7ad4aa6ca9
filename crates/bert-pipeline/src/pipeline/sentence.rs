//! What embeddings and rankings share: the transformer, and sentence-transformers' modules after
//! it.

use candle_bert::Task;
use candle_core::{Device, Tensor};
use checkpoint::ModelFiles;

use super::Options;
use super::core::{Core, Need};
use super::runner::{RowOutput, Wanted};
use crate::sentence::{Features, Kind, Output, SENTENCE, Sentence};
use crate::{PipelineError, Text};

/// A model of sentence-transformers' that is ready to run.
pub(super) struct Encoder {
    pub(super) core: Core,
    pub(super) sentence: Sentence,
    prompt: Prompt,
}

/// What is put before every text, or before the first of a pair.
#[derive(Debug, Clone, Default)]
struct Prompt {
    text: String,
    /// How many tokens of a row are the prompt's, `[CLS]` counted; none without a prompt.
    tokens: usize,
}

impl Encoder {
    /// The model by the engine that the options ask for, or by one of the caller's. `name` is what
    /// the pipeline is called, in errors.
    pub(super) fn new(
        files: &ModelFiles,
        kind: Kind,
        name: &'static str,
        engine: Option<Box<dyn engine::Engine>>,
        options: &Options,
    ) -> Result<Self, PipelineError> {
        let sentence = Sentence::from_files(files, kind)?;
        let need = need(&sentence, name);
        Self::with_need(files, sentence, kind, need, engine, options)
    }

    /// With the model's own `pooler_output` in place of every pooling that the files ask for.
    pub(super) fn with_pooler(
        files: &ModelFiles,
        name: &'static str,
        options: &Options,
    ) -> Result<Self, PipelineError> {
        let kind = Kind::SentenceTransformer;
        let mut sentence = Sentence::from_files(files, kind)?;
        sentence.program.pool_by_the_pooler();
        let wanted: &[Wanted] = &[Wanted::HIDDEN, Wanted::POOLED];
        let need = Need { wanted, preferred: None, ..need(&sentence, name) };
        Self::with_need(files, sentence, kind, need, None, options)
    }

    fn with_need(
        files: &ModelFiles,
        mut sentence: Sentence,
        kind: Kind,
        need: Need,
        engine: Option<Box<dyn engine::Engine>>,
        options: &Options,
    ) -> Result<Self, PipelineError> {
        let mut core = Core::new(files, engine, need, options)?;
        if core.runner.takes(SENTENCE) {
            sentence.is_given();
        }
        if sentence.transformer.lowers_case {
            core.tokenizer = core.tokenizer.lowering()?;
        }
        // What the files say of lengths is how the model is meant to be used; a model without them
        // refuses what is too long.
        let cuts =
            kind == Kind::CrossEncoder || sentence.is_declared || sentence.transformer.max_length.is_some();
        core.cut_if(sentence.longest_row(&core.tokenizer).filter(|_| cuts))?;
        let default = sentence.default_prompt.clone();
        let this = Self { core, sentence, prompt: Prompt::default() };
        match default {
            Some(name) => this.with_prompt_name(&name),
            None => Ok(this),
        }
    }

    pub(super) fn with_prompt_name(self, name: &str) -> Result<Self, PipelineError> {
        let prompt = self.sentence.prompt(name)?.to_owned();
        self.with_prompt(&prompt)
    }

    pub(super) fn with_prompt(mut self, prompt: &str) -> Result<Self, PipelineError> {
        self.prompt = Prompt { text: prompt.to_owned(), tokens: 0 };
        if prompt.is_empty() {
            return Ok(self);
        }
        let row = self.core.tokenizer.rows(0, &Text::from(prompt))?.0.into_iter().next();
        self.prompt.tokens = row.map_or(0, |row| {
            let ends_special = row.get_ids().last().is_some_and(|&id| self.core.tokenizer.is_special(id));
            row.len() - usize::from(ends_special)
        });
        Ok(self)
    }

    /// A feature of each text, with whether the text was cut. `first` is the number of the first
    /// text, for errors.
    pub(super) fn run(
        &self,
        texts: &[Text<'_>],
        first: usize,
        feature: &str,
    ) -> Result<(Vec<Vec<f32>>, Vec<bool>), PipelineError> {
        let prompted: Vec<String> =
            texts.iter().map(|text| format!("{}{}", self.prompt.text, text.first)).collect();
        let texts: Vec<Text<'_>> = prompted
            .iter()
            .zip(texts)
            .map(|(prompted, text)| Text { first: prompted, second: text.second })
            .collect();
        let (rows, is_cut) = self.core.encode(&texts).map_err(|error| error.counted_from(first))?;
        let features = self.core.runner.run(
            &rows,
            |row| first + row,
            |_, row, outputs| self.feature(row.len(), outputs, feature),
        )?;
        Ok((features, is_cut))
    }

    fn feature(
        &self,
        tokens: usize,
        outputs: &[RowOutput<'_>],
        feature: &str,
    ) -> Result<Vec<f32>, PipelineError> {
        let tensor = |output: &RowOutput<'_>, shape: &[usize]| {
            Tensor::from_slice(output.numbers, shape, &Device::Cpu).map_err(PipelineError::from)
        };
        let Some(output) = outputs.first() else { return Err(PipelineError::NoPoolerOutput) };
        let output = match self.sentence.transformer.output {
            Output::Hidden => tensor(output, &[1, tokens, output.width])?,
            Output::Pooled | Output::Logits | Output::Vector => tensor(output, &[1, output.width])?,
        };
        let pooled = outputs.get(1).map(|pooled| tensor(pooled, &[1, pooled.width])).transpose()?;
        let features = Features::new(tokens, self.prompt.tokens, pooled)?;
        self.sentence.program.run(output, features, feature)
    }
}

/// What the transformer must give.
fn need(sentence: &Sentence, name: &'static str) -> Need {
    let (task, wanted): (_, &'static [Wanted]) = match sentence.transformer.output {
        Output::Hidden if sentence.program.changes_tokens() => {
            (Task::FeatureExtraction, &[Wanted::UNCHANGED_HIDDEN])
        }
        Output::Hidden => (Task::FeatureExtraction, &[Wanted::HIDDEN]),
        Output::Pooled => (Task::FeatureExtraction, &[Wanted::POOLED]),
        Output::Vector => (Task::FeatureExtraction, &[Wanted::VECTOR]),
        Output::Logits => (Task::SequenceClassification, &[Wanted::LABELS]),
    };
    // Without a list of modules, a graph that gives a text's vector itself knows better how it is
    // made.
    let guesses = !sentence.is_declared && sentence.transformer.output == Output::Hidden;
    let preferred: Option<&'static [Wanted]> = guesses.then_some(&[Wanted::VECTOR]);
    Need { preferred, ..Need::new(task, name, wanted) }
}
