//! Where in a text the answer to a question stands. A text longer than the model is read in overlapping rows.
//!
//! ```sh
//! cargo run -p parity --example question_answering -- path/to/model "Who lives in Berlin?" "Wolfgang lives in Berlin."
//! ```
//!
//! Without arguments it runs a model of the tests, whose weights are random: what it answers means nothing, and it needs no network.

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;

use bert_pipeline::pipeline::{Options, QuestionAnswering};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/heads/question_answering");

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.into());
    let (model, question) = (next(MODEL), next("who is happy?"));
    let context = next("the happy person lives in the city");
    let answers =
        QuestionAnswering::from_pretrained(&model, &Options::default())?.answer(&question, &context)?;
    println!("{}", serde_json::to_string_pretty(&answers)?);
    Ok(())
}
