//! Heads: what stands on a BERT for a task (Devlin et al. 2018, section 4). Each is one more layer, but that of the masked language model
//! (section 3.1, task 1), which is two.

mod classification;
mod for_task;
mod masked_lm;
mod question_answering;

use std::fmt::Debug;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use checkpoint::Checkpoint;

use crate::inputs::Given;
use crate::load::{refuse_no_labels, survey, var_builder};
use crate::taps::Taps;
use crate::{BertConfig, BertError, BertModel, BertOutput, Loaded, Task};

pub use classification::{
    MultipleChoice, NextSentencePrediction, SequenceClassification, TokenClassification,
};
pub use for_task::{BertForTask, TaskOutput};
pub use masked_lm::MaskedLm;
pub use question_answering::{QuestionAnswering, QuestionAnsweringOutput};

/// Labels for a text or a pair of texts: W p + b, with the pooled first token p. Gives logits `[batch, num_labels]`.
///
/// With one label it is a regression; a cross-encoder is that over pairs.
pub type BertForSequenceClassification = BertFor<SequenceClassification>;

/// A label for each token: W h + b. Gives logits `[batch, sequence, num_labels]`.
pub type BertForTokenClassification = BertFor<TokenClassification>;

/// Where the answer begins and ends: W h + b, with one row of W for either. Gives a [`QuestionAnsweringOutput`].
pub type BertForQuestionAnswering = BertFor<QuestionAnswering>;

/// Which token stands at each place. Gives logits `[batch, sequence, vocab_size]`.
///
/// ```text
/// t = LayerNorm(act(W h + b))      logits = E t + c
/// ```
///
/// E is the table of word embeddings, unless config.json says that `tie_word_embeddings` is false.
pub type BertForMaskedLM = BertFor<MaskedLm>;

/// Which of several continuations is the right one: W p + b for each. Takes inputs `[batch, choices, sequence]`, gives logits `[batch, choices]`.
/// What taps are shown has a row for each choice: `[batch · choices, …]`.
pub type BertForMultipleChoice = BertFor<MultipleChoice>;

/// Whether the second text follows the first (logit 0) or not (logit 1): W p + b. Gives logits `[batch, 2]`.
pub type BertForNextSentencePrediction = BertFor<NextSentencePrediction>;

/// A [`BertModel`] with a head. Cloning shares the weights.
///
/// ```
/// use candle_bert::{BertConfig, BertForTokenClassification};
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::VarBuilder;
///
/// let config = BertConfig::from_json(
///     br#"{"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
///          "id2label": {"0": "O", "1": "B-PER", "2": "I-PER"}}"#,
/// )?;
/// let model = BertForTokenClassification::load(VarBuilder::zeros(DType::F64, &Device::Cpu), &config)?;
/// let logits = model.forward(&Tensor::new(&[[2i64, 5, 7, 3]], &Device::Cpu)?, None, None)?;
/// assert_eq!(logits.dims(), [1, 4, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct BertFor<H> {
    bert: BertModel,
    head: H,
}

/// What the heads have in common. Nobody else can have it: its methods take types of this crate's own.
pub trait Head: Debug + Clone + Send + Sync + Sized + 'static {
    /// What it gives.
    type Output;

    /// What it is for.
    const TASK: Task;

    /// The paths of its modules, in the order of execution.
    const MODULES: &'static [&'static str];

    /// Reads its weights; `vb` stands beside the encoder.
    #[doc(hidden)]
    fn load(vb: VarBuilder, bert: &BertModel) -> Result<Self>;

    /// Its output for what the encoder gives. `leading` is the inputs' shape without its last axis.
    #[doc(hidden)]
    fn forward(&self, bert: BertOutput, leading: &[usize], taps: &mut Taps) -> Result<Self::Output>;

    /// An output by the names of [`Task::outputs`].
    #[doc(hidden)]
    fn named(output: Self::Output) -> Vec<(&'static str, Tensor)>;
}

