//! The three lookups, their sum and its LayerNorm.

use std::collections::BTreeMap;

use architecture::{Op, Program, Wire};
use candle_core::{Result, Tensor};

use super::attempts::{Attempts, Emit};
use super::formulas::Grid;
use super::layer_norm::Normed;
use super::{Evidence, shown};

/// The inputs that tables are looked up by.
const FIRST: &str = "input_ids";
const TYPES: &str = "token_type_ids";

/// The most rows of a table that a description lists.
const MOST_ROWS: usize = 3;

/// How far a shift of positions is looked for. RoBERTa's are shifted by 2.
const FARTHEST_SHIFT: i64 = 4;

/// How the rows that one row of a table went into differ.
struct Row {
    difference: Vec<f64>,
    largest: f64,
    /// The same wherever it is.
    same: bool,
}

/// Whether a step adds up lookups.
pub(super) fn is_sum(program: &Program, step: usize) -> bool {
    let is_lookup = |wire: &Wire| {
        let op = wire.step().map(|step| &program.steps[step].op);
        matches!(op, Some(Op::Embedding { .. } | Op::Positions { .. }))
    };
    program.steps[step].op == Op::Sum && program.steps[step].inputs.iter().all(is_lookup)
}

/// A sum of lookups, and the LayerNorm that it is given to if no value shows it before.
pub(super) fn explain_sum(
    evidence: &Evidence<'_>,
    sum: usize,
    norm_step: Option<usize>,
    attempts: &mut Attempts,
) -> Result<()> {
    let tables: Vec<usize> =
        evidence.program.steps[sum].inputs.iter().filter_map(|wire| wire.step()).collect();
    let values: Vec<Tensor> = tables.iter().map(|&table| evidence.value(table)).collect::<Result<_>>()?;
    let whole = evidence.value(sum)?;
    let norm = Normed::of(evidence, norm_step, &whole, attempts)?;
    let normed = |x: &Tensor| norm.forward(x);
    let around = &evidence.program.steps[sum].module;
    for (&table, part) in tables.iter().zip(&values) {
        let module = evidence.path(table);
        let name = module.rsplit('.').next().unwrap_or(module);
        attempts.offer(module, "left out of the sum", &normed(&whole.broadcast_sub(part)?)?)?;
        attempts.offer(module, "added twice", &normed(&whole.broadcast_add(part)?)?)?;
        attempts.offer(around, &format!("only {name} are left"), &normed(part)?)?;
    }
    let asked_alone = norm_step.is_some_and(|step| attempts.module() == evidence.path(step));
    if attempts.is_explained() || asked_alone {
        return Ok(());
    }
    for (at, &table) in tables.iter().enumerate() {
        let module = evidence.path(table);
        lookups(evidence, table, &mut |text, value| {
            let others = values.iter().enumerate().filter(|(other, _)| *other != at);
            let sum =
                others.map(|(_, part)| part).try_fold(value.clone(), |sum, part| sum.broadcast_add(part))?;
            attempts.offer(module, text, &normed(&sum)?)
        })?;
    }
    Ok(())
}

/// A lookup with nothing changed.
#[cfg(test)]
pub(super) fn unchanged(evidence: &Evidence<'_>, step: usize) -> Result<Tensor> {
    let (batch, sequence) = evidence.dims()?;
    let name = evidence.tensor(step, "weight")?;
    let ids = match Keys::of(evidence, step) {
        Keys::Positions => {
            let places: Vec<usize> = places(evidence, step)?.into_iter().map(|at| at as usize).collect();
            return evidence.weights.rows(name, &places, &[places.len() / sequence, sequence]);
        }
        Keys::Tokens => evidence.input(FIRST, 0.)?,
        Keys::Types => evidence.input(TYPES, 0.)?,
    };
    let ids: Vec<usize> = ids.into_iter().map(|id| id as usize).collect();
    evidence.weights.rows(name, &ids, &[batch, sequence])
}

