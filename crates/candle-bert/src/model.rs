use architecture::{BindError, Family, Program, Task};
use candle_blocks::{Loaded, Model, ModelError};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use checkpoint::Checkpoint;

/// The encoder of a family, with its pooler if it has one: `C` is the family's config.
///
/// It is not generic over its dtype: that is decided when it is loaded. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct EncoderModel<C> {
    model: Model,
    config: C,
}

/// What an [`EncoderModel`] computes, in the model's dtype.
#[derive(Debug, Clone)]
pub struct EncoderOutput {
    /// The hidden state of every token after the last layer: `[batch, sequence, hidden]`. At padding it means nothing.
    pub last_hidden_state: Tensor,
    /// The pooled first token: `[batch, hidden]`; `None` if the model has no pooler.
    pub pooler_output: Option<Tensor>,
}

/// A visitor of modules, as [`EncoderModel::forward_with_taps`] takes one.
pub(crate) type Visitor<'a> = dyn FnMut(&str, &Tensor) -> candle_core::Result<()> + 'a;

impl<C: Family + Clone> EncoderModel<C> {
    /// Loads a model from where `vb` stands: the names there begin with `embeddings.`, so that a prefix is the caller's
    /// to push. It has a pooler if `vb` has a tensor of one.
    ///
    /// [`EncoderModel::from_checkpoint`] finds the prefix by itself, and lists everything that does
    /// not fit.
    ///
    /// # Errors
    /// If the config is contradictory, `vb` is not of a float dtype, or a tensor is missing or of another shape.
    pub fn load(vb: VarBuilder, config: &C) -> Result<Self, ModelError> {
        let program = config
            .program(Task::FeatureExtraction, &|name| vb.contains_tensor(name))
            .map_err(BindError::Config)?;
        Ok(Self { model: Model::load(program, &vb, &vb)?, config: config.clone() })
    }

    /// Loads a model from a checkpoint, converting its float tensors to `dtype`.
    ///
    /// Prefixes such as `bert.` are found, and the model has a pooler if the checkpoint has its
    /// tensors. The names `gamma` and `beta`, which checkpoints converted from TensorFlow have in
    /// their layer norms, are understood.
    ///
    /// # Errors
    /// If the config is contradictory; or with the list of everything in the checkpoint that does
    /// not fit it ([`crate::Misfits`]).
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        config: &C,
        dtype: DType,
        device: &Device,
    ) -> Result<Loaded<Self>, ModelError> {
        let loaded = Model::from_checkpoint(checkpoint, config, Task::FeatureExtraction, dtype, device)?;
        Ok(loaded.map(|model| Self::of(model, config)))
    }

    pub(crate) fn of(model: Model, config: &C) -> Self {
        Self { model, config: config.clone() }
    }

    /// Runs the model.
    ///
    /// * `input_ids`: `[batch, sequence]`, tokens of the vocabulary;
    /// * `attention_mask`: the same shape, 1 for a token and 0 for padding; without it, nothing is padding;
    /// * `token_type_ids`: the same shape, the segment of each token; without it, all are of
    ///   segment 0. A model without segments takes none.
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
    ) -> Result<EncoderOutput, ModelError> {
        self.run(&given(input_ids, attention_mask, token_type_ids), None)
    }

    /// [`EncoderModel::forward`], which also hands the output of every module to `visitor`, in the
    /// order of [`EncoderModel::module_paths`].
    ///
    /// These are the tensors that a PyTorch forward hook on the module of that name is given (the first one, where a
    /// module gives several). All are `[batch, sequence, width]`, but `embeddings.position_embeddings`, which is `[1,
    /// sequence, hidden]`, and those of the pooler, which are `[batch, hidden]`.
    ///
    /// # Errors
    /// As [`EncoderModel::forward`], and whatever `visitor` returns, which ends the pass.
    pub fn forward_with_taps(
        &self,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        token_type_ids: Option<&Tensor>,
        visitor: &mut Visitor<'_>,
    ) -> Result<EncoderOutput, ModelError> {
        self.run(&given(input_ids, attention_mask, token_type_ids), Some(visitor))
    }

    fn run(
        &self,
        given: &[(&str, &Tensor)],
        visitor: Option<&mut Visitor<'_>>,
    ) -> Result<EncoderOutput, ModelError> {
        let mut outputs = self.model.run(given, visitor)?.into_iter().map(|(_, tensor)| tensor);
        let missing = || candle_core::Error::Msg("the model gave no output".into());
        let last_hidden_state = outputs.next().ok_or_else(missing)?;
        Ok(EncoderOutput { last_hidden_state, pooler_output: outputs.next() })
    }

    /// The path of every module whose output [`EncoderModel::forward_with_taps`] shows, in the
    /// order of execution.
    pub fn module_paths(&self) -> Vec<String> {
        self.model.program().module_paths().map(String::from).collect()
    }

    /// What it is made of.
    pub fn program(&self) -> &Program {
        self.model.program()
    }

    /// The sizes and choices of this model.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// The dtype of its weights and outputs: `f16`, `bf16`, `f32` or `f64`.
    pub fn dtype(&self) -> DType {
        self.model.dtype()
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        self.model.device()
    }

    /// Whether it has a pooler, and so gives a `pooler_output`.
    pub fn has_pooler(&self) -> bool {
        self.model.program().outputs.len() > 1
    }
}

impl<C> From<EncoderModel<C>> for Model {
    fn from(encoder: EncoderModel<C>) -> Self {
        encoder.model
    }
}

/// Names for the models of a family, as transformers has them.
macro_rules! models {
    ($config:ident, $model:ident $(, $class:ident = $head:ident)* $(,)?) => {
        #[doc = concat!("The encoder of a [`", stringify!($config), "`].")]
        pub type $model = $crate::EncoderModel<$config>;
        $(
            #[doc = concat!("A [`", stringify!($model), "`] with the head [`", stringify!($head), "`].")]
            ///
            #[doc = concat!("[`", stringify!($head), "`]: crate::heads::", stringify!($head))]
            pub type $class = $crate::EncoderFor<$config, $crate::heads::$head>;
        )*
    };
}
pub(crate) use models;

/// Those inputs that there are, by name.
pub(crate) fn given<'a>(
    input_ids: &'a Tensor,
    attention_mask: Option<&'a Tensor>,
    token_type_ids: Option<&'a Tensor>,
) -> Vec<(&'static str, &'a Tensor)> {
    let optional = [("attention_mask", attention_mask), ("token_type_ids", token_type_ids)];
    let optional = optional.into_iter().filter_map(|(name, tensor)| Some((name, tensor?)));
    [("input_ids", input_ids)].into_iter().chain(optional).collect()
}

#[cfg(test)]
mod tests;
