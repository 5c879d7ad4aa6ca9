use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use crate::attention::AttentionMask;
use crate::embeddings::Embeddings;
use crate::encoder::Encoder;
use crate::inputs::{Given, Inputs, TOKENS};
use crate::pooler::Pooler;
use crate::taps::{Taps, module_paths};
use crate::{BertConfig, BertError, Task};

/// A BERT encoder with its pooler, if it has one.
///
/// It is not generic over its dtype: that is decided when it is loaded. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct BertModel {
    embeddings: Embeddings,
    encoder: Encoder,
    pooler: Option<Pooler>,
    config: BertConfig,
    dtype: DType,
    device: Device,
}

/// What a [`BertModel`] computes, in the model's dtype.
#[derive(Debug, Clone)]
pub struct BertOutput {
    /// The hidden state of every token after the last layer: `[batch, sequence, hidden]`. At padding it means nothing.
    pub last_hidden_state: Tensor,
    /// The pooled first token: `[batch, hidden]`; `None` if the model has no pooler.
    pub pooler_output: Option<Tensor>,
}

impl BertModel {
    /// Loads a model from where `vb` stands: the names there begin with `embeddings.`, so that a prefix is the caller's
    /// to push. It has a pooler if `vb` has a tensor `pooler.dense.weight`.
    ///
    /// [`BertModel::from_checkpoint`] finds the prefix by itself, and lists everything that does not fit.
    ///
    /// # Errors
    /// If the config is contradictory, `vb` is not of a float dtype, or a tensor is missing or of another shape.
    pub fn load(vb: VarBuilder, config: &BertConfig) -> Result<Self, BertError> {
        Self::load_for(Task::FeatureExtraction, vb, config)
    }

    /// The encoder of a task's model, with the pooler that its head needs.
    pub(crate) fn load_for(task: Task, vb: VarBuilder, config: &BertConfig) -> Result<Self, BertError> {
        config.validate()?;
        let dtype = vb.dtype();
        if !matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
            return Err(BertError::ModelDType { found: dtype });
        }
        let pooler = vb.pp("pooler");
        let has_pooler = task.pooler().unwrap_or_else(|| Pooler::is_in(&pooler));
        Ok(Self {
            embeddings: Embeddings::load(vb.pp("embeddings"), config)?,
            encoder: Encoder::load(vb.pp("encoder"), config)?,
            pooler: has_pooler.then(|| Pooler::load(pooler, config)).transpose()?,
            config: config.clone(),
            dtype,
            device: vb.device().clone(),
        })
    }

    /// Runs the model.
    ///
    /// * `input_ids`: `[batch, sequence]`, tokens of the vocabulary;
    /// * `attention_mask`: the same shape, 1 for a token and 0 for padding; without it, nothing is padding;
    /// * `token_type_ids`: the same shape, the segment of each token; without it, all are of segment 0.
    ///
    /// All are integers of any dtype, on any device. Their values are checked, which reads them back from a device that
    /// is not the CPU. In a row whose mask is 0 throughout, every token attends to all of them equally, as in
    /// `transformers`.
    ///
    /// # Errors
    /// If an input has the wrong rank, shape, dtype, or a value outside its range, the sequence is longer than the
    /// model has positions for, or the device fails.
    pub fn forward(
        &self,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        token_type_ids: Option<&Tensor>,
    ) -> Result<BertOutput, BertError> {
        self.run(Given { input_ids, attention_mask, token_type_ids }, &mut Taps::off())
    }

    /// [`BertModel::forward`], which also hands the output of every module to `visitor`, in the order of
    /// [`BertModel::module_paths`].
    ///
    /// These are the tensors that a PyTorch forward hook on the module of that name is given (the first one, where a
    /// module gives several). All are `[batch, sequence, width]`, but `embeddings.position_embeddings`, which is `[1,
    /// sequence, hidden]`, and those of the pooler, which are `[batch, hidden]`.
    ///
    /// # Errors
    /// As [`BertModel::forward`], and whatever `visitor` returns, which ends the pass.
    pub fn forward_with_taps(
        &self,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        token_type_ids: Option<&Tensor>,
        visitor: &mut dyn FnMut(&str, &Tensor) -> candle_core::Result<()>,
    ) -> Result<BertOutput, BertError> {
        self.run(Given { input_ids, attention_mask, token_type_ids }, &mut Taps::on(visitor))
    }

    pub(crate) fn run(&self, given: Given, taps: &mut Taps) -> Result<BertOutput, BertError> {
        Ok(self.compute(&self.check(TOKENS, given)?, taps)?)
    }

    /// Checks inputs that have these axes.
    pub(crate) fn check(&self, axes: &'static [&'static str], given: Given) -> Result<Inputs, BertError> {
        Inputs::check(&self.config, &self.device, axes, given)
    }

    /// Runs the model on checked inputs. Rows are rows, whatever axes they had.
    pub(crate) fn compute(&self, inputs: &Inputs, taps: &mut Taps) -> candle_core::Result<BertOutput> {
        let mask =
            inputs.attention_mask.as_ref().map(|mask| AttentionMask::new(mask, self.dtype)).transpose()?;

        let embeddings = taps.module("embeddings", |taps| self.embeddings.forward(inputs, taps))?;
        let last_hidden_state =
            taps.module("encoder", |taps| self.encoder.forward(embeddings, mask.as_ref(), taps))?;
        let pooler_output = match &self.pooler {
            None => None,
            Some(pooler) => Some(taps.module("pooler", |taps| pooler.forward(&last_hidden_state, taps))?),
        };
        Ok(BertOutput { last_hidden_state, pooler_output })
    }

    /// The path of every module whose output [`BertModel::forward_with_taps`] shows, in the order of execution.
    pub fn module_paths(&self) -> Vec<String> {
        module_paths(&self.config, self.pooler.is_some())
    }

    /// The table of word embeddings: `[vocabulary, hidden]`.
    pub(crate) fn word_embeddings(&self) -> &Tensor {
        self.embeddings.words()
    }

    /// The sizes and choices of this model.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The dtype of its weights and outputs: `f16`, `bf16`, `f32` or `f64`.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether it has a pooler, and so gives a `pooler_output`.
    pub fn has_pooler(&self) -> bool {
        self.pooler.is_some()
    }
}

#[cfg(test)]
mod tests;
