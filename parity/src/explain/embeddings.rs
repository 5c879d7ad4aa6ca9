//! The three lookups, their sum and its LayerNorm.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};

use super::formulas::Grid;
use super::trial::{Emit, Trial};
use super::{Evidence, layer_norm, shown};

const TABLES: [&str; 3] = ["word_embeddings", "token_type_embeddings", "position_embeddings"];

/// The most rows of a table that a description lists.
const MOST_ROWS: usize = 3;

/// How far a shift of positions is looked for. RoBERTa's are shifted by 2.
const FARTHEST_SHIFT: i64 = 4;

/// Row numbers, and the shape they are for, to rows.
type LookUp<'a> = dyn Fn(&[i64], &[usize]) -> Result<Tensor> + 'a;

/// How the rows that one row of a table went into differ.
struct Row {
    difference: Vec<f64>,
    largest: f64,
    /// The same wherever it is.
    same: bool,
}

pub(super) fn explain(evidence: &Evidence<'_>, trial: &mut Trial) -> Result<()> {
    let tap = |table: &str| evidence.tap(&format!("embeddings.{table}"));
    let [word, types, position] = [tap(TABLES[0])?, tap(TABLES[1])?, tap(TABLES[2])?];
    let sum = |word: &Tensor, types: &Tensor, position: &Tensor| (word + types)?.broadcast_add(position);
    let whole = sum(&word, &types, &position)?;
    layer_norm::variants(evidence, "embeddings", &whole, trial)?;

    let norm = layer_norm::norm(evidence, "embeddings")?;
    for (table, part) in TABLES.iter().zip([&word, &types, &position]) {
        let module = format!("embeddings.{table}");
        trial.offer(&module, "left out of the sum", &norm.forward(&whole.broadcast_sub(part)?)?)?;
        trial.offer(&module, "added twice", &norm.forward(&whole.broadcast_add(part)?)?)?;
        trial.offer("embeddings", &format!("only {table} are left"), &norm.forward(part)?)?;
    }
    if trial.is_explained() || trial.module().ends_with("LayerNorm") {
        return Ok(());
    }
    for (at, table) in TABLES.iter().enumerate() {
        let module = format!("embeddings.{table}");
        lookups(evidence, table, &mut |text, value| {
            let value = match at {
                0 => value.broadcast_add(&types)?.broadcast_add(&position)?,
                1 => word.broadcast_add(value)?.broadcast_add(&position)?,
                _ => (&word + &types)?.broadcast_add(value)?,
            };
            trial.offer(&module, text, &norm.forward(&value)?)
        })?;
    }
    Ok(())
}

/// A lookup with nothing changed.
#[cfg(test)]
pub(super) fn unchanged(evidence: &Evidence<'_>, module: &str) -> Result<Tensor> {
    let (batch, sequence) = evidence.dims()?;
    let name = format!("{module}.weight");
    let ids = match module.trim_start_matches("embeddings.") {
        "position_embeddings" => {
            return evidence.weights.rows(&name, &(0..sequence).collect::<Vec<_>>(), &[1, sequence]);
        }
        "word_embeddings" => evidence.input("input_ids", 0.)?,
        _ => evidence.input("token_type_ids", 0.)?,
    };
    let ids: Vec<usize> = ids.into_iter().map(|id| id as usize).collect();
    evidence.weights.rows(&name, &ids, &[batch, sequence])
}

/// The normalised sum with nothing changed.
#[cfg(test)]
pub(super) fn unchanged_sum(evidence: &Evidence<'_>) -> Result<Tensor> {
    let tap = |table: &str| evidence.tap(&format!("embeddings.{table}"));
    let sum = (tap(TABLES[0])? + tap(TABLES[1])?)?.broadcast_add(&tap(TABLES[2])?)?;
    layer_norm::norm(evidence, "embeddings")?.forward(&sum)
}

/// `module` is one of the three.
pub(super) fn explain_table(evidence: &Evidence<'_>, module: &str, trial: &mut Trial) -> Result<()> {
    let table = module.trim_start_matches("embeddings.");
    if !lookups(evidence, table, &mut |text, value| trial.offer(module, text, value))? {
        describe(evidence, table, trial)?;
    }
    Ok(())
}

