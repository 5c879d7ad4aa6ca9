//! What is run: W1 to W8.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::batch::Batch;

/// One model on one batch.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// `W1`.
    pub name: &'static str,
    /// The model's folder among those that models.py writes.
    pub model: &'static str,
    /// What the model is called in a table.
    pub title: &'static str,
    texts: Texts,
}

#[derive(Debug, Clone, Copy)]
enum Texts {
    /// Of equal length, no padding.
    Equal { rows: usize, length: usize },
    /// Of mixed length: many short, few long, as embedding services get them.
    Mixed { rows: usize, shortest: usize, longest: usize, tokens: usize },
    /// The sentences of sentences.txt, tokenized.
    Sentences,
}

/// All of them. Which ids are run makes no difference to the time, so they are random, but for W7.
pub const WORKLOADS: [Workload; 8] = [
    Workload {
        name: "W1",
        model: "bert-tiny",
        title: "bert-tiny 2×16",
        texts: Texts::Equal { rows: 2, length: 16 },
    },
    Workload {
        name: "W2",
        model: "minilm",
        title: "MiniLM-L6 1×16",
        texts: Texts::Equal { rows: 1, length: 16 },
    },
    Workload {
        name: "W3",
        model: "minilm",
        title: "MiniLM-L6 8×128",
        texts: Texts::Equal { rows: 8, length: 128 },
    },
    Workload {
        name: "W4",
        model: "minilm",
        title: "MiniLM-L6, 32 texts of 5–128 tokens",
        texts: Texts::Mixed { rows: 32, shortest: 5, longest: 128, tokens: 837 },
    },
    Workload {
        name: "W5",
        model: "bert-base",
        title: "BERT-base 1×128",
        texts: Texts::Equal { rows: 1, length: 128 },
    },
    Workload {
        name: "W6",
        model: "bert-base",
        title: "BERT-base 8×128",
        texts: Texts::Equal { rows: 8, length: 128 },
    },
    Workload { name: "W7", model: "minilm", title: "MiniLM-L6, 24 sentences", texts: Texts::Sentences },
    Workload {
        name: "W8",
        model: "minilm",
        title: "MiniLM-L6 1×512",
        texts: Texts::Equal { rows: 1, length: 512 },
    },
];

/// Of the ids, and of W4's lengths.
const SEED: u64 = 11;

const SENTENCES: &str = include_str!("../sentences.txt");

impl Workload {
    /// The workload of that name.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        let found = WORKLOADS.iter().find(|workload| workload.name.eq_ignore_ascii_case(name));
        found.copied().with_context(|| format!("there is no workload '{name}': W1 to W8"))
    }

    /// Where its model lies.
    pub fn files(&self, models: &Path) -> anyhow::Result<Files> {
        let folder = models.join(self.model);
        ensure!(folder.is_dir(), "there is no {}: models.py writes it", folder.display());
        Ok(Files { folder })
    }

    /// Its texts.
    pub fn batch(&self, files: &Files) -> anyhow::Result<Batch> {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let lengths = match self.texts {
            Texts::Equal { rows, length } => vec![length; rows],
            Texts::Mixed { rows, shortest, longest, tokens } => {
                mixed(&mut rng, rows, shortest..=longest, tokens)
            }
            Texts::Sentences => return Ok(Batch::new(&tokenized(files)?)),
        };
        let config: serde_json::Value = serde_json::from_slice(&std::fs::read(files.config())?)?;
        let Some(vocabulary) = config["vocab_size"].as_i64() else {
            bail!("{}: no vocab_size", files.config().display())
        };
        let texts: Vec<Vec<i64>> = lengths
            .iter()
            .map(|&length| (0..length).map(|_| rng.random_range(1..vocabulary)).collect())
            .collect();
        Ok(Batch::new(&texts))
    }
}

/// Lengths of that sum, the first the longest, the others crowding at the short end.
fn mixed(
    rng: &mut ChaCha8Rng,
    rows: usize,
    range: std::ops::RangeInclusive<usize>,
    sum: usize,
) -> Vec<usize> {
    let (shortest, longest) = (*range.start(), *range.end());
    let mut lengths: Vec<usize> = (0..rows)
        .map(|_| {
            // The cube of an even draw: half of the lengths lie in the lowest eighth of the range.
            let draw = rng.random_range(0.0..1.0f64).powi(3);
            shortest + (draw * (longest - shortest) as f64) as usize
        })
        .collect();
    lengths[0] = longest;
    loop {
        let total: usize = lengths.iter().sum();
        let row = rng.random_range(1..rows);
        match total.cmp(&sum) {
            std::cmp::Ordering::Equal => return lengths,
            std::cmp::Ordering::Less => lengths[row] = (lengths[row] + 1).min(longest),
            std::cmp::Ordering::Greater => lengths[row] = (lengths[row] - 1).max(shortest),
        }
    }
}

fn tokenized(files: &Files) -> anyhow::Result<Vec<Vec<i64>>> {
    let mut tokenizer =
        tokenizers::Tokenizer::from_file(files.tokenizer()).map_err(anyhow::Error::from_boxed)?;
    // The file may ask for padding to a fixed length.
    tokenizer.with_padding(None);
    SENTENCES
        .lines()
        .map(|sentence| {
            let encoding = tokenizer.encode(sentence, true).map_err(anyhow::Error::from_boxed)?;
            Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
        })
        .collect()
}

/// The files of one model, as models.py writes them.
#[derive(Debug, Clone)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// config.json.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.json")
    }

    /// The checkpoint.
    pub fn weights(&self) -> PathBuf {
        self.folder.join("model.safetensors")
    }

    /// The graph as exported at opset 17.
    pub fn graph(&self) -> PathBuf {
        self.folder.join("model.onnx")
    }

    /// The graph as ONNX Runtime's transformers optimizer writes it.
    pub fn optimized(&self) -> PathBuf {
        self.folder.join("optimized.onnx")
    }

    /// The graph as exported at opset 14.
    pub fn opset14(&self) -> PathBuf {
        self.folder.join("opset14.onnx")
    }

    /// The tokenizer; bert-base has none.
    pub fn tokenizer(&self) -> PathBuf {
        self.folder.join("tokenizer.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_lengths_have_the_sum_and_the_range() {
        let lengths = mixed(&mut ChaCha8Rng::seed_from_u64(SEED), 32, 5..=128, 837);
        assert_eq!(lengths.len(), 32);
        assert_eq!(lengths.iter().sum::<usize>(), 837);
        assert_eq!(lengths.iter().max(), Some(&128));
        assert!(lengths.iter().all(|length| (5..=128).contains(length)));
    }
}
