//! In the place of candle-transformers' `BertModel`: the same three lines, with what they leave out.
//!
//! ```text
//! candle_transformers                                              candle_bert
//! let config: Config = serde_json::from_str(&json)?;               let config = BertConfig::from_json(&json)?;              // checked
//! let vb = VarBuilder::from_mmaped_safetensors(…)?;                 let checkpoint = files.checkpoint()?;                    // also shards and .bin, no unsafe
//! let model = BertModel::load(vb, &config)?;                       let model = BertModel::from_checkpoint(…)?.model;        // prefixes and old names found
//! let states = model.forward(&ids, &types, Some(&mask))?;          let output = model.forward(&ids, Some(&mask), Some(&types))?; // with pooler_output
//! ```
//!
//! `cargo run -p parity --example drop_in [MODEL]`

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;

use candle_bert::{BertConfig, BertModel};
use candle_core::{DType, Device, Tensor};
use checkpoint::ModelFiles;

fn main() -> Result<(), Box<dyn Error>> {
    let files = match std::env::args().nth(1) {
        Some(model) => ModelFiles::open(&model)?,
        None => ModelFiles::from_memory(
            bert_tiny::NAME,
            bert_tiny::FILES.iter().map(|&(name, bytes)| (name, bytes.into())),
        ),
    };
    let config = BertConfig::from_json(&files.config()?)?;
    let model = BertModel::from_checkpoint(&files.checkpoint()?, &config, DType::F32, &Device::Cpu)?.model;

    let input_ids = Tensor::new(&[[2i64, 5, 7, 9, 3], [2, 6, 3, 0, 0]], &Device::Cpu)?;
    let attention_mask = Tensor::new(&[[1i64, 1, 1, 1, 1], [1, 1, 1, 0, 0]], &Device::Cpu)?;
    let output = model.forward(&input_ids, Some(&attention_mask), None)?;
    println!("last_hidden_state {:?}", output.last_hidden_state.dims());
    if let Some(pooled) = &output.pooler_output {
        println!("pooler_output     {:?}", pooled.dims());
    }
    Ok(())
}
