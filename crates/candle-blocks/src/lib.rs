//! The building blocks of encoders on candle, and a model that runs a description of them.
//!
//! An [`architecture::Program`] says what stands where; this crate says what each block computes,
//! as `transformers` computes it, in any float dtype candle has a kernel for, and in `f64` to the
//! last few bits. Speed comes second to being evidently right.
//!
//! * [`Model`]: a program with its weights, from a checkpoint or from candle's `VarBuilder`; it
//!   shows the output of every module, if asked to;
//! * [`LayerNorm`], [`Activate`]: blocks that are of use by themselves;
//! * [`ReferenceEngine`]: a model as an [`engine::Engine`].
//!
//! ```
//! use architecture::{Draft, Task};
//! use candle_blocks::Model;
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::VarBuilder;
//!
//! let mut m = Draft::new("Tiny", "", Task::FeatureExtraction);
//! let ids = m.input("input_ids");
//! let word = m.embedding("word", ids, 20, 8);
//! m.output("last_hidden_state", word);
//! let vb = VarBuilder::zeros(DType::F64, &Device::Cpu);
//! let model = Model::load(m.finish(), &vb, &vb)?;
//!
//! let ids = Tensor::new(&[[2i64, 5, 7]], &Device::Cpu)?;
//! let mut modules = Vec::new();
//! let outputs = model.run(&[("input_ids", &ids)], Some(&mut |module, output| {
//!     modules.push((module.to_string(), output.dims().to_vec()));
//!     Ok(())
//! }))?;
//! assert_eq!(outputs[0].0, "last_hidden_state");
//! assert_eq!(modules, [("word".to_string(), vec![1, 3, 8])]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod activation;
mod attention;
mod error;
mod inputs;
mod layer_norm;
mod linear;
mod load;
mod model;
mod pool;
mod reference;
mod rotary;

pub use activation::Activate;
pub use error::ModelError;
pub use layer_norm::LayerNorm;
pub use load::{Loaded, var_builder};
pub use model::{Model, Visitor};
pub use reference::ReferenceEngine;

use candle_core::DType;

/// The dtype in which sums and functions of `dtype` are computed: `f32` for the two half ones, as
/// PyTorch does, else `dtype`.
fn compute_dtype(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}
