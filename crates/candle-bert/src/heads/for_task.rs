use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use checkpoint::Checkpoint;

use super::{
    BertFor, BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForQuestionAnswering,
    BertForSequenceClassification, BertForTokenClassification, Head,
};
use crate::inputs::Given;
use crate::taps::Taps;
use crate::{BertConfig, BertError, BertModel, Loaded, Task};

/// A model for a task that is known only when the program runs: a [`BertModel`] or any [`BertFor`]. Cloning shares the weights.
///
/// ```
/// use candle_bert::{BertConfig, BertForTask, Task};
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::VarBuilder;
///
/// let config = BertConfig::from_json(
///     br#"{"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
///          "architectures": ["BertForQuestionAnswering"]}"#,
/// )?;
/// let model = BertForTask::load(Task::of(&config)?, VarBuilder::zeros(DType::F64, &Device::Cpu), &config)?;
/// let output = model.forward(&Tensor::new(&[[2i64, 5, 7, 3]], &Device::Cpu)?, None, None)?;
/// assert_eq!(output.names().collect::<Vec<_>>(), ["start_logits", "end_logits"]);
/// assert_eq!(output.get("end_logits").unwrap().dims(), [1, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct BertForTask(Arc<dyn Model>);

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
}

/// What all models have in common.
trait Model: Debug + Send + Sync {
    fn task(&self) -> Task;
    fn bert(&self) -> &BertModel;
    fn module_paths(&self) -> Vec<String>;
    fn run(&self, given: Given, taps: &mut Taps) -> Result<TaskOutput, BertError>;
}

impl Model for BertModel {
    fn task(&self) -> Task {
        Task::FeatureExtraction
    }

    fn bert(&self) -> &BertModel {
        self
    }

    fn module_paths(&self) -> Vec<String> {
        self.module_paths()
    }

    fn run(&self, given: Given, taps: &mut Taps) -> Result<TaskOutput, BertError> {
        let output = self.run(given, taps)?;
        let pooled = output.pooler_output.map(|pooled| ("pooler_output", pooled));
        let hidden = ("last_hidden_state", output.last_hidden_state);
        Ok(TaskOutput([hidden].into_iter().chain(pooled).collect()))
    }
}

impl<H: Head> Model for BertFor<H> {
    fn task(&self) -> Task {
        H::TASK
    }

    fn bert(&self) -> &BertModel {
        self.bert()
    }

    fn module_paths(&self) -> Vec<String> {
        self.module_paths()
    }

    fn run(&self, given: Given, taps: &mut Taps) -> Result<TaskOutput, BertError> {
        self.run(given, taps).map(|output| TaskOutput(H::named(output)))
    }
}

impl From<BertModel> for BertForTask {
    fn from(model: BertModel) -> Self {
        Self(Arc::new(model))
    }
}

impl<H: Head> From<BertFor<H>> for BertForTask {
    fn from(model: BertFor<H>) -> Self {
        Self(Arc::new(model))
    }
}

/// Calls a function of the class that a task has, and makes what it gives a [`BertForTask`].
macro_rules! of_its_class {
    ($task:expr, $function:ident($($argument:expr),*), $into:expr) => {
        match $task {
            Task::FeatureExtraction => $into(BertModel::$function($($argument),*)?),
            Task::SequenceClassification => $into(BertForSequenceClassification::$function($($argument),*)?),
            Task::TokenClassification => $into(BertForTokenClassification::$function($($argument),*)?),
            Task::QuestionAnswering => $into(BertForQuestionAnswering::$function($($argument),*)?),
            Task::MaskedLm => $into(BertForMaskedLM::$function($($argument),*)?),
            Task::MultipleChoice => $into(BertForMultipleChoice::$function($($argument),*)?),
            Task::NextSentencePrediction => $into(BertForNextSentencePrediction::$function($($argument),*)?),
        }
    };
}

fn loaded<M: Into<BertForTask>>(Loaded { model, prefix, unused }: Loaded<M>) -> Loaded<BertForTask> {
    Loaded { model: model.into(), prefix, unused }
}

impl BertForTask {
    /// Loads the model of a task from where `vb` stands: as [`BertModel::load`] for features, as [`BertFor::load`] for any other task.
    ///
    /// # Errors
    /// As those.
    pub fn load(task: Task, vb: VarBuilder, config: &BertConfig) -> Result<Self, BertError> {
        Ok(of_its_class!(task, load(vb, config), Self::from))
    }

    /// Loads the model of a task from a checkpoint. [`Task::of`] tells which task it was saved for.
    ///
    /// # Errors
    /// As [`BertFor::from_checkpoint`].
    pub fn from_checkpoint(
        task: Task,
        checkpoint: &Checkpoint,
        config: &BertConfig,
        dtype: DType,
        device: &Device,
    ) -> Result<Loaded<Self>, BertError> {
        Ok(of_its_class!(task, from_checkpoint(checkpoint, config, dtype, device), loaded))
    }

    /// Runs the model on inputs as [`BertModel::forward`] takes them, with the axes of [`Task::input_axes`].
    ///
    /// # Errors
    /// As [`BertModel::forward`].
    pub fn forward(
        &self,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        token_type_ids: Option<&Tensor>,
    ) -> Result<TaskOutput, BertError> {
        self.0.run(Given { input_ids, attention_mask, token_type_ids }, &mut Taps::off())
    }

    /// [`BertForTask::forward`], which also hands the output of every module to `visitor`, in the order of [`BertForTask::module_paths`]; see
    /// [`BertModel::forward_with_taps`].
    ///
    /// # Errors
    /// As [`BertModel::forward_with_taps`].
    pub fn forward_with_taps(
        &self,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        token_type_ids: Option<&Tensor>,
        visitor: &mut dyn FnMut(&str, &Tensor) -> candle_core::Result<()>,
    ) -> Result<TaskOutput, BertError> {
        self.0.run(Given { input_ids, attention_mask, token_type_ids }, &mut Taps::on(visitor))
    }

    /// The path of every module whose output [`BertForTask::forward_with_taps`] shows, in the order of execution.
    pub fn module_paths(&self) -> Vec<String> {
        self.0.module_paths()
    }

    /// What it is for.
    pub fn task(&self) -> Task {
        self.0.task()
    }

    /// The encoder.
    pub fn bert(&self) -> &BertModel {
        self.0.bert()
    }

    /// The sizes and choices of this model.
    pub fn config(&self) -> &BertConfig {
        self.bert().config()
    }

    /// The dtype of its weights and outputs: `f16`, `bf16`, `f32` or `f64`.
    pub fn dtype(&self) -> DType {
        self.bert().dtype()
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        self.bert().device()
    }
}
