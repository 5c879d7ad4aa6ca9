//! From texts to answers: a pipeline for each task, over a model's checkpoint or its graph.
//!
//! The results are those that transformers' pipelines of the same names give (4.57), and for [`Embeddings`] and [`TextRanking`] those of
//! sentence-transformers' `encode` and `rank`: the same fields in the same order, and scores within 1e-5. Serialised with serde they are
//! the same JSON. Offsets are in characters.
//!
//! ```no_run
//! use bert_pipeline::pipeline::{Aggregation, Options, Pipeline, TokenClassification};
//!
//! let ner = TokenClassification::from_pretrained("dslim/bert-base-NER", &Options::default())?
//!     .with_aggregation(Aggregation::Simple)?;
//! for entity in ner.run_one("Wolfgang lives in Berlin")?.iter() {
//!     println!("{} {}..{} {:?}", entity.word, entity.start, entity.end, entity.entity_group);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Whatever runs the model, the pipeline is the same. Here it is a checkpoint of zeros, which has no opinion:
//!
//! ```
//! use bert_pipeline::pipeline::{Options, Pipeline, TextClassification};
//! use candle_bert::{BertConfig, BertForTask, ReferenceEngine, Task};
//! use candle_core::{DType, Device};
//! use candle_nn::VarBuilder;
//! use checkpoint::ModelFiles;
//!
//! let config = r#"{"vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4,
//!     "architectures": ["BertForSequenceClassification"], "id2label": {"0": "sad", "1": "happy"}}"#;
//! let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nhappy\nperson\nun\n##happy\n";
//! let files = ModelFiles::from_memory("zeros", [("config.json", config.into()), ("vocab.txt", vocabulary.into())]);
//!
//! let zeros = VarBuilder::zeros(DType::F32, &Device::Cpu);
//! let model = BertForTask::load(Task::SequenceClassification, zeros, &BertConfig::from_json(config.as_bytes())?)?;
//! let engine = Box::new(ReferenceEngine::new(model));
//! let pipeline = TextClassification::with_engine(&files, engine, &Options::default())?.with_top_k(None);
//!
//! let labels = pipeline.run_one("an unhappy person")?;
//! assert_eq!((labels[0].label.as_str(), labels[0].score), ("sad", 0.5));
//! assert_eq!((labels[1].label.as_str(), labels[1].score), ("happy", 0.5));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Texts of like length are run together and come back in the order they were given; [`Pipeline::run_iter`] does that for any number of
//! texts in bounded memory. A result does not depend on which texts are beside it, but for rounding.

mod core;
mod embeddings;
mod feature_extraction;
mod fill_mask;
mod iter;
mod multiple_choice;
mod options;
mod question_answering;
mod runner;
mod sentence;
mod text_classification;
mod text_ranking;
mod token_classification;

use std::ops::Deref;

use serde::{Serialize, Serializer};

use crate::{PipelineError, Text};

pub use self::core::task_of;
pub use embeddings::Embeddings;
pub use feature_extraction::FeatureExtraction;
pub use fill_mask::{FillMask, Filled, Fillings};
pub use iter::{AsText, RunIter};
pub use multiple_choice::{Choice, MultipleChoice};
pub use options::{EngineChoice, Options};
pub use question_answering::{Answer, Answers, QuestionAnswering};
pub use text_classification::{Label, ScoreFunction, TextClassification};
pub use text_ranking::{Ranked, TextRanking};
pub use token_classification::{Aggregation, Entity, TokenClassification};

/// What is predicted for a text. It serialises as the prediction alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Output<T> {
    /// The prediction.
    pub prediction: T,
    /// Whether the text was longer than the model takes, so that its end was not read.
    #[serde(skip)]
    pub truncated: bool,
}

impl<T> Deref for Output<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.prediction
    }
}

/// A list of one as the one that it has, as transformers gives it.
fn one_or_all<T: Serialize, S: Serializer>(list: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    match list {
        [one] => one.serialize(serializer),
        all => all.serialize(serializer),
    }
}

