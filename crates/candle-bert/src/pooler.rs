//! The pooler: what Devlin et al. 2018 (section 3.1) call *C*, the last hidden state of the first token, `[CLS]`, goes
//! through one more layer, which was trained on next sentence prediction: tanh(W C + b).

use candle_core::{IndexOp, Result, Tensor};
use candle_nn::VarBuilder;

use crate::linear::Linear;
use crate::taps::Taps;
use crate::{Activation, BertConfig};

#[derive(Debug, Clone)]
pub(crate) struct Pooler {
    dense: Linear,
}

impl Pooler {
    /// Whether there is one.
    pub(crate) fn is_in(vb: &VarBuilder) -> bool {
        vb.contains_tensor("dense.weight")
    }

    pub(crate) fn load(vb: VarBuilder, config: &BertConfig) -> Result<Self> {
        Ok(Self { dense: Linear::load(config.hidden_size, config.hidden_size, vb.pp("dense"))? })
    }

    /// `[batch, sequence, hidden]` to `[batch, hidden]`.
    pub(crate) fn forward(&self, last_hidden_state: &Tensor, taps: &mut Taps) -> Result<Tensor> {
        let first_token = last_hidden_state.i((.., 0))?;
        Activation::Tanh.forward(&taps.module("dense", |_| self.dense.forward(&first_token))?)
    }
}
