//! The errors of all modules over the whole model, on a logarithmic axis.

use super::super::heat::{Cell, Grid};
use super::super::words::{NAME, escaped, or_dash};
use crate::{Culprit, ModuleError};

const HEIGHT: f64 = 300.0;
/// Room for the names of the axis, above for the culprits' numbers, and below for the layers'
/// names.
const LEFT: f64 = 56.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 26.0;
const RIGHT: f64 = 8.0;

/// The least width of the drawing, and of one module in it.
const WIDTH: f64 = 860.0;
const STEP: f64 = 7.0;

/// A line that has not to be drawn below this: f64 ends there.
const FLOOR: i32 = -18;

/// Where things lie.
struct Axes {
    step: f64,
    width: f64,
    lowest: i32,
    highest: i32,
}

impl Axes {
    fn x(&self, column: usize) -> f64 {
        LEFT + self.step * (column as f64 + 0.5)
    }

    /// Zero, which has no logarithm, lies on the floor.
    fn y(&self, error: f64) -> f64 {
        let height = HEIGHT - TOP - BOTTOM;
        let range = f64::from(self.highest - self.lowest);
        let power = error.log10().clamp(f64::from(self.lowest), f64::from(self.highest));
        TOP + height * (f64::from(self.highest) - power) / range
    }

    fn floor(&self) -> f64 {
        HEIGHT - BOTTOM
    }
}

/// The picture; nothing where no error is known.
pub(super) fn chart(grid: &Grid, culprits: &[Culprit]) -> String {
    let cells: Vec<&Cell> = grid.cells().collect();
    let errors = cells.iter().flat_map(|cell| [cell.module.own, cell.module.inherited, cell.module.single]);
    let positive: Vec<f64> = errors.flatten().filter(|error| *error > 0.0 && error.is_finite()).collect();
    if positive.is_empty() {
        return String::new();
    }
    let bound = grid.allowed;
    let powers = positive.iter().copied().chain((bound > 0.0).then_some(bound)).map(f64::log10);
    let lowest = powers.clone().fold(0.0, f64::min).floor().max(f64::from(FLOOR)) as i32 - 1;
    let highest = powers.fold(f64::from(lowest), f64::max).ceil() as i32 + 1;
    let width = (STEP * cells.len() as f64).max(WIDTH - LEFT - RIGHT);
    let axes = Axes { step: width / cells.len() as f64, width: width + LEFT + RIGHT, lowest, highest };
    let own: String =
        cells.iter().enumerate().filter_map(|(column, cell)| stem(&axes, column, cell)).collect();
    let parts = [
        bands(&axes, grid),
        gridlines(&axes),
        bound_line(&axes, bound),
        path(&axes, &cells, "single", |module| module.single),
        path(&axes, &cells, "inherited", |module| module.inherited),
        own,
        numbers(&axes, &cells, culprits),
        columns(&axes, &cells),
    ];
    let has_single = cells.iter().any(|cell| cell.module.single.is_some());
    format!(
        "<figure>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Error of each module over the model\">\n\
         <svg class=\"chart\" viewBox=\"0 0 {width:.0} {HEIGHT}\" style=\"min-width:{least:.0}px\" role=\"img\">\n\
         <title>Absolute error by module on a logarithmic axis, in the order of execution. The table below has the numbers.</title>\n\
         {}</svg>\n</div>\n<figcaption>{}</figcaption>\n</figure>\n",
        parts.concat(),
        legend(has_single, !culprits.is_empty()),
        width = axes.width,
        least = axes.width * 0.8
    )
}

/// A background for every other layer, and its name.
fn bands(axes: &Axes, grid: &Grid) -> String {
    let mut out = String::new();
    let mut column = 0;
    for (number, row) in grid.rows.iter().enumerate() {
        let held = row.cells.iter().flatten().count();
        let (x, width) = (LEFT + axes.step * column as f64, axes.step * held as f64);
        if number % 2 == 1 {
            out += &format!(
                "<rect class=\"band\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\"/>\n",
                axes.floor() - TOP
            );
        }
        /// A letter of the axis takes about this.
        const LETTER: f64 = 6.5;
        let fits = |label: &str| LETTER * label.chars().count() as f64 <= width;
        let number: String = row.label.chars().filter(char::is_ascii_digit).collect();
        let label = match row.label {
            label if fits(label) => label,
            _ if row.layer => &number,
            "embeddings" => "emb",
            "pooler" => "pool",
            label => label,
        };
        out += &format!(
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            x + width / 2.0,
            HEIGHT - 8.0,
            escaped(label, NAME)
        );
        column += held;
    }
    out
}

