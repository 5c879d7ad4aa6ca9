//! Names in a text, with where they stand.
//!
//! ```sh
//! cargo run -p parity --example named_entities -- path/to/dslim-bert-base-NER "Wolfgang lives in Berlin"
//! ```
//!
//! Without arguments it runs a model of the tests, whose weights are random: what it finds means nothing, and it needs no network.

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;

use bert_pipeline::pipeline::{Aggregation, Options, Pipeline as _, TokenClassification};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/heads/token_classification");

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| MODEL.into());
    let text = arguments.next().unwrap_or_else(|| "the happy person lives in the city".into());
    let entities = TokenClassification::from_pretrained(&model, &Options::default())?
        .with_aggregation(Aggregation::Simple)?;
    for entity in entities.run_one(text.as_str())?.iter() {
        println!("{}", serde_json::to_string(entity)?);
    }
    Ok(())
}