/// What a table is looked up by.
#[derive(Clone, Copy)]
enum Keys {
    Tokens,
    Types,
    Positions,
}

impl Keys {
    fn of(evidence: &Evidence<'_>, step: usize) -> Self {
        match evidence.program.steps[step].op {
            Op::Positions { .. } => Self::Positions,
            _ if evidence.program.is_of_first_input(step) => Self::Tokens,
            _ => Self::Types,
        }
    }
}

/// The position of every token, row by row; those of one row where all have the same.
fn places(evidence: &Evidence<'_>, step: usize) -> Result<Vec<i64>> {
    let (_, sequence) = evidence.dims()?;
    let Op::Positions { padding: Some(padding), .. } = evidence.program.steps[step].op else {
        return Ok((0..sequence as i64).collect());
    };
    let padding = padding as i64;
    let ids = evidence.input(FIRST, 0.)?;
    let text = |ids: &[f64]| -> Vec<i64> {
        let mut counted = 0;
        let place = |id: &f64| {
            let is_real = *id as i64 != padding;
            counted += i64::from(is_real);
            if is_real { padding + counted } else { padding }
        };
        ids.iter().map(place).collect()
    };
    Ok(ids.chunks(sequence.max(1)).flat_map(text).collect())
}

/// A lookup.
pub(super) fn explain(evidence: &Evidence<'_>, step: usize, attempts: &mut Attempts) -> Result<()> {
    let module = evidence.path(step);
    if !lookups(evidence, step, &mut |text, value| attempts.offer(module, text, value))? {
        describe(evidence, step, attempts)?;
    }
    Ok(())
}

