use candle_bert::Task;
use serde::Serialize;
use tokenizers::Encoding;

use super::core::{Core, Need, at_least_one, refuse_pairs};
use super::runner::{RowOutput, Wanted};
use super::text_classification::outputs;
use super::{Output, Pipeline, constructors};
use crate::scores::{softmax, top};
use crate::{PipelineError, Text};

const NEED: Need = Need::new(Task::MaskedLm, "fill-mask", &[Wanted::TOKEN_LABELS]);

/// A token in the place of a mask.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Filled {
    /// How probable it is there.
    pub score: f32,
    /// The token's id.
    pub token: u32,
    /// The token.
    pub token_str: String,
    /// The text with it in the place of this mask; where there are several, with all special tokens, so that the others are seen.
    pub sequence: String,
}

/// The tokens for the masks of a text, the best first. It serialises as one list where there is one mask, else as a list of lists.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct Fillings(#[serde(serialize_with = "super::one_or_all")] pub Vec<Vec<Filled>>);

/// Which token stands in the place of a mask: transformers' `fill-mask`.
///
/// One thing is stricter: a target that is not one token of the vocabulary is an error, where transformers takes its first piece.
pub struct FillMask {
    core: Core,
    mask_id: u32,
    top_k: usize,
    targets: Option<Vec<u32>>,
}

constructors!(FillMask);

impl FillMask {
    fn of(mut core: Core) -> Result<Self, PipelineError> {
        core.cut_if(None)?;
        let mask = &core.tokenizer.words.mask;
        let mask_id = core.tokenizer.token_to_id(mask);
        let mask_id = mask_id.ok_or_else(|| PipelineError::NoMaskToken { mask: mask.clone() })?;
        Ok(Self { core, mask_id, top_k: 5, targets: None })
    }

    /// This pipeline with the `top_k` best tokens of each mask. At first it is 5.
    ///
    /// # Errors
    /// If it is 0.
    pub fn with_top_k(mut self, top_k: usize) -> Result<Self, PipelineError> {
        self.top_k = at_least_one("top_k", top_k)?;
        Ok(self)
    }

    /// This pipeline, choosing among these words only. The scores stay what they are among all tokens.
    ///
    /// # Errors
    /// If there are none, or one is not a token of the vocabulary.
    pub fn with_targets(mut self, targets: &[impl AsRef<str>]) -> Result<Self, PipelineError> {
        let mut ids =
            targets.iter().map(|target| self.target(target.as_ref())).collect::<Result<Vec<_>, _>>()?;
        if ids.is_empty() {
            return Err(PipelineError::NoCandidates { what: "targets" });
        }
        ids.sort_unstable();
        ids.dedup();
        self.targets = Some(ids);
        Ok(self)
    }

    /// The mask that texts have, `[MASK]`.
    pub fn mask_token(&self) -> &str {
        &self.core.tokenizer.words.mask
    }

    fn target(&self, target: &str) -> Result<u32, PipelineError> {
        let tokenizer = &self.core.tokenizer;
        if let Some(id) = tokenizer.token_to_id(target) {
            return Ok(id);
        }
        // A word may be a token once it is in lower case.
        match tokenizer.ids(0, target)?.as_slice() {
            &[id] if Some(id) != tokenizer.unknown_id() => Ok(id),
            ids => Err(PipelineError::Target {
                target: target.to_owned(),
                pieces: ids.iter().filter_map(|&id| tokenizer.id_to_token(id)).collect(),
            }),
        }
    }

    fn masks(&self, row: &Encoding) -> Vec<usize> {
        (0..row.len()).filter(|&at| row.get_ids().get(at) == Some(&self.mask_id)).collect()
    }

    fn filled(
        &self,
        row: &Encoding,
        at: usize,
        logits: &[f32],
        is_only: bool,
    ) -> Result<Vec<Filled>, PipelineError> {
        let probabilities = softmax(logits);
        let score = |id: u32| probabilities.get(id as usize).copied().unwrap_or(0.);
        let best: Vec<u32> = match &self.targets {
            None => top(&probabilities, self.top_k).into_iter().map(|id| id as u32).collect(),
            Some(targets) => {
                let scores: Vec<f32> = targets.iter().map(|&id| score(id)).collect();
                top(&scores, self.top_k).into_iter().filter_map(|place| targets.get(place).copied()).collect()
            }
        };
        let tokenizer = &self.core.tokenizer;
        best.into_iter()
            .map(|token| {
                let mut ids = row.get_ids().to_vec();
                if let Some(place) = ids.get_mut(at) {
                    *place = token;
                }
                // transformers takes padding out by its id, wherever it is.
                ids.retain(|&id| id != tokenizer.pad_id());
                Ok(Filled {
                    score: score(token),
                    token,
                    token_str: tokenizer.decode(&[token], false)?,
                    sequence: tokenizer.decode(&ids, is_only)?,
                })
            })
            .collect()
    }
}

impl Pipeline for FillMask {
    type Prediction = Fillings;

    fn run_texts(&self, texts: &[Text<'_>]) -> Result<Vec<Output<Fillings>>, PipelineError> {
        refuse_pairs(texts, NEED.name)?;
        let (rows, is_cut) = self.core.encode(texts)?;
        if let Some(text) = rows.iter().position(|row| self.masks(row).is_empty()) {
            return Err(PipelineError::NoMask { text, mask: self.mask_token().to_owned() });
        }
        let fillings = self.core.runner.run(
            &rows,
            |row| row,
            |_, row, outputs| {
                let masks = self.masks(row);
                let of_tokens: Vec<&[f32]> = outputs.iter().flat_map(RowOutput::tokens).collect();
                let of_masks = masks.iter().filter_map(|&at| Some((at, *of_tokens.get(at)?)));
                let filled = of_masks.map(|(at, logits)| self.filled(row, at, logits, masks.len() == 1));
                Ok(Fillings(filled.collect::<Result<_, _>>()?))
            },
        )?;
        Ok(outputs(fillings, is_cut))
    }

    fn window(&self) -> usize {
        self.core.window()
    }
}