fn gridlines(axes: &Axes) -> String {
    let powers = (axes.lowest + 1..axes.highest).filter(|power| power % 2 == 0);
    powers
        .map(|power| {
            let y = axes.y(10f64.powi(power));
            format!(
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\">1e{power}</text>\n",
                axes.width - RIGHT,
                LEFT - 6.0,
                y + 4.0
            )
        })
        .collect()
}

fn bound_line(axes: &Axes, bound: f64) -> String {
    if bound <= 0.0 {
        return String::new();
    }
    let y = axes.y(bound);
    format!(
        "<path class=\"bound\" d=\"M{LEFT} {y:.1}H{right:.1}\"/><text class=\"bound\" x=\"{:.1}\" y=\"{:.1}\">bound {bound:e}</text>\n",
        LEFT + 6.0,
        y - 5.0,
        right = axes.width - RIGHT
    )
}

/// A line through all modules that have this error, with a mark for each.
fn path(axes: &Axes, cells: &[&Cell], class: &str, of: fn(&ModuleError) -> Option<f64>) -> String {
    let mut commands = String::new();
    let mut marks = String::new();
    for (column, cell) in cells.iter().enumerate() {
        let Some(error) = of(cell.module).filter(|error| error.is_finite()) else { continue };
        let (x, y) = (axes.x(column), axes.y(error));
        commands += &format!("{}{x:.1} {y:.1}", if commands.is_empty() { 'M' } else { 'L' });
        marks += &format!("M{:.1} {:.1}h4v4h-4z", x - 2.0, y - 2.0);
    }
    if commands.is_empty() {
        return String::new();
    }
    format!("<path class=\"{class}\" d=\"{commands}\"/><path class=\"{class} mark\" d=\"{marks}\"/>\n")
}

/// A module's own error: a point on a stem.
fn stem(axes: &Axes, column: usize, cell: &Cell) -> Option<String> {
    let error = cell.module.own.filter(|error| error.is_finite())?;
    let (x, y) = (axes.x(column), axes.y(error));
    let (class, radius) = if cell.module.culprit { ("own off", 5.0) } else { ("own", 3.0) };
    Some(format!(
        "<path class=\"{class}\" d=\"M{x:.1} {:.1}V{y:.1}\"/><circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>\n",
        axes.floor()
    ))
}

/// The numbers of the culprits, as they are listed.
fn numbers(axes: &Axes, cells: &[&Cell], culprits: &[Culprit]) -> String {
    let mut out = String::new();
    for (number, culprit) in culprits.iter().enumerate() {
        let Some(column) = cells.iter().position(|cell| cell.module.module == culprit.module) else {
            continue;
        };
        let y = cells[column].module.own.filter(|own| own.is_finite()).map_or(TOP, |own| axes.y(own));
        out += &format!(
            "<text class=\"number\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            axes.x(column) + 8.0,
            y + 4.0,
            number + 1
        );
    }
    out
}

/// What a pointer is told over each module.
fn columns(axes: &Axes, cells: &[&Cell]) -> String {
    cells
        .iter()
        .enumerate()
        .map(|(column, cell)| {
            let module = cell.module;
            format!(
                "<rect class=\"hit\" x=\"{:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}: own {}, inherited {}, f32 {}</title></rect>\n",
                axes.x(column) - axes.step / 2.0,
                axes.step,
                axes.floor() - TOP,
                escaped(&module.module, NAME),
                or_dash(module.own),
                or_dash(module.inherited),
                or_dash(module.single)
            )
        })
        .collect()
}

fn legend(has_single: bool, has_culprits: bool) -> String {
    let key = |class: &str, sample: &str, words: &str| {
        format!(
            "<span class=\"key\"><svg class=\"chart sample\" viewBox=\"0 0 28 12\" aria-hidden=\"true\">{sample}</svg> {words}</span> ",
            sample = sample.replace("CLASS", class)
        )
    };
    let line = "<path class=\"CLASS\" d=\"M0 6H28\"/><path class=\"CLASS mark\" d=\"M12 4h4v4h-4z\"/>";
    let point = "<path class=\"CLASS\" d=\"M14 12V6\"/><circle class=\"CLASS\" cx=\"14\" cy=\"6\" r=\"3\"/>";
    let mut keys = key("own", point, "own error in f64");
    if has_culprits {
        keys += &key("own off", &point.replace("r=\"3\"", "r=\"5\""), "of a culprit, with its number");
    }
    keys += &key("inherited", line, "error in the plain run in f64, its own and what it inherits");
    if has_single {
        keys += &key("single", line, "error of the f32 engine");
    }
    keys
}