/// Everything that may be wrong with one lookup.
fn lookups(evidence: &Evidence<'_>, step: usize, emit: &mut Emit<'_>) -> Result<bool> {
    let (batch, sequence) = evidence.dims()?;
    let name = evidence.tensor(step, "weight")?;
    let rows = evidence.weights.shape(name)?.first().copied().unwrap_or(1);
    let own = evidence.value(step)?;
    // Rows of the table, by numbers that are brought into its range.
    let by_token = |ids: &[i64]| {
        let ids: Vec<usize> = ids.iter().map(|&id| (id.max(0) as usize).min(rows - 1)).collect();
        evidence.weights.rows(name, &ids, &[ids.len() / sequence.max(1), sequence])
    };
    let whole = |name: &str, default| -> Result<Vec<i64>> {
        Ok(evidence.input(name, default)?.into_iter().map(|x| x as i64).collect())
    };
    let (ids, types, mask) =
        (whole("input_ids", 0.)?, whole("token_type_ids", 0.)?, whole("attention_mask", 1.)?);
    let mapped = |ids: &[i64], f: &dyn Fn(i64) -> i64| ids.iter().map(|&id| f(id)).collect::<Vec<_>>();

    let mut explained = emit("left out: all 0", &own.zeros_like()?)?;
    match Keys::of(evidence, step) {
        Keys::Tokens => {
            for by in [1, -1, 2, -2] {
                let shifted = mapped(&ids, &|id| (id + by).rem_euclid(rows as i64));
                explained |= emit(&format!("token ids shifted by {by:+}"), &by_token(&shifted)?)?;
            }
            let pad = evidence.pad as i64;
            let zero: Vec<f64> = ids.iter().map(|&id| f64::from(u8::from(id != pad))).collect();
            let zero = Tensor::from_vec(zero, (batch, sequence, 1), own.device())?;
            explained |= emit(&format!("the row of padding, token {pad}, is 0"), &own.broadcast_mul(&zero)?)?;
        }
        Keys::Types => {
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
        Keys::Positions => {
            let own = places(evidence, step)?;
            let padding = match evidence.program.steps[step].op {
                Op::Positions { padding, .. } => padding.map(|padding| padding as i64),
                _ => None,
            };
            explained |= positions(&own, padding, &mask, sequence, &by_token, emit)?;
        }
    }
    for (grid, name) in Grid::HALVES {
        explained |= emit(&format!("table rounded to {name}"), &grid.round(&own)?)?;
    }
    Ok(explained)
}

/// Everything that may be wrong with the positions of tokens, which are `own`.
fn positions(
    own: &[i64],
    padding: Option<i64>,
    mask: &[i64],
    sequence: usize,
    by_token: &dyn Fn(&[i64]) -> Result<Tensor>,
    emit: &mut Emit<'_>,
) -> Result<bool> {
    let count = sequence as i64;
    let row = |f: &dyn Fn(i64) -> i64| by_token(&own.iter().map(|&at| f(at)).collect::<Vec<_>>());
    let place = |f: &dyn Fn(i64) -> i64| {
        by_token(&(0..own.len() as i64).map(|token| f(token % count.max(1))).collect::<Vec<_>>())
    };
    let mut explained = emit("all positions take row 0", &row(&|_| 0)?)?;
    for by in (-FARTHEST_SHIFT..=FARTHEST_SHIFT).filter(|by| *by != 0) {
        let as_others = match (padding, by) {
            (None, 2) => ", as RoBERTa has them",
            (Some(1), -2) => ", as BERT has them",
            _ => "",
        };
        explained |= emit(&format!("positions shifted by {by:+}{as_others}"), &row(&|at| at + by)?)?;
    }
    let first = padding.map_or(0, |padding| padding + 1);
    explained |= emit("positions reversed", &place(&|at| first + count - 1 - at)?)?;
    if padding.is_some() {
        explained |= emit("positions counted over padding, too", &place(&|at| first + at)?)?;
        explained |=
            emit("positions counted from 0, over padding, too, as BERT has them", &place(&|at| at)?)?;
    }
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
        by_token(&ids)
    };
    let over = "positions counted over real tokens only";
    match padding {
        None => {
            explained |= emit(over, &counted(&|sum, _| sum - 1)?)?;
            explained |= emit(&format!("{over}, padding at 0"), &counted(&|sum, bit| sum * bit)?)?;
            explained |=
                emit(&format!("{over}, from 2, as RoBERTa has them"), &counted(&|sum, bit| sum * bit + 1)?)?;
        }
        Some(padding) => {
            let by_mask = counted(&|sum, bit| sum * bit + padding)?;
            explained |= emit(&format!("{over}, by the mask and not by their ids"), &by_mask)?;
        }
    }
    Ok(explained)
}

/// Rows of the table that differ, where others do not.
fn describe(evidence: &Evidence<'_>, step: usize, attempts: &mut Attempts) -> Result<()> {
    let of = Keys::of(evidence, step);
    let ids = |name| -> Result<Vec<usize>> {
        Ok(evidence.input(name, 0.)?.into_iter().map(|id| id as usize).collect())
    };
    let keys: Vec<usize> = match of {
        Keys::Tokens => ids(FIRST)?,
        Keys::Types => ids(TYPES)?,
        Keys::Positions => {
            let places = places(evidence, step)?;
            places.iter().cycle().take(attempts.rows()).map(|&at| at as usize).collect()
        }
    };
    let noise = attempts.bound();
    let mut seen: BTreeMap<usize, Row> = BTreeMap::new();
    for (row, difference) in attempts.deciding().into_iter().zip(attempts.difference()?) {
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
    let what = match of {
        Keys::Tokens => "token",
        Keys::Types => "type",
        Keys::Positions => "position",
    };
    let (rows, s, verb) = match list.len() {
        1 => ("row", "", "differs"),
        _ => ("rows", "s", "differ"),
    };
    let by = shown(largest(wrong));
    attempts.describe(
        &format!("only the {rows} of {what}{s} {} {verb}, by up to {by}", list.join(", ")),
        largest(right),
    );
    Ok(())
}