impl<H: Head> BertFor<H> {
    /// Loads a model from where `vb` stands: the names of the encoder begin with `bert.` there, and the head's tensors stand beside it.
    ///
    /// [`BertFor::from_checkpoint`] finds other prefixes by itself, and lists everything that does not fit.
    ///
    /// # Errors
    /// If the config is contradictory, `vb` is not of a float dtype, or a tensor is missing or of another shape.
    pub fn load(vb: VarBuilder, config: &BertConfig) -> std::result::Result<Self, BertError> {
        Self::load_beside(vb.pp("bert"), vb, config)
    }

    /// Loads a model from a checkpoint, converting its float tensors to `dtype`. Prefixes and old names are understood as in
    /// [`BertModel::from_checkpoint`].
    ///
    /// # Errors
    /// If the config is contradictory; with the list of everything in the checkpoint that does not fit it ([`crate::Misfits`]); or if a masked language
    /// model has a decoder of its own where config.json says that it has none.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        config: &BertConfig,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Loaded<Self>, BertError> {
        config.validate()?;
        let survey = survey(checkpoint, config, H::TASK)?;
        let vb = var_builder(checkpoint, dtype, device);
        let at = |prefix: &str| match prefix.trim_end_matches('.') {
            "" => vb.clone(),
            prefix => vb.pp(prefix),
        };
        let model = Self::load_beside(at(survey.prefix), at(survey.head_prefix), config)?;
        Ok(Loaded { model, prefix: survey.prefix, unused: survey.unused })
    }

    fn load_beside(
        bert: VarBuilder,
        head: VarBuilder,
        config: &BertConfig,
    ) -> std::result::Result<Self, BertError> {
        refuse_no_labels(H::TASK, config)?;
        let bert = BertModel::load_for(H::TASK, bert, config)?;
        let head = H::load(head, &bert)?;
        Ok(Self { bert, head })
    }

    /// Runs the model on inputs as [`BertModel::forward`] takes them; those of a [`BertForMultipleChoice`] are `[batch, choices, sequence]`.
    ///
    /// # Errors
    /// As [`BertModel::forward`].
    pub fn forward(
        &self,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        token_type_ids: Option<&Tensor>,
    ) -> std::result::Result<H::Output, BertError> {
        self.run(Given { input_ids, attention_mask, token_type_ids }, &mut Taps::off())
    }

    /// [`BertFor::forward`], which also hands the output of every module to `visitor`, in the order of [`BertFor::module_paths`]; see
    /// [`BertModel::forward_with_taps`].
    ///
    /// # Errors
    /// As [`BertModel::forward_with_taps`].
    pub fn forward_with_taps(
        &self,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        token_type_ids: Option<&Tensor>,
        visitor: &mut dyn FnMut(&str, &Tensor) -> Result<()>,
    ) -> std::result::Result<H::Output, BertError> {
        self.run(Given { input_ids, attention_mask, token_type_ids }, &mut Taps::on(visitor))
    }

    fn run(&self, given: Given, taps: &mut Taps) -> std::result::Result<H::Output, BertError> {
        let inputs = self.bert.check(H::TASK.input_axes(), given)?;
        let output = self.bert.compute(&inputs, taps)?;
        Ok(self.head.forward(output, &inputs.leading, taps)?)
    }

    /// The path of every module whose output [`BertFor::forward_with_taps`] shows: those of the encoder, without `bert.`, then those of the head.
    pub fn module_paths(&self) -> Vec<String> {
        let head = H::MODULES.iter().map(ToString::to_string);
        self.bert.module_paths().into_iter().chain(head).collect()
    }

    /// The encoder, with its pooler if the head takes one.
    pub fn bert(&self) -> &BertModel {
        &self.bert
    }

    /// The sizes and choices of this model.
    pub fn config(&self) -> &BertConfig {
        self.bert.config()
    }
}

/// The pooled first token: `[rows, hidden]`.
fn pooled(output: BertOutput) -> Result<Tensor> {
    // A model whose head takes it is loaded with a pooler.
    output.pooler_output.ok_or_else(|| candle_core::Error::Msg("the model has no pooler".into()))
}
