use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::Head;
use crate::linear::Linear;
use crate::taps::Taps;
use crate::{Activation, BertModel, BertOutput, LayerNorm, Task};

/// The checkpoint's `cls.predictions`.
#[derive(Debug, Clone)]
pub struct MaskedLm {
    dense: Linear,
    activation: Activation,
    layer_norm: LayerNorm,
    decoder: Linear,
}

impl Head for MaskedLm {
    type Output = Tensor;

    const TASK: Task = Task::MaskedLm;
    const MODULES: &'static [&'static str] = &[
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.transform",
        "cls.predictions.decoder",
    ];

    fn load(vb: VarBuilder, bert: &BertModel) -> Result<Self> {
        let config = bert.config();
        let (hidden, vocabulary) = (config.hidden_size, config.vocab_size);
        let vb = vb.pp("cls.predictions");
        let transform = vb.pp("transform");
        // Checkpoints may have a copy of the bias as `decoder.bias`; like transformers, this one is taken.
        let bias = vb.get(vocabulary, "bias")?;
        let decoder = match config.tie_word_embeddings {
            true => Linear::new(bert.word_embeddings(), &bias)?,
            false => Linear::new(&vb.get((vocabulary, hidden), "decoder.weight")?, &bias)?,
        };
        Ok(Self {
            dense: Linear::load(hidden, hidden, transform.pp("dense"))?,
            activation: config.hidden_act,
            layer_norm: LayerNorm::load(hidden, config.layer_norm_eps, transform.pp("LayerNorm"))?,
            decoder,
        })
    }

    fn forward(&self, bert: BertOutput, _: &[usize], taps: &mut Taps) -> Result<Tensor> {
        let transformed = taps.module("cls.predictions.transform", |taps| {
            let dense = taps.module("dense", |_| self.dense.forward(&bert.last_hidden_state))?;
            let bent = self.activation.forward(&dense)?;
            taps.module("LayerNorm", |_| self.layer_norm.forward(&bent))
        })?;
        taps.module("cls.predictions.decoder", |_| self.decoder.forward(&transformed))
    }

    fn named(logits: Tensor) -> Vec<(&'static str, Tensor)> {
        vec![("logits", logits)]
    }
}
