//! Heads: what stands on an encoder for a task. The description of the family has what each is made
//! of.

use std::fmt::Debug;
use std::marker::PhantomData;

use architecture::{BindError, Family, Program, Task};
use candle_blocks::{Loaded, Model, ModelError};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use checkpoint::Checkpoint;

use crate::EncoderModel;
use crate::model::{Visitor, given};

/// An [`EncoderModel`] with a head: `C` is the family's config, `H` the head. Cloning shares the
/// weights.
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
pub struct EncoderFor<C, H> {
    model: EncoderForTask<C>,
    head: PhantomData<H>,
}

/// What a head is for, and what it gives.
pub trait Head: Debug + Clone + Send + Sync + Sized + 'static {
    /// What it gives.
    type Output;

    /// What it is for.
    const TASK: Task;

    /// Its output, of the tensors by the names of [`Task::outputs`]; nothing if one is missing.
    #[doc(hidden)]
    fn output(tensors: TaskOutput) -> Option<Self::Output>;
}

/// How likely the answer begins, and ends, at each token, before any softmax; both `[batch,
/// sequence]`. At padding they mean nothing.
#[derive(Debug, Clone)]
pub struct QuestionAnsweringOutput {
    /// Where it begins.
    pub start_logits: Tensor,
    /// Where it ends: its last token.
    pub end_logits: Tensor,
}

/// Where the answer begins and ends: W h + b, with one row of W for either. Gives a
/// [`QuestionAnsweringOutput`].
#[derive(Debug, Clone)]
pub struct QuestionAnswering;

impl Head for QuestionAnswering {
    type Output = QuestionAnsweringOutput;

    const TASK: Task = Task::QuestionAnswering;

    fn output(tensors: TaskOutput) -> Option<QuestionAnsweringOutput> {
        let [start_logits, end_logits] = tensors.tensors()?;
        Some(QuestionAnsweringOutput { start_logits, end_logits })
    }
}

/// Heads that give logits.
macro_rules! heads {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name;

        impl Head for $name {
            type Output = Tensor;

            const TASK: Task = Task::$name;

            fn output(tensors: TaskOutput) -> Option<Tensor> {
                let [logits] = tensors.tensors()?;
                Some(logits)
            }
        }
    )*};
}

heads! {
    /// Labels for a text or a pair of texts, from its first token. Gives logits `[batch,
    /// num_labels]`.
    ///
    /// With one label it is a regression; a cross-encoder is that over pairs.
    SequenceClassification;
    /// A label for each token: W h + b. Gives logits `[batch, sequence, num_labels]`.
    TokenClassification;
    /// Which of several continuations is the right one: a number for each, from its first token.
    /// Takes inputs `[batch, choices, sequence]`, gives logits `[batch, choices]`. What taps are
    /// shown has a row for each choice: `[batch · choices, …]`.
    MultipleChoice;
    /// Whether the second text follows the first (logit 0) or not (logit 1): W p + b. Gives logits
    /// `[batch, 2]`.
    NextSentencePrediction;
    /// Which token stands at each place. Gives logits `[batch, sequence, vocab_size]`.
    ///
    /// ```text
    /// t = LayerNorm(act(W h + b))      logits = E t + c
    /// ```
    ///
    /// E is the table of word embeddings, unless config.json says that `tie_word_embeddings` is
    /// false.
    MaskedLm;
}

impl<C: Family + Clone, H: Head> EncoderFor<C, H> {
    /// Loads a model from where `vb` stands: the names of the encoder begin with the family's own
    /// there, such as `bert.`, and the head's tensors stand beside it.
    ///
    /// [`EncoderFor::from_checkpoint`] finds other prefixes by itself, and lists everything that
    /// does not fit.
    ///
    /// # Errors
    /// If the config is contradictory, `vb` is not of a float dtype, or a tensor is missing or of another shape.
    pub fn load(vb: VarBuilder, config: &C) -> Result<Self, ModelError> {
        Ok(Self::of(EncoderForTask::load(H::TASK, vb, config)?))
    }

