//! The modules of a BERT as a strip for each layer, with a shade for each module's own error.

use std::collections::BTreeMap;

use super::words::shown;
use crate::{Located, ModuleError};

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

    /// Where all but the last of [`Heat::KNOWN`] end, as a multiple of what is allowed. Of 1e-10 these are 1e-12, where f64 ends on a model that magnifies
    /// rounding; 1e-10; 1e-7, about what one f32 is rounded by; and 1e-4, which any comparison in f32 would see.
    pub const STEPS: [f64; 4] = [1e-2, 1.0, 1e3, 1e6];

    /// From an error in f64, over the larger of 1 and the largest value there, and the largest that is allowed.
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

/// A part of a layer: one module, or several that give the same value, such as a layer norm and what it ends.
#[derive(Debug, Clone)]
pub struct Cell<'a> {
    /// What it is called within its row: `q`.
    pub label: &'a str,
    /// The module: a culprit if one is, else the one that is furthest off, else the deepest.
    pub module: &'a ModuleError,
    /// How far it is off.
    pub heat: Heat,
}

/// A row of the strip: `embeddings`, `layer 0` and so on, `pooler`.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// Its name.
    pub label: String,
    /// Whether its columns are those of a layer; parts of a layer that no BERT has follow in a row that is none.
    pub layer: bool,
    /// Its parts in the order of execution; none where the report has no such module.
    pub cells: Vec<Option<Cell<'a>>>,
}

/// What a layer consists of, in the order of execution: the column and the modules that give its value, the deepest first.
const LAYER: [(&str, &[&str]); 10] = [
    ("q", &["attention.self.query"]),
    ("k", &["attention.self.key"]),
    ("v", &["attention.self.value"]),
    ("self", &["attention.self"]),
    ("dense", &["attention.output.dense"]),
    ("LN", &["attention.output.LayerNorm", "attention.output", "attention"]),
    ("dense", &["intermediate.dense"]),
    ("act", &["intermediate"]),
    ("dense", &["output.dense"]),
    ("LN", &["output.LayerNorm", "output", ""]),
];

/// The headings over a layer's columns: a name, and how many columns it spans.
pub const GROUPS: [(&str, usize); 4] = [("attention", 4), ("output", 2), ("intermediate", 2), ("output", 2)];

const EMBEDDINGS: [(&str, &[&str]); 4] = [
    ("word", &["word_embeddings"]),
    ("type", &["token_type_embeddings"]),
    ("position", &["position_embeddings"]),
    ("LN", &["LayerNorm", ""]),
];

const POOLER: [(&str, &[&str]); 2] = [("dense", &["dense"]), ("tanh", &["activation", ""])];

/// All rows of a report.
#[derive(Debug, Clone)]
pub struct Grid<'a> {
    /// In the order of execution.
    pub rows: Vec<Row<'a>>,
    /// What a module may be off, over the larger of 1 and its largest value.
    pub allowed: f64,
}

impl<'a> Grid<'a> {
    /// Sorts the modules into rows. `allowed` is the bound of the proof.
    pub fn new(located: &'a Located, allowed: f64) -> Self {
        let mut parts: BTreeMap<Place, Vec<(&'a str, &'a ModuleError)>> = BTreeMap::new();
        for module in &located.modules {
            let (place, part) = place(&module.module);
            parts.entry(place).or_default().push((part, module));
        }
        // It gives what its last layer gives.
        parts.remove(&Place::Encoder);
        let rows = |(place, parts): (Place, Vec<(&'a str, &'a ModuleError)>)| match place {
            Place::Embeddings => vec![Row::new("embeddings".into(), &EMBEDDINGS, &parts, allowed)],
            Place::Layer(layer) => {
                let label = format!("layer {layer}");
                let mut row = Row { layer: true, ..Row::new(label.clone(), &LAYER, &parts, allowed) };
                let cells = row.cells.split_off(LAYER.len());
                let others = (!cells.is_empty()).then_some(Row { label, layer: false, cells });
                std::iter::once(row).chain(others).collect()
            }
            Place::Pooler => vec![Row::new("pooler".into(), &POOLER, &parts, allowed)],
            Place::Encoder | Place::Head => {
                let cell = |&(label, module): &_| Cell::new(label, &[module], allowed);
                vec![Row { label: "head".into(), layer: false, cells: parts.iter().map(cell).collect() }]
            }
        };
        Self { rows: parts.into_iter().flat_map(rows).collect(), allowed }
    }

    /// Every part, in the order of execution.
    pub fn cells(&self) -> impl Iterator<Item = &Cell<'a>> {
        self.rows.iter().flat_map(|row| row.cells.iter().flatten())
    }

    /// The strip as lines of text. `paint` may add colour to a glyph; a culprit has a `!` behind it.
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
                let headings: Vec<String> = LAYER.iter().map(|(label, _)| format!("{label:<6}")).collect();
                lines.push(format!("{:LABEL$}{}", "", grouped(&headings)).trim_end().into());
                headed = true;
            }
            let line = if row.layer {
                let cells: Vec<String> = row.cells.iter().map(|part| cell(part.as_ref()) + "   ").collect();
                grouped(&cells)
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
}

/// A layer's columns with a line between its parts.
fn grouped(cells: &[String]) -> String {
    let mut cells = cells.iter();
    let groups: Vec<String> =
        GROUPS.iter().map(|(_, width)| cells.by_ref().take(*width).cloned().collect()).collect();
    groups.join("│ ")
}

impl<'a> Row<'a> {
    fn new(
        label: String,
        columns: &[(&'static str, &[&str])],
        parts: &[(&'a str, &'a ModuleError)],
        allowed: f64,
    ) -> Self {
        let of = |names: &[&str]| -> Vec<&'a ModuleError> {
            let named = |name: &&str| parts.iter().find(|(part, _)| part == name).map(|&(_, module)| module);
            names.iter().filter_map(named).collect()
        };
        let mut cells: Vec<Option<Cell<'a>>> =
            columns.iter().map(|&(label, names)| Cell::new(label, &of(names), allowed)).collect();
        // A part that no column is for has one of its own.
        let known = |part: &str| columns.iter().any(|(_, names)| names.contains(&part));
        let others = parts.iter().filter(|(part, _)| !known(part));
        cells.extend(others.map(|&(part, module)| Cell::new(part, &[module], allowed)));
        Self { label, layer: false, cells }
    }
}

impl<'a> Cell<'a> {
    /// One of the modules that give the same value, the deepest first; nothing where there is none.
    fn new(label: &'a str, modules: &[&'a ModuleError], allowed: f64) -> Option<Self> {
        let heat = |module: &ModuleError| Heat::of(module.relative(), allowed);
        // The first of those that are worst.
        let module = modules.iter().rev().max_by_key(|module| (module.culprit, heat(module)))?;
        Some(Self { label, module, heat: heat(module) })
    }
}

/// A row, in the order of execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Embeddings,
    Layer(usize),
    Encoder,
    Pooler,
    Head,
}

/// The row of a module, and its path within it.
fn place(module: &str) -> (Place, &str) {
    let within = |start: &str| {
        let rest = module.strip_prefix(start)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
    };
    if let Some(part) = within("embeddings") {
        return (Place::Embeddings, part);
    }
    if let Some(part) = within("pooler") {
        return (Place::Pooler, part);
    }
    if let Some(rest) = within("encoder.layer") {
        let (layer, part) = rest.split_once('.').unwrap_or((rest, ""));
        if let Ok(layer) = layer.parse() {
            return (Place::Layer(layer), part);
        }
    }
    if module == "encoder" { (Place::Encoder, "") } else { (Place::Head, module) }
}