/// A pipeline from single texts, or pairs of texts, to a prediction for each.
pub trait Pipeline {
    /// What is predicted for a text.
    type Prediction;

    /// The predictions for all texts, in their order.
    ///
    /// # Errors
    /// If a text is not one the task can take, or the model fails. It names the text.
    fn run_texts(&self, texts: &[Text<'_>]) -> Result<Vec<Output<Self::Prediction>>, PipelineError>;

    /// How many texts an iteration reads ahead.
    fn window(&self) -> usize;

    /// The predictions for all texts, in their order: `&["a text"]`, `&strings`, `&[("a text", "and its pair")]`.
    ///
    /// # Errors
    /// As [`Pipeline::run_texts`].
    fn run<T: AsText>(&self, texts: &[T]) -> Result<Vec<Output<Self::Prediction>>, PipelineError> {
        let texts: Vec<Text<'_>> = texts.iter().map(AsText::as_text).collect();
        self.run_texts(&texts)
    }

    /// The prediction for one text.
    ///
    /// # Errors
    /// As [`Pipeline::run_texts`].
    fn run_one(&self, text: impl AsText) -> Result<Output<Self::Prediction>, PipelineError> {
        self.run_texts(&[text.as_text()])?.pop().ok_or(PipelineError::NoTexts)
    }

    /// The predictions for any number of texts, in their order, read as they are wanted. At most [`Pipeline::window`] texts and their
    /// predictions are in memory at once. After an error there is nothing more.
    fn run_iter<I>(&self, texts: I) -> RunIter<'_, Self, I::IntoIter>
    where
        I: IntoIterator<Item: AsText>,
    {
        RunIter::new(self, texts.into_iter())
    }
}

/// The ways to make a pipeline that all of them have. `$new` makes it of its files, of the caller's
/// engine where there is one, and of options; `$core` is where its `Core` lies.
macro_rules! constructors {
    ($pipeline:ident) => {
        constructors!($pipeline, core, |files, engine, options| {
            Self::of($crate::pipeline::core::Core::new(files, engine, NEED, options)?)
        });
    };
    ($pipeline:ident, $($core:ident).+, $new:expr) => {
        impl $pipeline {
            /// The pipeline of a model: a folder, or the id of a model in the hub cache.
            ///
            /// # Errors
            /// If there is no such model, it is not one for this task, or cannot be run as the options ask.
            pub fn from_pretrained(
                model: &str,
                options: &$crate::pipeline::Options,
            ) -> Result<Self, $crate::PipelineError> {
                Self::from_files(&checkpoint::ModelFiles::open(model)?, options)
            }

            /// The pipeline of a model whose files have been found.
            ///
            /// # Errors
            /// As [`Self::from_pretrained`].
            pub fn from_files(
                files: &checkpoint::ModelFiles,
                options: &$crate::pipeline::Options,
            ) -> Result<Self, $crate::PipelineError> {
                $new(files, None, options)
            }

            /// The pipeline of a model that this engine runs; of the files all is read that the
            /// task needs beside the transformer's weights. Any graph will do that has its outputs.
            ///
            /// # Errors
            /// If the engine does not give what the task needs, or a file is malformed.
            pub fn with_engine(
                files: &checkpoint::ModelFiles,
                engine: Box<dyn engine::Engine>,
                options: &$crate::pipeline::Options,
            ) -> Result<Self, $crate::PipelineError> {
                $new(files, Some(engine), options)
            }

            /// What runs the model: `reference` for the checkpoint, or the engine of the graph.
            pub fn engine(&self) -> &str {
                self.$($core).+.runner.engine.name()
            }

            /// Why the checkpoint runs and not the graph, where there is one.
            pub fn note(&self) -> Option<&str> {
                self.$($core).+.note.as_deref()
            }
        }
    };
}
pub(crate) use constructors;