    /// Loads a model from a checkpoint, converting its float tensors to `dtype`. Prefixes and old names are understood as in
    /// [`EncoderModel::from_checkpoint`].
    ///
    /// # Errors
    /// If the config is contradictory; with the list of everything in the checkpoint that does not fit it ([`crate::Misfits`]); or if a masked language
    /// model has a decoder of its own where config.json says that it has none.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        config: &C,
        dtype: DType,
        device: &Device,
    ) -> Result<Loaded<Self>, ModelError> {
        Ok(EncoderForTask::from_checkpoint(H::TASK, checkpoint, config, dtype, device)?.map(Self::of))
    }

    fn of(model: EncoderForTask<C>) -> Self {
        Self { model, head: PhantomData }
    }

    /// Runs the model on inputs as [`EncoderModel::forward`] takes them; those of
    /// [`MultipleChoice`] are `[batch, choices, sequence]`.
    ///
    /// # Errors
    /// As [`EncoderModel::forward`].
    pub fn forward(
        &self,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        token_type_ids: Option<&Tensor>,
    ) -> Result<H::Output, ModelError> {
        Self::output(self.model.forward(input_ids, attention_mask, token_type_ids)?)
    }

    /// [`EncoderFor::forward`], which also hands the output of every module to `visitor`, in the
    /// order of [`EncoderFor::module_paths`]; see [`EncoderModel::forward_with_taps`].
    ///
    /// # Errors
    /// As [`EncoderModel::forward_with_taps`].
    pub fn forward_with_taps(
        &self,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        token_type_ids: Option<&Tensor>,
        visitor: &mut Visitor<'_>,
    ) -> Result<H::Output, ModelError> {
        Self::output(self.model.forward_with_taps(input_ids, attention_mask, token_type_ids, visitor)?)
    }

    fn output(tensors: TaskOutput) -> Result<H::Output, ModelError> {
        let missing = || candle_core::Error::Msg("the model lacks an output".into()).into();
        H::output(tensors).ok_or_else(missing)
    }

    /// The path of every module whose output [`EncoderFor::forward_with_taps`] shows: those of the
    /// encoder, without that prefix, then those of the head.
    pub fn module_paths(&self) -> Vec<String> {
        self.model.module_paths()
    }

    /// The encoder, with its pooler if the head takes one.
    pub fn encoder(&self) -> &EncoderModel<C> {
        self.model.encoder()
    }

    /// The sizes and choices of this model.
    pub fn config(&self) -> &C {
        self.model.config()
    }
}

impl<C, H> From<EncoderFor<C, H>> for EncoderForTask<C> {
    fn from(model: EncoderFor<C, H>) -> Self {
        model.model
    }
}

impl<C, H> From<EncoderFor<C, H>> for Model {
    fn from(model: EncoderFor<C, H>) -> Self {
        model.model.model
    }
}

/// A model for a task that is known only when the program runs: an [`EncoderModel`] or any
/// [`EncoderFor`]. Cloning shares the weights.
///
/// ```
/// use candle_bert::{BertConfig, BertForTask, Family};
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::VarBuilder;
///
/// let config = BertConfig::from_json(
///     br#"{"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
///          "architectures": ["BertForQuestionAnswering"]}"#,
/// )?;
/// let model = BertForTask::load(config.task()?, VarBuilder::zeros(DType::F64, &Device::Cpu), &config)?;
/// let output = model.forward(&Tensor::new(&[[2i64, 5, 7, 3]], &Device::Cpu)?, None, None)?;
/// assert_eq!(output.names().collect::<Vec<_>>(), ["start_logits", "end_logits"]);
/// assert_eq!(output.get("end_logits").unwrap().dims(), [1, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct EncoderForTask<C> {
    model: Model,
    encoder: EncoderModel<C>,
    task: Task,
}

/// What a model gives: tensors by the names of [`Task::outputs`].
#[derive(Debug, Clone)]
pub struct TaskOutput(Vec<(&'static str, Tensor)>);

impl TaskOutput {
    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.iter().find(|(known, _)| *known == name).map(|(_, tensor)| tensor)
    }

    /// The names, in the order of [`Task::outputs`].
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|&(name, _)| name)
    }

    /// Names and tensors, in the same order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (*name, tensor))
    }

    /// All tensors, if they are as many.
    fn tensors<const N: usize>(self) -> Option<[Tensor; N]> {
        self.0.into_iter().map(|(_, tensor)| tensor).collect::<Vec<_>>().try_into().ok()
    }
}

