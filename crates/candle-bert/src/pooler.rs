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
    /// `None` where the checkpoint has no pooler.
    pub(crate) fn load(vb: VarBuilder, config: &BertConfig) -> Result<Option<Self>> {
        let vb = vb.pp("dense");
        if !vb.contains_tensor("weight") {
            return Ok(None);
        }
        Ok(Some(Self { dense: Linear::load(config.hidden_size, config.hidden_size, vb)? }))
    }

    /// `[batch, sequence, hidden]` to `[batch, hidden]`.
    pub(crate) fn forward(&self, last_hidden_state: &Tensor, taps: &mut Taps) -> Result<Tensor> {
        let first_token = last_hidden_state.i((.., 0))?;
        Activation::Tanh.forward(&taps.module("dense", |_| self.dense.forward(&first_token))?)
    }
}
