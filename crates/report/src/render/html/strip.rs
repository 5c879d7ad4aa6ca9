//! The modules as a table of shades, a row for each layer.

use super::super::heat::{Cell, Grid, Heat, Row};
use super::super::words::{NAME, escaped, or_dash};

/// The style of a shade; see `page.css`.
pub(super) fn class(heat: Heat) -> &'static str {
    match heat {
        Heat::Unknown => "h-",
        Heat::Cold => "h0",
        Heat::Within => "h1",
        Heat::Beyond => "h2",
        Heat::Far => "h3",
        Heat::Off => "h4",
    }
}

/// The exponent of an error, which tells as much as the shade: `-13` is 1e-13 to 9.9e-13.
pub(super) fn exponent(error: f64) -> String {
    if error == 0.0 { "0".into() } else { format!("{}", error.log10().floor()).replace('-', "−") }
}

/// The picture.
pub(super) fn strip(grid: &Grid) -> String {
    let layers: Vec<&Row> = grid.rows.iter().filter(|row| row.layer).collect();
    let columns: Vec<&str> = layers
        .first()
        .map(|row| row.cells.iter().map(|cell| cell.as_ref().map_or("", |cell| cell.label)).collect())
        .unwrap_or_default();
    let mut table = String::new();
    if !columns.is_empty() {
        let groups = grid.groups.iter().map(|(name, width)| {
            format!("<th colspan=\"{width}\" scope=\"colgroup\">{}</th>", escaped(name, NAME))
        });
        let groups: String = groups.collect();
        let labels: String =
            columns.iter().map(|label| format!("<th scope=\"col\">{}</th>", escaped(label, NAME))).collect();
        let rows: String = layers
            .iter()
            .map(|row| {
                let cells: String = row.cells.iter().map(|part| cell(part.as_ref(), "td")).collect();
                format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escaped(row.label, NAME))
            })
            .collect();
        table = format!(
            "<table class=\"strip\"><thead><tr><td></td>{groups}</tr><tr><td></td>{labels}</tr></thead><tbody>\n{rows}</tbody></table>\n"
        );
    }
    let line = |row: &Row| {
        let cells = row.cells.iter().flatten();
        let cells: String = cells
            .map(|part| {
                format!(
                    "<span class=\"part\">{} {}</span> ",
                    escaped(part.label, NAME),
                    cell(Some(part), "span")
                )
            })
            .collect();
        format!("<p class=\"parts\"><b>{}</b> {cells}</p>\n", escaped(row.label, NAME))
    };
    let at = grid.rows.iter().position(|row| row.layer).unwrap_or(grid.rows.len());
    let (before, after) = grid.rows.split_at(at);
    let after = after.iter().filter(|row| !row.layer);
    format!(
        "<figure>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Error of each module by itself\">\n{}{table}{}</div>\n\
         <figcaption>{}</figcaption>\n</figure>\n",
        before.iter().map(line).collect::<String>(),
        after.map(line).collect::<String>(),
        legend(grid.allowed)
    )
}

fn cell(cell: Option<&Cell>, element: &str) -> String {
    let Some(cell) = cell else { return format!("<{element}></{element}>") };
    let module = cell.module;
    let text = cell.module.relative().map_or("?".into(), exponent);
    let (mark, word) = if module.culprit { (" culprit", ", a culprit") } else { ("", "") };
    format!(
        "<{element} class=\"cell {}{mark}\" title=\"{}: own error {}, inherited {}{word}\">{text}</{element}>",
        class(cell.heat),
        escaped(&module.module, NAME),
        or_dash(module.own),
        or_dash(module.inherited)
    )
}

/// The shades and where each ends.
pub(super) fn steps(allowed: f64) -> String {
    let known = Heat::KNOWN.iter().zip(Heat::STEPS);
    let keys: String = known
        .map(|(&heat, step)| {
            let bound = if step == 1.0 { ", what is allowed" } else { "" };
            let class = class(heat);
            format!(
                "<span class=\"key\"><span class=\"cell {class}\"></span> ≤ {:.0e}{bound}</span> ",
                step * allowed
            )
        })
        .collect();
    format!("{keys}<span class=\"key\"><span class=\"cell {}\"></span> above</span> ", class(Heat::Off))
}

fn legend(allowed: f64) -> String {
    format!(
        "Each number is the power of ten of a module's own error, over its largest value where that is above 1: −13 is 1e-13 to 1e-12. {}\
         <span class=\"key\"><span class=\"cell h-\">?</span> no value of the graph shows it</span> \
         <span class=\"key\"><span class=\"cell h0 culprit\"></span> framed: a culprit</span>",
        steps(allowed)
    )
}
