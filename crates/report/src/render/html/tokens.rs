//! The errors of one input, a shade for each token.

use super::super::heat::Heat;
use super::super::words::{NAME, escaped, number};
use super::strip::{class, exponent, steps};
use crate::TokenErrors;

/// As many positions are drawn; rows beyond that are left out, the worst are kept.
const POSITIONS: usize = 1024;

/// The picture, with a sentence on where the error is largest. `allowed` is what a value may be off
/// there.
pub(super) fn picture(tokens: &TokenErrors, allowed: f64) -> String {
    let [input, output] = [&tokens.input, &tokens.output].map(|name| escaped(name, NAME));
    let how = if tokens.side == "f64" { "in" } else { "on" };
    let side = format!("{how} {}", escaped(&tokens.side, NAME));
    let worst = match tokens.worst() {
        Some((row, position, error)) if error.is_finite() => {
            format!("It is largest at row {row}, position {position}: {}.", number(error))
        }
        Some((row, position, _)) => {
            format!(
                "At row {row}, position {position}, and {} in all, values are not finite.",
                tokens.not_finite.len()
            )
        }
        None => "No position decides.".into(),
    };
    let rows = shown_rows(tokens);
    let left_out = tokens.batch.saturating_sub(rows.len());
    let more = if left_out == 0 { String::new() } else { format!(" {left_out} more rows are not drawn.") };
    let drawn: String = rows.iter().map(|&row| self::row(tokens, row, allowed)).collect();
    format!(
        "<h3><code>{output}</code> of the graph {side}, on “{input}”</h3>\n<figure class=\"tokens\">\n{drawn}<figcaption>A cell for each token, with the power of ten of its \
         largest error; padding is empty, the largest is framed. {worst}{more} {}</figcaption>\n</figure>\n",
        steps(allowed)
    )
}

/// Rows in their order, as many as are drawn; the worst where not all are.
fn shown_rows(tokens: &TokenErrors) -> Vec<usize> {
    let most = (POSITIONS / tokens.sequence.max(1)).max(1);
    let mut rows: Vec<usize> = (0..tokens.batch).collect();
    let error = |row: usize| {
        let errors = tokens.errors.iter().skip(row * tokens.sequence).take(tokens.sequence).flatten();
        let finite = !tokens.not_finite.iter().any(|at| at[0] == row);
        if finite { errors.copied().fold(0.0, f64::max) } else { f64::INFINITY }
    };
    rows.sort_by(|a, b| error(*b).total_cmp(&error(*a)));
    rows.truncate(most);
    rows.sort_unstable();
    rows
}

fn row(tokens: &TokenErrors, row: usize, allowed: f64) -> String {
    let worst = tokens.worst().map(|(row, position, _)| (row, position));
    let cells: String = (0..tokens.sequence.min(POSITIONS))
        .map(|position| {
            let mark = if worst == Some((row, position)) { " culprit" } else { "" };
            match tokens.errors.get(row * tokens.sequence + position).copied().flatten() {
                Some(error) => format!(
                    "<i class=\"{}{mark}\" title=\"{position}: {}\">{}</i>",
                    class(Heat::of(Some(error), allowed)),
                    number(error),
                    exponent(error)
                ),
                None if tokens.not_finite.contains(&[row, position]) => {
                    format!("<i class=\"{}{mark}\" title=\"{position}: not finite\">∞</i>", class(Heat::Off))
                }
                None => format!("<i class=\"pad\" title=\"{position}: padding\"></i>"),
            }
        })
        .collect();
    format!("<div class=\"row\"><b>{row}</b><div>{cells}</div></div>\n")
}
