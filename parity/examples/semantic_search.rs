//! Which paragraphs of a text are nearest to a question?
//!
//! ```sh
//! cargo run -p parity --example semantic_search -- "how are faults planted?"                                     # the embedded model
//! cargo run -p parity --example semantic_search -- "how are faults planted?" sentence-transformers/all-MiniLM-L6-v2 README.md
//! ```
//!
//! The embedded model is tiny, and was trained on little: it shows how this is done, not how well it can be done.

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;

use bert_pipeline::pipeline::{Embeddings, Options};
use checkpoint::ModelFiles;

/// How many are shown.
const SHOWN: usize = 3;

const QUESTION: &str = "how are faults planted?";
const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let question = arguments.next().unwrap_or_else(|| QUESTION.into());
    let files = match arguments.next() {
        Some(model) => ModelFiles::open(&model)?,
        None => ModelFiles::from_memory(
            bert_tiny::NAME,
            bert_tiny::FILES.iter().map(|&(name, bytes)| (name, bytes.into())),
        ),
    };
    let text = std::fs::read_to_string(arguments.next().unwrap_or_else(|| README.into()))?;
    let paragraphs: Vec<&str> = text.split("\n\n").filter(|paragraph| paragraph.len() > 40).collect();

    let embeddings = Embeddings::from_files(&files, &Options::default().with_truncation(true))?;
    let wanted = embeddings.embed(&[question.as_str()])?.remove(0);
    let mut found: Vec<(f32, &str)> = Vec::new();
    for (paragraph, vector) in paragraphs.iter().zip(embeddings.embed(&paragraphs)?) {
        found.push((cosine(&wanted, &vector), paragraph));
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (score, paragraph) in found.iter().take(SHOWN) {
        let start: String = paragraph.chars().take(100).collect();
        println!("{score:.3}  {}", start.replace('\n', " "));
    }
    Ok(())
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
