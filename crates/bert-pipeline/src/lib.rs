//! From text to a model's inputs, and from its outputs to embeddings.
//!
//! * [`Tokenizer`]: text to `input_ids`, `attention_mask`, `token_type_ids`, padded to the longest of the batch;
//! * [`pipeline`]: labels, entities, answers, missing words, embeddings, over the checkpoint or its graph: transformers' pipelines;
//! * [`usage`]: what answers depend on beside weights and ids, to be compared between folders;
//! * [`Pooling`]: token states to one vector a text; [`normalize`] and [`cosine_similarity`] for what follows.
//!
//! Nothing is cut without being asked: a text longer than the model is an error, not a shorter text. Pipelines cut where transformers' do,
//! and say so.
//!
//! Features: `candle-onnx` (on by default) is the engine `candle` for graphs, whose build needs protoc.
//!
//! ```
//! use bert_pipeline::{Pooling, Text, Tokenizer};
//! use candle_core::{DType, Device, Tensor};
//! use checkpoint::ModelFiles;
//!
//! let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nhappy\nperson\nun\n##happy\n";
//! let model = ModelFiles::from_memory("tiny", [("vocab.txt", vocabulary.into())]);
//! let tokenizer = Tokenizer::from_files(&model, Some(512))?;
//!
//! let encoded = tokenizer.encode(&[Text::from("Unhappy person"), Text::from("happy")])?;
//! assert_eq!(encoded.input_ids.to_vec2::<i64>()?, [[2, 6, 7, 5, 3], [2, 4, 3, 0, 0]]);
//! assert_eq!(encoded.attention_mask.to_vec2::<i64>()?, [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]);
//!
//! // A model turns them into last_hidden_state [batch, sequence, hidden]; of that, one vector a text.
//! let last_hidden_state = Tensor::ones((2, 5, 4), DType::F32, &Device::Cpu)?;
//! let embeddings = Pooling::Mean.pool(&last_hidden_state, &encoded.attention_mask, None)?;
//! assert_eq!(bert_pipeline::normalize(&embeddings)?.to_vec2::<f32>()?, [[0.5; 4]; 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod activation;
mod bpe;
mod chars;
mod encoded;
mod error;
pub mod pipeline;
mod pooling;
mod scores;
mod sentence;
mod settings;
mod similarity;
mod text;
mod tokenizer;
pub mod usage;
mod wordpiece;

pub use encoded::Encoded;
pub use error::PipelineError;
pub use pooling::{Pooling, normalize};
pub use sentence::Modules;
pub use similarity::{Similarity, cosine_similarity};
pub use text::Text;
pub use tokenizer::Tokenizer;
