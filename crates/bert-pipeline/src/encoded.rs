use candle_core::{Device, Tensor};
use engine::{NamedValues, Value};
use tokenizers::Encoding;

use crate::PipelineError;

/// A batch of texts as a model takes them: three `i64` tensors `[batch, sequence]` on the CPU, padded on the right.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The tokens' places in the vocabulary; the padding token's where a row has ended.
    pub input_ids: Tensor,
    /// 1 for a real token, 0 for padding.
    pub attention_mask: Tensor,
    /// 0 for the first text and its special tokens and for padding, 1 for the second of a pair.
    pub token_type_ids: Tensor,
    values: NamedValues,
    encodings: Vec<Encoding>,
}

impl Encoded {
    pub(crate) fn new(encodings: Vec<Encoding>, pad_id: u32) -> Result<Self, PipelineError> {
        let batch = encodings.len();
        let sequence = encodings.iter().map(Encoding::len).max().unwrap_or(0);
        let input = |of: fn(&Encoding) -> &[u32], padding: u32| {
            let elements: Vec<i64> = encodings
                .iter()
                .flat_map(|row| of(row).iter().copied().chain(std::iter::repeat(padding)).take(sequence))
                .map(i64::from)
                .collect();
            Value::new([batch, sequence], elements)
        };
        let input_ids = input(Encoding::get_ids, pad_id)?;
        let attention_mask = input(Encoding::get_attention_mask, 0)?;
        let token_type_ids = input(Encoding::get_type_ids, 0)?;
        Ok(Self {
            input_ids: input_ids.to_tensor(&Device::Cpu)?,
            attention_mask: attention_mask.to_tensor(&Device::Cpu)?,
            token_type_ids: token_type_ids.to_tensor(&Device::Cpu)?,
            values: NamedValues::from_iter([
                ("input_ids", input_ids),
                ("attention_mask", attention_mask),
                ("token_type_ids", token_type_ids),
            ]),
            encodings,
        })
    }

    /// The three inputs under their names, as an [`engine::Engine`] takes them.
    pub fn to_named_values(&self) -> NamedValues {
        self.values.clone()
    }

    /// The tokens of a row as text, without padding; `None` if there is no such row.
    pub fn tokens(&self, row: usize) -> Option<&[String]> {
        self.encodings.get(row).map(Encoding::get_tokens)
    }

    /// Where each token of a row stands in its text: first byte and the byte after the last. Special tokens have (0, 0).
    pub fn offsets(&self, row: usize) -> Option<&[(usize, usize)]> {
        self.encodings.get(row).map(Encoding::get_offsets)
    }
}
