//! A model's files: where they lie, what they are, and every tensor in them.
//!
//! * [`ModelFiles`]: a folder, a snapshot in the hub cache, or files in memory, read by name;
//! * [`Checkpoint`]: the tensors of a model — name, dtype, shape, file, offset — listed without being read, from safetensors
//!   or `pytorch_model.bin` in both of PyTorch's formats, each in one file or in shards;
//! * [`HubCache`]: where the Hugging Face hub's clients keep what they downloaded;
//! * `Hub`, with the feature `hub`: a client that downloads what the cache lacks. Without it there is no HTTP client in the build, and
//!   nothing is ever downloaded.
//!
//! Nothing in a file is run. Nothing is copied either: a file is mapped, and a tensor's bytes are a
//! slice of the map, but for tensors of PyTorch's that do not lie in their file in one piece.
//!
//! ```
//! use checkpoint::ModelFiles;
//! use engine::DType;
//!
//! let header = br#"{"bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
//! let mut file = (header.len() as u64).to_le_bytes().to_vec();
//! file.extend_from_slice(header);
//! file.extend([1f32, 2f32].iter().flat_map(|x| x.to_le_bytes()));
//!
//! let model = ModelFiles::from_memory("tiny", [("model.safetensors", file.into())]);
//! let checkpoint = model.checkpoint()?;
//! let bias = checkpoint.get("bias").ok_or("no bias")?;
//! assert_eq!((bias.dtype, &bias.shape[..]), (DType::F32, &[2][..]));
//! assert_eq!(bias.offset, Some(8 + header.len() as u64));
//! assert_eq!(bias.to_value()?.as_slice::<f32>()?, [1., 2.]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod files;
mod hub;
mod json;
#[cfg(feature = "hub")]
mod remote;
mod shards;
mod tensors;
mod torch;

pub use error::CheckpointError;
pub use files::{ListedModule, ModelFiles, OnnxSource};
pub use hub::HubCache;
pub use json::from_json;
#[cfg(feature = "hub")]
pub use remote::{Hub, HubError, Progress};
pub use tensors::{Checkpoint, TensorEntry};
pub use torch::TorchError;