impl<C: Clone> From<EncoderModel<C>> for EncoderForTask<C> {
    fn from(encoder: EncoderModel<C>) -> Self {
        Self { model: encoder.clone().into(), encoder, task: Task::FeatureExtraction }
    }
}

impl<C> From<EncoderForTask<C>> for Model {
    fn from(model: EncoderForTask<C>) -> Self {
        model.model
    }
}

impl<C: Family + Clone> EncoderForTask<C> {
    /// Loads the model of a task from where `vb` stands: as [`EncoderModel::load`] for features, as
    /// [`EncoderFor::load`] for any other task.
    ///
    /// # Errors
    /// As those.
    pub fn load(task: Task, vb: VarBuilder, config: &C) -> Result<Self, ModelError> {
        let base = if task == Task::FeatureExtraction { vb.clone() } else { vb.pp(config.base()) };
        let program = config.program(task, &|name| base.contains_tensor(name)).map_err(BindError::Config)?;
        Self::of(Model::load(program, &base, &vb)?, task, config)
    }

    /// Loads the model of a task from a checkpoint. [`architecture::Family::task`] tells which task
    /// it was saved for.
    ///
    /// # Errors
    /// As [`EncoderFor::from_checkpoint`].
    pub fn from_checkpoint(
        task: Task,
        checkpoint: &Checkpoint,
        config: &C,
        dtype: DType,
        device: &Device,
    ) -> Result<Loaded<Self>, ModelError> {
        let loaded = Model::from_checkpoint(checkpoint, config, task, dtype, device)?;
        let Loaded { model, prefix, unused } = loaded;
        Ok(Loaded { model: Self::of(model, task, config)?, prefix, unused })
    }

    fn of(model: Model, task: Task, config: &C) -> Result<Self, ModelError> {
        let has = |name: &str| model.program().tensors.iter().any(|tensor| tensor.name == name);
        let program = config.program(Task::FeatureExtraction, &has).map_err(BindError::Config)?;
        let missing = || candle_core::Error::Msg("the model lacks a part of its encoder".into());
        let encoder = EncoderModel::of(model.part(program).ok_or_else(missing)?, config);
        Ok(Self { model, encoder, task })
    }

    /// Runs the model on inputs as [`EncoderModel::forward`] takes them, with the axes of
    /// [`Task::input_axes`].
    ///
    /// # Errors
    /// As [`EncoderModel::forward`].
    pub fn forward(
        &self,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        token_type_ids: Option<&Tensor>,
    ) -> Result<TaskOutput, ModelError> {
        Ok(TaskOutput(self.model.run(&given(input_ids, attention_mask, token_type_ids), None)?))
    }

    /// [`EncoderForTask::forward`], which also hands the output of every module to `visitor`, in
    /// the order of [`EncoderForTask::module_paths`]; see [`EncoderModel::forward_with_taps`].
    ///
    /// # Errors
    /// As [`EncoderModel::forward_with_taps`].
    pub fn forward_with_taps(
        &self,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        token_type_ids: Option<&Tensor>,
        visitor: &mut Visitor<'_>,
    ) -> Result<TaskOutput, ModelError> {
        let given = given(input_ids, attention_mask, token_type_ids);
        Ok(TaskOutput(self.model.run(&given, Some(visitor))?))
    }

    /// The path of every module whose output [`EncoderForTask::forward_with_taps`] shows, in the
    /// order of execution.
    pub fn module_paths(&self) -> Vec<String> {
        self.program().module_paths().map(String::from).collect()
    }

    /// What it is made of.
    pub fn program(&self) -> &Program {
        self.model.program()
    }

    /// What it is for.
    pub fn task(&self) -> Task {
        self.task
    }

    /// The encoder, with its pooler if the head takes one.
    pub fn encoder(&self) -> &EncoderModel<C> {
        &self.encoder
    }

    /// The sizes and choices of this model.
    pub fn config(&self) -> &C {
        self.encoder.config()
    }

    /// The dtype of its weights and outputs: `f16`, `bf16`, `f32` or `f64`.
    pub fn dtype(&self) -> DType {
        self.model.dtype()
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        self.model.device()
    }
}
