//! The modules of a model as a strip for each layer, with a shade for each module's own error.

use std::collections::BTreeMap;

use super::words::shown;
use crate::{Located, ModuleError, ModulePlace};

/// How far a module is off by itself, on a logarithmic scale; the steps are [`Heat::STEPS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heat {
    /// No value of the graph shows it, or one is not finite.
    Unknown,
    /// Far below what is allowed: rounding in f64.
    Cold,
    /// Below what is allowed.
    Within,
    /// Beyond what is allowed, by up to a thousand.
    Beyond,
    /// Beyond what is allowed, by up to a million.
    Far,
    /// Further off than that.
    Off,
}

impl Heat {
    /// All that are known, from the least.
    pub const KNOWN: [Heat; 5] = [Heat::Cold, Heat::Within, Heat::Beyond, Heat::Far, Heat::Off];

    /// Where all but the last of [`Heat::KNOWN`] end, as a multiple of what is allowed. Of 1e-10
    /// these are 1e-12, where f64 ends on a model that magnifies rounding; 1e-10; 1e-7, about what
    /// one f32 is rounded by; and 1e-4, which any comparison in f32 would see.
    pub const STEPS: [f64; 4] = [1e-2, 1.0, 1e3, 1e6];

    /// From an error in f64, over the larger of 1 and the largest value there, and the largest that
    /// is allowed.
    pub fn of(error: Option<f64>, allowed: f64) -> Self {
        let Some(error) = error.filter(|error| error.is_finite()) else { return Heat::Unknown };
        let step = Self::STEPS.iter().position(|step| error <= step * allowed);
        Self::KNOWN[step.unwrap_or(Self::STEPS.len())]
    }

    /// A character that is darker the further off.
    pub fn glyph(self) -> char {
        match self {
            Heat::Unknown => ' ',
            Heat::Cold => '·',
            Heat::Within => '░',
            Heat::Beyond => '▒',
            Heat::Far => '▓',
            Heat::Off => '█',
        }
    }
}

/// A part of a layer: one module, or several that give the same value, such as a layer norm and
/// what it ends.
#[derive(Debug, Clone)]
pub struct Cell<'a> {
    /// What it is called within its row: `q`.
    pub label: &'a str,
    /// The module: a culprit if one is, else the one that is furthest off, else the deepest.
    pub module: &'a ModuleError,
    /// How far it is off.
    pub heat: Heat,
}

/// A row of the strip.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// Its name.
    pub label: &'a str,
    /// Whether its columns are those of a layer.
    pub layer: bool,
    /// Its parts in the order of execution; none where the report has no such module.
    pub cells: Vec<Option<Cell<'a>>>,
}

/// All rows of a report.
#[derive(Debug, Clone)]
pub struct Grid<'a> {
    /// In the order of execution.
    pub rows: Vec<Row<'a>>,
    /// The headings over a layer's columns: a name, and how many columns it spans.
    pub groups: Vec<(&'a str, usize)>,
    /// What a module may be off, over the larger of 1 and its largest value.
    pub allowed: f64,
}

/// The most columns of a row: what a report says of itself may be anything.
const COLUMNS: usize = 1000;

impl<'a> Grid<'a> {
    /// Sorts the modules into rows. `allowed` is the bound of the proof.
    pub fn new(located: &'a Located, allowed: f64) -> Self {
        let mut rows: Vec<(&ModulePlace, BTreeMap<usize, Vec<&ModuleError>>)> = Vec::new();
        for module in &located.modules {
            let place = &module.place;
            let column = place.column.min(COLUMNS);
            let own = rows.iter_mut().find(|(row, _)| (&row.row, row.layer) == (&place.row, place.layer));
            match own {
                Some((_, columns)) => columns.entry(column).or_default().push(module),
                None => rows.push((place, BTreeMap::from([(column, vec![module])]))),
            }
        }
        let width = |columns: &BTreeMap<usize, Vec<&ModuleError>>| {
            columns.last_key_value().map_or(0, |(last, _)| last + 1)
        };
        let layers = || rows.iter().filter(|(place, _)| place.layer.is_some());
        let widest = layers().map(|(_, columns)| width(columns)).max().unwrap_or(0);
        let mut groups: Vec<(&str, usize)> = Vec::new();
        for column in 0..widest {
            let group =
                layers().find_map(|(_, columns)| Some(columns.get(&column)?.first()?.place.group.as_str()));
            match (groups.last_mut(), group.unwrap_or_default()) {
                (Some((last, count)), group) if *last == group => *count += 1,
                (_, group) => groups.push((group, 1)),
            }
        }
        let rows = rows.iter().map(|(place, columns)| {
            let layer = place.layer.is_some();
            let count = if layer { widest } else { width(columns) };
            let cells = (0..count).map(|column| Cell::new(columns.get(&column)?, allowed)).collect();
            Row { label: &place.row, layer, cells }
        });
        Self { rows: rows.collect(), groups, allowed }
    }

