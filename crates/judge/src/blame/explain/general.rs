//! What can befall any module.

use candle_core::Result;

use super::attempts::Attempts;
use super::formulas::Grid;
use super::{Evidence, shown};

/// A description lists features only where they are no more than this part of all.
const FEW: usize = 4;

/// From how many positions on a row that is always the same is remarkable.
const ENOUGH_POSITIONS: usize = 3;

/// How many features a description lists.
const MOST_LISTED: usize = 4;

pub(super) fn explain(evidence: &Evidence<'_>, module: &str, attempts: &mut Attempts) -> Result<()> {
    let expected = attempts.expected.clone();
    attempts.offer(module, "all values are 0", &expected.zeros_like()?)?;
    let ratio = attempts.ratio(&attempts.found, &expected)?;
    if ratio.is_finite() {
        attempts.offer(module, &format!("scaled by {}", shown(ratio)), &(&expected * ratio)?)?;
    }
    for (grid, name) in [(Grid::F32, "f32"), (Grid::F16, "f16"), (Grid::BF16, "bf16")] {
        attempts.offer(module, &format!("output rounded to {name}"), &grid.round(&expected)?)?;
    }
    for other in evidence.neighbours(module, expected.dims()) {
        attempts.offer(module, &format!("gives the values of {other}"), &evidence.tap(other)?)?;
    }
    attempts.offer(module, "the first text's values for every text", &expected.narrow(0, 0, 1)?)?;
    if !attempts.is_explained() {
        constant_row(attempts)?;
        few_features(attempts)?;
    }
    Ok(())
}

/// The same difference at every position: a bias that is not the checkpoint's.
fn constant_row(attempts: &mut Attempts) -> Result<()> {
    let difference = attempts.difference()?;
    let Some(first) = difference.first().filter(|_| difference.len() >= ENOUGH_POSITIONS) else {
        return Ok(());
    };
    let mean: Vec<f64> = (0..first.len())
        .map(|feature| difference.iter().map(|row| row[feature]).sum::<f64>() / difference.len() as f64)
        .collect();
    let rest = difference.iter().flat_map(|row| row.iter().zip(&mean)).map(|(x, mean)| (x - mean).abs());
    let rest = rest.fold(0f64, f64::max);
    let noise = attempts.bound();
    if rest > noise {
        return Ok(());
    }
    let features: Vec<usize> = (0..mean.len()).filter(|&feature| mean[feature].abs() > noise).collect();
    let text = match features.as_slice() {
        [one] => format!("bias[{one}] is off by {}: the same at every position", shown(mean[*one])),
        _ => format!(
            "off by the same row at every position, as by another bias: by up to {}",
            shown(mean.iter().fold(0f64, |most, x| most.max(x.abs())))
        ),
    };
    attempts.describe(&text, rest);
    Ok(())
}

/// Which features differ, if they are few.
fn few_features(attempts: &mut Attempts) -> Result<()> {
    let difference = attempts.difference()?;
    let Some(width) = difference.first().map(Vec::len) else { return Ok(()) };
    let largest: Vec<f64> = (0..width)
        .map(|feature| difference.iter().fold(0f64, |most, row| most.max(row[feature].abs())))
        .collect();
    let noise = attempts.bound();
    let (wrong, right): (Vec<usize>, Vec<usize>) = (0..width).partition(|&feature| largest[feature] > noise);
    if wrong.is_empty() || wrong.len() * FEW > width {
        return Ok(());
    }
    let list: Vec<String> = wrong.iter().take(MOST_LISTED).map(|feature| feature.to_string()).collect();
    let more = if wrong.len() > MOST_LISTED { ", …" } else { "" };
    let text = match wrong.as_slice() {
        [one] => format!("only output feature {one} of {width} differs, by up to {}", shown(largest[*one])),
        _ => format!(
            "only {} of {width} output features differ ({}{more}), by up to {}",
            wrong.len(),
            list.join(", "),
            shown(attempts.before())
        ),
    };
    attempts.describe(&text, right.iter().fold(0f64, |most, &feature| most.max(largest[feature])));
    Ok(())
}
