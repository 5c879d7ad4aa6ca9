//! What a model is made of, written once.
//!
//! A family of models (BERT, RoBERTa, …) is one function that writes a [`Program`] with a
//! [`Draft`]: which building blocks stand where, under which path of the checkpoint, fed by what.
//! Whoever needs to know a model reads that program. The back end on candle runs it, the one for
//! ONNX writes it as a graph, and the judge learns from it what each module is, which tensors it
//! has, and where its inputs come from.
//!
//! A program holds **no formulas**. That a block is a layer norm with this eps is all that is said
//! of it; each back end writes for itself what that means, and none calls another's. Two paths that
//! agree therefore agree on what they computed, and not because they share the line that computes.
//!
//! ```
//! use architecture::{Activation, Draft, Program, Task};
//!
//! /// h = LayerNorm(E[id]);  p = tanh(W h[first token] + b)
//! fn family(vocabulary: usize, width: usize) -> Program {
//!     let mut m = Draft::new("Tiny", "", Task::FeatureExtraction);
//!     let ids = m.input("input_ids");
//!     let hidden = m.module("embeddings", "TinyEmbeddings", |m| {
//!         let word = m.embedding("word", ids, vocabulary, width);
//!         m.layer_norm("norm", word, 1e-12)
//!     });
//!     let pooled = m.module("pooler", "TinyPooler", |m| {
//!         let first = m.token(hidden, 0);
//!         let dense = m.linear("dense", first, width);
//!         m.activation(dense, Activation::Tanh)
//!     });
//!     m.output("last_hidden_state", hidden);
//!     m.output("pooler_output", pooled);
//!     m.finish()
//! }
//!
//! let program = family(20, 8);
//! let paths: Vec<&str> = program.module_paths().collect();
//! assert_eq!(paths, ["embeddings.word", "embeddings.norm", "embeddings", "pooler.dense", "pooler"]);
//! assert_eq!(program.tensors[0].name, "embeddings.word.weight");
//! assert_eq!(program.tensors[0].shape, [20, 8]);
//! assert_eq!(program.hierarchy_tag("pooler.dense"), "/Tiny/TinyPooler");
//! ```

mod activation;
mod bind;
mod draft;
mod family;
mod op;
mod program;
mod task;

pub use activation::{Activation, UnknownActivation};
pub use bind::{BindError, Bound, Misfits, Misshaped, Missing, bind, bind_program};
pub use draft::Draft;
pub use family::{Family, ProblemType};
pub use op::{Op, Rotation, Shape};
pub use program::{
    Copied, Input, Limits, Module, Output, Program, Role, Step, Tensor, TensorId, Wire, run_of,
};
pub use task::{Task, TaskError};
