//! Input embeddings (Devlin et al. 2018, section 3 and figure 2):
//!
//! ```text
//! LayerNorm(word[id] + token_type[type] + position[i])
//! ```

use candle_core::{Result, Tensor};
use candle_nn::{Embedding, Module, VarBuilder, embedding};

use crate::inputs::Inputs;
use crate::taps::Taps;
use crate::{BertConfig, LayerNorm};

#[derive(Debug, Clone)]
pub(crate) struct Embeddings {
    word: Embedding,
    token_type: Embedding,
    position: Embedding,
    layer_norm: LayerNorm,
}

impl Embeddings {
    pub(crate) fn load(vb: VarBuilder, config: &BertConfig) -> Result<Self> {
        let hidden = config.hidden_size;
        Ok(Self {
            word: embedding(config.vocab_size, hidden, vb.pp("word_embeddings"))?,
            token_type: embedding(config.type_vocab_size, hidden, vb.pp("token_type_embeddings"))?,
            position: embedding(config.max_position_embeddings, hidden, vb.pp("position_embeddings"))?,
            layer_norm: LayerNorm::load(hidden, config.layer_norm_eps, vb.pp("LayerNorm"))?,
        })
    }

    /// The table of word embeddings: `[vocabulary, hidden]`.
    pub(crate) fn words(&self) -> &Tensor {
        self.word.embeddings()
    }

    /// `[batch, sequence, hidden]`.
    pub(crate) fn forward(&self, inputs: &Inputs, taps: &mut Taps) -> Result<Tensor> {
        let word = taps.module("word_embeddings", |_| self.word.forward(&inputs.input_ids))?;
        let token_type =
            taps.module("token_type_embeddings", |_| self.token_type.forward(&inputs.token_type_ids))?;
        // The positions are 0, 1, 2, …, the same for every row: [1, sequence, hidden].
        let position = taps.module("position_embeddings", |_| {
            self.position.embeddings().narrow(0, 0, inputs.sequence())?.unsqueeze(0)
        })?;
        let sum = (word + token_type)?.broadcast_add(&position)?;
        taps.module("LayerNorm", |_| self.layer_norm.forward(&sum))
    }
}
