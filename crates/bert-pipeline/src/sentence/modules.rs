use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use checkpoint::ModelFiles;

use super::transformer::Output;
use super::{Kind, Program, Sentence};
use crate::PipelineError;

/// What a model's modules.json makes of the transformer's states: pooling, dense layers,
/// normalisation, one after the other. This is what a graph with an output `sentence_embedding`
/// should compute behind its encoder.
///
/// ```
/// use bert_pipeline::Modules;
/// use bytes::Bytes;
/// use candle_core::{DType, Device, Tensor};
/// use checkpoint::ModelFiles;
///
/// let module = |class: &str, path: &str| {
///     format!(r#"{{"path": "{path}", "type": "sentence_transformers.models.{class}"}}"#)
/// };
/// let modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")];
/// let modules = modules.map(|(class, path)| module(class, path));
/// let files = ModelFiles::from_memory("mine", [
///     ("modules.json", Bytes::from(format!("[{}]", modules.join(",")))),
///     ("1_Pooling/config.json", Bytes::from(r#"{"pooling_mode": "mean"}"#)),
/// ]);
/// let modules = Modules::from_files(&files)?.expect("there is a modules.json");
/// assert_eq!(modules.to_string(), "mean pooling, normalized");
///
/// let states = Tensor::new(&[[[3f64, 4.], [9., 9.]]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 0]], &Device::Cpu)?;
/// let features = modules.run(&states, &mask, None)?;
/// assert_eq!(features["sentence_embedding"].to_vec2::<f64>()?, [[0.6, 0.8]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Modules {
    output: Output,
    program: Program,
}

impl Modules {
    /// What modules.json lists after the transformer; nothing if there is no such file, or it is a
    /// cross-encoder's.
    ///
    /// # Errors
    /// If a file is missing or malformed, or asks for a module that is not known.
    pub fn from_files(files: &ModelFiles) -> Result<Option<Self>, PipelineError> {
        let Sentence { is_declared, transformer, program, .. } =
            Sentence::from_files(files, Kind::SentenceTransformer)?;
        Ok(is_declared.then_some(Self { output: transformer.output, program }))
    }

    /// Each module in words, in order.
    pub fn words(&self) -> impl Iterator<Item = String> {
        self.program.modules().iter().map(super::Module::words)
    }

    /// All but the module of that number; nothing where the others cannot do without it, or there
    /// is no such module.
    pub fn without(&self, module: usize) -> Option<Self> {
        Some(Self { program: self.program.without(module)?, ..self.clone() })
    }

    /// These modules, but a row's first token is what stands at its start, masked or not, where
    /// they take the first real one: so older versions of sentence-transformers had it, and most
    /// exports.
    pub fn first_at_start(&self) -> Self {
        Self { program: self.program.first_at_start(), ..self.clone() }
    }

    /// Whether it changes the tokens' states before they are pooled, so that what a graph calls
    /// `token_embeddings` may be either of the two.
    pub fn changes_tokens(&self) -> bool {
        self.program.changes_tokens()
    }

    /// All features, by name, of a batch of `last_hidden_state` `[batch, sequence, hidden]`, its
    /// mask `[batch, sequence]` of any numbers, and `pooler_output` `[batch, hidden]`; in their
    /// dtype, f32 or f64. A row without any real token means nothing; its tokens are all taken for
    /// real.
    ///
    /// # Errors
    /// If shapes do not fit, a classifier is asked for, or there is no `pooler_output` and it is
    /// needed.
    pub fn run(
        &self,
        states: &Tensor,
        mask: &Tensor,
        pooler_output: Option<&Tensor>,
    ) -> Result<BTreeMap<String, Tensor>, PipelineError> {
        let mask = mask.ne(0f64)?;
        let is_empty = mask.max_keepdim(1)?.eq(0f64)?;
        let mask = mask.broadcast_maximum(&is_empty)?.to_dtype(DType::U8)?;
        let output = match self.output {
            Output::Hidden => states.clone(),
            Output::Pooled => pooler_output.ok_or(PipelineError::NoPoolerOutput)?.clone(),
            Output::Logits => return Err(super::unsupported_module("a classifier's logits for a vector")),
            Output::Vector => return Err(super::unsupported_module("a vector without states of tokens")),
        };
        self.program.of_batch(output, mask, pooler_output.cloned())
    }
}

impl std::fmt::Display for Modules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words().collect::<Vec<_>>().join(", "))
    }
}