/// Everything that may be wrong with one lookup.
fn lookups(evidence: &Evidence<'_>, table: &str, emit: &mut Emit<'_>) -> Result<bool> {
    let (batch, sequence) = evidence.dims()?;
    let rows = match table {
        "word_embeddings" => evidence.config.vocab_size,
        "token_type_embeddings" => evidence.config.type_vocab_size,
        _ => evidence.config.max_position_embeddings,
    };
    let name = format!("embeddings.{table}.weight");
    let own = evidence.tap(&format!("embeddings.{table}"))?;
    // Rows of the table, by numbers that are brought into its range.
    let look_up = |ids: &[i64], shape: &[usize]| {
        let ids: Vec<usize> = ids.iter().map(|&id| (id.max(0) as usize).min(rows - 1)).collect();
        evidence.weights.rows(&name, &ids, shape)
    };
    let by_token = |ids: &[i64]| look_up(ids, &[batch, sequence]);
    let whole = |name: &str, default| -> Result<Vec<i64>> {
        Ok(evidence.input(name, default)?.into_iter().map(|x| x as i64).collect())
    };
    let (ids, types, mask) =
        (whole("input_ids", 0.)?, whole("token_type_ids", 0.)?, whole("attention_mask", 1.)?);
    let mapped = |ids: &[i64], f: &dyn Fn(i64) -> i64| ids.iter().map(|&id| f(id)).collect::<Vec<_>>();

    let mut explained = emit("left out: all 0", &own.zeros_like()?)?;
    match table {
        "word_embeddings" => {
            for by in [1, -1, 2, -2] {
                let shifted = mapped(&ids, &|id| (id + by).rem_euclid(rows as i64));
                explained |= emit(&format!("token ids shifted by {by:+}"), &by_token(&shifted)?)?;
            }
            let pad = evidence.config.pad_token_id as i64;
            let zero: Vec<f64> = ids.iter().map(|&id| f64::from(u8::from(id != pad))).collect();
            let zero = Tensor::from_vec(zero, (batch, sequence, 1), own.device())?;
            explained |= emit(&format!("the row of padding, token {pad}, is 0"), &own.broadcast_mul(&zero)?)?;
        }
        "token_type_embeddings" => {
            for row in 0..rows.min(4) as i64 {
                let value = by_token(&mapped(&types, &|_| row))?;
                explained |= emit(&format!("token types ignored: all take row {row}"), &value)?;
            }
            let inverted = by_token(&mapped(&types, &|id| rows as i64 - 1 - id))?;
            explained |= emit("token types inverted", &inverted)?;
            explained |= emit("takes attention_mask for token_type_ids", &by_token(&mask)?)?;
            let inverted = by_token(&mapped(&mask, &|bit| 1 - bit))?;
            explained |= emit("takes attention_mask, inverted, for token_type_ids", &inverted)?;
        }
        _ => explained |= positions(sequence, &mask, &look_up, &[batch, sequence], emit)?,
    }
    for (grid, name) in Grid::HALVES {
        explained |= emit(&format!("table rounded to {name}"), &grid.round(&own)?)?;
    }
    Ok(explained)
}

fn positions(
    sequence: usize,
    mask: &[i64],
    look_up: &LookUp<'_>,
    by_text: &[usize],
    emit: &mut Emit<'_>,
) -> Result<bool> {
    let count = sequence as i64;
    let row = |f: &dyn Fn(i64) -> i64| look_up(&(0..count).map(f).collect::<Vec<_>>(), &[1, sequence]);
    let mut explained = emit("all positions take row 0", &row(&|_| 0)?)?;
    for by in (-FARTHEST_SHIFT..=FARTHEST_SHIFT).filter(|by| *by != 0) {
        let as_roberta = if by == 2 { ", as RoBERTa has them" } else { "" };
        explained |= emit(&format!("positions shifted by {by:+}{as_roberta}"), &row(&|at| at + by)?)?;
    }
    explained |= emit("positions reversed", &row(&|at| count - 1 - at)?)?;
    // Σ of the mask up to each position.
    let counted = |f: &dyn Fn(i64, i64) -> i64| {
        let texts = mask.chunks(sequence.max(1));
        let ids: Vec<i64> = texts
            .flat_map(|bits| {
                bits.iter().scan(0, |sum, &bit| {
                    *sum += bit;
                    Some(f(*sum, bit))
                })
            })
            .collect();
        look_up(&ids, by_text)
    };
    explained |= emit("positions counted over real tokens only", &counted(&|sum, _| sum - 1)?)?;
    explained |=
        emit("positions counted over real tokens only, padding at 0", &counted(&|sum, bit| sum * bit)?)?;
    explained |= emit(
        "positions counted over real tokens only, from 2, as RoBERTa has them",
        &counted(&|sum, bit| sum * bit + 1)?,
    )?;
    Ok(explained)
}

/// Rows of the table that differ, where others do not.
fn describe(evidence: &Evidence<'_>, table: &str, trial: &mut Trial) -> Result<()> {
    let (_, sequence) = evidence.dims()?;
    let keys: Vec<usize> = match table {
        "word_embeddings" => evidence.input("input_ids", 0.)?.into_iter().map(|id| id as usize).collect(),
        "token_type_embeddings" => {
            evidence.input("token_type_ids", 0.)?.into_iter().map(|id| id as usize).collect()
        }
        _ => (0..trial.rows()).map(|row| row % sequence.max(1)).collect(),
    };
    let noise = trial.bound();
    let mut seen: BTreeMap<usize, Row> = BTreeMap::new();
    for (row, difference) in trial.deciding().into_iter().zip(trial.difference()?) {
        let Some(&key) = keys.get(row) else { return Ok(()) };
        let largest = difference.iter().fold(0f64, |most, x| most.max(x.abs()));
        let row =
            seen.entry(key).or_insert_with(|| Row { difference: difference.clone(), largest, same: true });
        row.same &= row.difference.iter().zip(&difference).all(|(a, b)| (a - b).abs() <= noise);
    }
    let (wrong, right): (Vec<_>, Vec<_>) = seen.iter().partition(|(_, row)| row.largest > noise);
    if right.is_empty() || wrong.len() > MOST_ROWS || wrong.iter().any(|(_, row)| !row.same) {
        return Ok(());
    }
    let largest =
        |rows: Vec<(&usize, &Row)>| rows.into_iter().fold(0f64, |most, (_, row)| most.max(row.largest));
    let list: Vec<String> = wrong.iter().map(|(key, _)| key.to_string()).collect();
    let what = match table {
        "word_embeddings" => "token",
        "token_type_embeddings" => "type",
        _ => "position",
    };
    let (rows, s, verb) = match list.len() {
        1 => ("row", "", "differs"),
        _ => ("rows", "s", "differ"),
    };
    let by = shown(largest(wrong));
    trial.describe(
        &format!("only the {rows} of {what}{s} {} {verb}, by up to {by}", list.join(", ")),
        largest(right),
    );
    Ok(())
}
