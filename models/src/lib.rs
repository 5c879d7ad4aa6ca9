//! A small trained BERT with its tokenizer and its ONNX graph, as bytes: what `parity` checks when it is given no model.
//!
//! bert-tiny's geometry (2 layers, hidden size 128, 2 heads, intermediate size 512), trained on documentation; where it comes
//! from and what it is good for stands in the README beside this crate.
//!
//! ```
//! let (name, bytes) = bert_tiny::FILES[0];
//! assert_eq!(name, "config.json");
//! assert!(bytes.starts_with(b"{"));
//! ```

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../bert-tiny/", $name)).as_slice())),*]
    };
}

/// What the model is called.
pub const NAME: &str = "bert-tiny";

/// The files of a model folder: each one's path inside it, and its bytes.
pub const FILES: &[(&str, &[u8])] = files![
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "onnx/model.onnx",
];