    /// Every part, in the order of execution.
    pub fn cells(&self) -> impl Iterator<Item = &Cell<'a>> {
        self.rows.iter().flat_map(|row| row.cells.iter().flatten())
    }

    /// The strip as lines of text. `paint` may add colour to a glyph; a culprit has a `!` behind
    /// it.
    pub fn lines(&self, paint: impl Fn(Heat, &str) -> String) -> Vec<String> {
        /// Two glyphs and a mark.
        const CELL: usize = 3;
        /// `embeddings`, or `layer 10`, and two blanks.
        const LABEL: usize = 12;
        /// The name of a part that no BERT has may be anything.
        const PART: usize = 32;
        let cell = |cell: Option<&Cell>| {
            let Some(cell) = cell else { return " ".repeat(CELL) };
            let glyph = cell.heat.glyph();
            let shade = if cell.heat == Heat::Unknown { " ?".into() } else { format!("{glyph}{glyph}") };
            format!("{}{}", paint(cell.heat, &shade), if cell.module.culprit { '!' } else { ' ' })
        };
        let mut lines = Vec::new();
        let mut headed = false;
        for row in &self.rows {
            let label = format!("{:<LABEL$}", row.label);
            if row.layer && !headed {
                let label = |cell: &Option<Cell>| cell.as_ref().map_or("", |cell| cell.label).to_string();
                let headings: Vec<String> =
                    row.cells.iter().map(|cell| format!("{:<6}", shown(&label(cell), PART))).collect();
                lines.push(format!("{:LABEL$}{}", "", self.grouped(&headings)).trim_end().into());
                headed = true;
            }
            let line = if row.layer {
                let cells: Vec<String> = row.cells.iter().map(|part| cell(part.as_ref()) + "   ").collect();
                self.grouped(&cells)
            } else {
                let cells = row.cells.iter().flatten();
                cells.map(|part| format!("{} {} ", shown(part.label, PART), cell(Some(part)))).collect()
            };
            lines.push((label + &line).trim_end().to_string());
        }
        let bounds: Vec<String> = Heat::KNOWN
            .iter()
            .zip(Heat::STEPS)
            .map(|(&heat, step)| {
                format!("{} ≤ {:.0e}", paint(heat, &heat.glyph().to_string()), step * self.allowed)
            })
            .collect();
        let beyond = paint(Heat::Off, &Heat::Off.glyph().to_string());
        lines.push(format!("{:LABEL$}{}  {beyond} above  ? not seen  ! culprit", "", bounds.join("  ")));
        lines
    }

    /// A layer's columns with a line between its parts.
    fn grouped(&self, cells: &[String]) -> String {
        let mut cells = cells.iter();
        let groups: Vec<String> =
            self.groups.iter().map(|(_, width)| cells.by_ref().take(*width).cloned().collect()).collect();
        groups.join("│ ")
    }
}

impl<'a> Cell<'a> {
    /// The modules of one column; nothing where there is none.
    fn new(modules: &[&'a ModuleError], allowed: f64) -> Option<Self> {
        let heat = |module: &ModuleError| Heat::of(module.relative(), allowed);
        // The deepest of those that are worst.
        let module =
            modules.iter().max_by_key(|module| (module.culprit, heat(module), module.module.len()))?;
        let label = if module.place.label.is_empty() { &module.module } else { &module.place.label };
        Some(Self { label, module, heat: heat(module) })
    }
}
