//! What a selftest found, as a person reads it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{BOLD, DIM, color, table};
use crate::{Outcome, Selftest};

/// What each row of the list of faults is.
fn kind(row: u8) -> &'static str {
    match row {
        1 => "activation",
        2 => "LayerNorm eps",
        5 => "mask ignored or inverted",
        6 => "mask taken for a length",
        7 => "inputs exchanged",
        8 => "token types",
        9 => "positions",
        10 => "sizes frozen",
        11 => "dropout",
        12 => "weights",
        14 => "biases",
        15 => "attention scale",
        16 => "pooler",
        18 => "outputs exchanged",
        22 => "engine",
        24 => "normalisation",
        25 => "no other function",
        28 => "softmax",
        29 => "residual connections",
        34 => "off the samples",
        35 => "weights moved",
        36 => "distances",
        37 => "angles",
        38 => "windows",
        39 => "gates",
        30 => "NaN",
        31 => "outputs renamed",
        _ => "other",
    }
}

/// Writes a table by kind, and everything that did not come out as it had to.
///
/// # Errors
/// Those of the writer.
pub fn selftest(out: &mut impl Write, result: &Selftest) -> io::Result<()> {
    let style = color(result.verdict);
    let word = result.verdict.to_string().to_uppercase();
    let Selftest {
        faults, caught, located, locatable, explained, explainable, harmless, false_alarms, ..
    } = result;
    writeln!(
        out,
        "{style}{word}{style:#}  {caught} of {faults} planted faults are caught in {}",
        result.onnx
    )?;
    writeln!(out)?;
    writeln!(
        out,
        "  first culprit right: {located} of {locatable}; explained: {explained} of {explainable}; false alarms: {false_alarms} of {harmless}"
    )?;
    writeln!(out)?;
    let mut rows: BTreeMap<u8, Vec<&Outcome>> = BTreeMap::new();
    for outcome in &result.outcomes {
        rows.entry(outcome.row).or_default().push(outcome);
    }
    let share = |all: &[&Outcome], pick: &dyn Fn(&Outcome) -> Option<bool>| {
        let judged: Vec<bool> = all.iter().filter_map(|outcome| pick(outcome)).collect();
        match judged.len() {
            0 => "–".to_string(),
            all => format!("{}/{all}", judged.iter().filter(|right| **right).count()),
        }
    };
    let by = |all: &[&Outcome]| {
        let seen = ["audit", "proof", "f32", "stress", "error"];
        let seen = seen.iter().filter(|way| all.iter().any(|outcome| outcome.by.iter().any(|by| by == *way)));
        seen.copied().collect::<Vec<_>>().join(", ")
    };
    let lines = rows.iter().map(|(row, all)| {
        vec![
            kind(*row).to_string(),
            share(all, &|outcome| Some(outcome.right)),
            share(all, &|outcome| outcome.located),
            share(all, &|outcome| outcome.explained),
            by(all),
        ]
    });
    table(out, &["fault", "as it should", "located", "explained", "seen by"], 1..4, lines)?;
    let wrong = |outcome: &&Outcome| {
        !outcome.right || outcome.located == Some(false) || outcome.explained == Some(false)
    };
    for outcome in result.outcomes.iter().filter(wrong) {
        writeln!(out)?;
        let what = match (outcome.right, outcome.located) {
            (false, _) => format!("came out {}", outcome.verdict),
            (true, Some(false)) => "was put on another module".to_string(),
            _ => "was not explained".to_string(),
        };
        writeln!(out, "{BOLD}{}{BOLD:#} {what}", outcome.fault)?;
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "–".into());
        writeln!(
            out,
            "  {DIM}in {}, named {}: {}{DIM:#}",
            text(&outcome.module),
            text(&outcome.named),
            text(&outcome.explanation)
        )?;
    }
    Ok(())
}
