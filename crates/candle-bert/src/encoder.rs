//! The encoder (Vaswani et al. 2017, section 3.1): identical layers, each self-attention and then a feed-forward
//! network (section 3.3), each of the two within a residual connection that is normalised after the sum:
//!
//! ```text
//! LayerNorm(x + Sublayer(x))
//! ```

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::attention::{AttentionMask, SelfAttention};
use crate::linear::Linear;
use crate::taps::Taps;
use crate::{Activation, BertConfig, LayerNorm};

#[derive(Debug, Clone)]
pub(crate) struct Encoder {
    layers: Vec<Layer>,
}

impl Encoder {
    pub(crate) fn load(vb: VarBuilder, config: &BertConfig) -> Result<Self> {
        let vb = vb.pp("layer");
        let layers = (0..config.num_hidden_layers).map(|n| Layer::load(vb.pp(n), config));
        Ok(Self { layers: layers.collect::<Result<_>>()? })
    }

    /// Takes and gives `[batch, sequence, hidden]`.
    pub(crate) fn forward(
        &self,
        embeddings: Tensor,
        mask: Option<&AttentionMask>,
        taps: &mut Taps,
    ) -> Result<Tensor> {
        self.layers.iter().enumerate().try_fold(embeddings, |hidden, (n, layer)| {
            taps.module(format_args!("layer.{n}"), |taps| layer.forward(&hidden, mask, taps))
        })
    }
}

/// One layer, its parts named as in the checkpoint.
#[derive(Debug, Clone)]
struct Layer {
    self_attention: SelfAttention,
    attention_output: Output,
    intermediate: Linear,
    activation: Activation,
    output: Output,
}

impl Layer {
    fn load(vb: VarBuilder, config: &BertConfig) -> Result<Self> {
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            self_attention: SelfAttention::load(vb.pp("attention.self"), config)?,
            attention_output: Output::load(hidden, vb.pp("attention.output"), config)?,
            intermediate: Linear::load(hidden, intermediate, vb.pp("intermediate.dense"))?,
            activation: config.hidden_act,
            output: Output::load(intermediate, vb.pp("output"), config)?,
        })
    }

    fn forward(&self, hidden: &Tensor, mask: Option<&AttentionMask>, taps: &mut Taps) -> Result<Tensor> {
        let attention = taps.module("attention", |taps| {
            let context = taps.module("self", |taps| self.self_attention.forward(hidden, mask, taps))?;
            taps.module("output", |taps| self.attention_output.forward(&context, hidden, taps))
        })?;
        let intermediate = taps.module("intermediate", |taps| {
            self.activation.forward(&taps.module("dense", |_| self.intermediate.forward(&attention))?)
        })?;
        taps.module("output", |taps| self.output.forward(&intermediate, &attention, taps))
    }
}

/// How a sublayer ends: a projection back to the hidden size, the residual connection, and the normalisation.
#[derive(Debug, Clone)]
struct Output {
    dense: Linear,
    layer_norm: LayerNorm,
}

impl Output {
    fn load(inputs: usize, vb: VarBuilder, config: &BertConfig) -> Result<Self> {
        Ok(Self {
            dense: Linear::load(inputs, config.hidden_size, vb.pp("dense"))?,
            layer_norm: LayerNorm::load(config.hidden_size, config.layer_norm_eps, vb.pp("LayerNorm"))?,
        })
    }

    fn forward(&self, x: &Tensor, residual: &Tensor, taps: &mut Taps) -> Result<Tensor> {
        let projected = taps.module("dense", |_| self.dense.forward(x))?;
        let sum = (projected + residual)?;
        taps.module("LayerNorm", |_| self.layer_norm.forward(&sum))
    }
}
