//! Which tokens leave a LayerNorm nothing to normalise.

use architecture::{Family, Op, Step, Task, Tensor, TensorId};
use checkpoint::{Checkpoint, TensorEntry};
use engine::{Value, ValueError};

/// The embedding tables of a checkpoint whose sum the first LayerNorm is given, by reference:
/// nothing is copied before a row is read.
///
/// LayerNorm's eps stands beside the variance of what it normalises, so that a wrong one shows first where that variance is lowest. The first
/// LayerNorm sees `word[id] + token_type[type] + position[i]`, which the inputs choose.
pub struct EmbeddingTables {
    word: TensorEntry,
    /// One row of zeros where there is none.
    token_type: Option<TensorEntry>,
    position: Option<TensorEntry>,
    /// The id whose tokens are not counted as positions: the rows up to its own are not for others.
    padding: Option<usize>,
    hidden: usize,
}

/// A token by its id and type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) id: i64,
    pub(super) token_type: i64,
}

impl EmbeddingTables {
    /// The tables of a checkpoint; nothing if they are not all there, of the shapes that the config
    /// gives them, in floats, or if the first LayerNorm is given something else. What is wrong then
    /// is told where the model is loaded.
    pub fn of(checkpoint: &Checkpoint, family: &dyn Family) -> Option<Self> {
        let program = family.program(Task::FeatureExtraction, &|_| false).ok()?;
        let is_norm = |step: &&Step| matches!(step.op, Op::LayerNorm { .. });
        let sum = program.steps.iter().find(is_norm)?.inputs.first()?.step()?;
        let find = |table: TensorId| {
            let Tensor { name, shape, .. } = &program.tensors[table];
            // Whatever stands before it: the model is loaded elsewhere, and finds that out.
            let is_it = |found: &&str| {
                found.strip_suffix(name).is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
            };
            let entry = checkpoint.get(checkpoint.names().find(is_it)?)?;
            (entry.shape == *shape && entry.dtype.is_float()).then(|| entry.clone())
        };
        let (mut word, mut token_type, mut position, mut not_counted) = (None, None, None, None);
        for part in &program.steps[sum].inputs {
            let step = part.step()?;
            match program.steps[step].op {
                Op::Embedding { table } if program.is_of_first_input(step) => word = Some(find(table)?),
                Op::Embedding { table } if token_type.is_none() => token_type = Some(find(table)?),
                Op::Positions { table, padding } => {
                    position = Some(find(table)?);
                    not_counted = padding;
                }
                _ => return None,
            }
        }
        let word = word?;
        let hidden = *word.shape.last()?;
        Some(Self { word, token_type, position, padding: not_counted, hidden })
    }

    /// For each of the first positions, the token whose sum of embeddings has the lowest variance there; the first where several have.
    ///
    /// One pass over the vocabulary, a row at a time. With a = word[id] and b = token_type[type] + position[i], each less its own mean, the
    /// variance is (|a|² + 2 a·b + |b|²) / hidden_size.
    pub(super) fn lowest_variance(&self, positions: usize) -> Result<Vec<Token>, ValueError> {
        let (position_table, type_table) = (self.position.as_ref(), self.token_type.as_ref());
        let before = self.padding.map_or(0, |padding| padding + 1);
        let positions = positions.min(position_table.map_or(1, rows).saturating_sub(before));
        let mut others = Vec::new();
        for position in 0..positions {
            for token_type in 0..type_table.map_or(1, rows) {
                let row = |table: Option<&TensorEntry>, at| match table {
                    Some(table) => self.row(table, at),
                    None => Ok(vec![0.0; self.hidden]),
                };
                let mut sum = row(position_table, before + position)?;
                let types = row(type_table, token_type)?;
                sum.iter_mut().zip(types).for_each(|(sum, x)| *sum += x);
                let sum = centred(sum);
                others.push((position, token_type, dot(&sum, &sum), sum));
            }
        }
        let mut best = vec![(f64::INFINITY, Token { id: 0, token_type: 0 }); positions];
        for id in (0..rows(&self.word)).filter(|&id| Some(id) != self.padding) {
            let word = centred(self.row(&self.word, id)?);
            let square = dot(&word, &word);
            for (position, token_type, other_square, other) in &others {
                let variance = square + 2.0 * dot(&word, other) + other_square;
                if variance < best[*position].0 {
                    best[*position] = (variance, Token { id: id as i64, token_type: *token_type as i64 });
                }
            }
        }
        Ok(best.into_iter().map(|(_, token)| token).collect())
    }

    fn row(&self, table: &TensorEntry, row: usize) -> Result<Vec<f64>, ValueError> {
        let bytes = self.hidden * table.dtype.size();
        let row = table.bytes.get(row * bytes..(row + 1) * bytes).unwrap_or_default();
        Ok(Value::from_le_bytes(table.dtype, [self.hidden], row)?.to_f64())
    }
}

fn rows(table: &TensorEntry) -> usize {
    table.shape.first().copied().unwrap_or(0)
}

fn centred(mut row: Vec<f64>) -> Vec<f64> {
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    row.iter_mut().for_each(|x| *x -= mean);
    row
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use candle_bert::BertConfig;
    use engine::NamedValues;

    use super::*;

    /// As the checkpoint's own files are: written by [`crate::tensors::write`].
    fn checkpoint(prefix: &str, tables: [(&str, Vec<[f32; 2]>); 3]) -> Checkpoint {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.safetensors");
        let values: NamedValues = tables
            .into_iter()
            .map(|(table, rows)| {
                let name = format!("{prefix}embeddings.{table}_embeddings.weight");
                (name, Value::new([rows.len(), 2], rows.concat()).unwrap())
            })
            .collect();
        crate::tensors::write(&file, &values).unwrap();
        Checkpoint::from_safetensors("m", Bytes::from(std::fs::read(file).unwrap())).unwrap()
    }

    fn config() -> BertConfig {
        BertConfig::from_json(
            br#"{"vocab_size": 4, "type_vocab_size": 2, "max_position_embeddings": 3, "hidden_size": 2, "num_attention_heads": 1}"#,
        )
        .unwrap()
    }

    #[test]
    fn the_tokens_of_lowest_variance_are_found_at_each_position() {
        let words = vec![[0.0, 9.0], [3.0, 1.0], [0.0, 5.0], [7.0, 7.5]];
        // Position 0 evens word 2 out with type 0; position 1 word 1 with type 1; position 2 nothing but word 3.
        let tables = [
            ("word", words),
            ("token_type", vec![[0.0, 0.0], [0.0, 1.0]]),
            ("position", vec![[5.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),
        ];
        for prefix in ["", "bert."] {
            let tables = EmbeddingTables::of(&checkpoint(prefix, tables.clone()), &config()).unwrap();
            let tokens = tables.lowest_variance(9).unwrap();
            let found: Vec<(i64, i64)> = tokens.iter().map(|token| (token.id, token.token_type)).collect();
            assert_eq!(found, [(2, 0), (1, 1), (3, 0)]);
        }
    }

    #[test]
    fn tables_that_do_not_fit_the_config_are_none() {
        let table = |rows: usize| vec![[1.0f32, 2.0]; rows];
        let with = |words, types, positions| {
            let tables =
                [("word", table(words)), ("token_type", table(types)), ("position", table(positions))];
            EmbeddingTables::of(&checkpoint("", tables), &config()).is_some()
        };
        assert!(with(4, 2, 3));
        assert!(!with(5, 2, 3) && !with(4, 1, 3) && !with(4, 2, 4));
    }
}
