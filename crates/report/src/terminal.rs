//! A report as lines for a terminal, and the one filter that lines go through: every command's
//! tables, notes and errors.
//!
//! Names come from files of strangers. One with a line break could forge a line of a report, one
//! with an escape could clear the screen, one that reads backwards could pass for another. So
//! everything that a line is made of is made visible ([`visible`]), but what this program itself
//! paints it with.

mod check;
mod modules;
mod selftest;

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::ops::Range;

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table, TableStyle};

pub use check::report;
pub use selftest::selftest;

use crate::Verdict;
use crate::render::visible;

/// Headings.
pub const BOLD: Paint = Paint::new(Style::new().bold());

/// What matters less.
pub const DIM: Paint = Paint::new(Style::new().dimmed());

/// The colour of a verdict.
pub fn color(verdict: Verdict) -> Paint {
    let color = match verdict {
        Verdict::Pass | Verdict::Rounding => AnsiColor::Green,
        Verdict::Inconclusive => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    Paint::new(color.on_default().bold())
}

thread_local! {
    /// Whether what is formatted now is this program's own.
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// A text of which nothing but letters reaches a terminal, for what draws on it by itself: a
/// progress bar.
pub fn inert(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// Writes lines: of each `writeln!`, the last line break is one, and all else is [`visible`].
pub struct Lines<W>(pub W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_fmt(format_args!("{}", String::from_utf8_lossy(bytes)))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    fn write_fmt(&mut self, args: fmt::Arguments<'_>) -> io::Result<()> {
        let mut line = Line::default();
        line.write_fmt(args).map_err(|_| io::Error::other("a value cannot be written as text"))?;
        if line.ends {
            line.text.push('\n');
        }
        self.0.write_all(line.text.as_bytes())
    }
}

/// A line in the making.
#[derive(Default)]
struct Line {
    text: String,
    /// Whether a line break came last. What comes after one shows that it was not the end.
    ends: bool,
}

impl fmt::Write for Line {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let is_own = OWN.get();
        for character in piece.chars() {
            if std::mem::take(&mut self.ends) {
                self.text.push(visible('\n'));
            }
            match character {
                own if is_own => self.text.push(own),
                '\n' => self.ends = true,
                other => self.text.push(visible(other)),
            }
        }
        Ok(())
    }
}

/// A style of this program's own. It must be written straight to a line, and not to a `String`
/// first.
#[derive(Clone, Copy)]
pub struct Paint(Style);

impl Paint {
    /// Of that style.
    pub const fn new(style: Style) -> Self {
        Self(style)
    }
}

impl fmt::Display for Paint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        own(|| self.0.fmt(f))
    }
}

/// A text that this program has painted itself, and that has no name in it but by [`visible`].
pub struct Painted<'a>(pub &'a str);

impl fmt::Display for Painted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        own(|| f.write_str(self.0))
    }
}

fn own(write: impl FnOnce() -> fmt::Result) -> fmt::Result {
    OWN.set(true);
    let written = write();
    OWN.set(false);
    written
}

/// A time, for a person.
pub fn milliseconds(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

/// Writes a table without lines, indented, with the columns `numbers` aligned to the right and no
/// blanks at the ends of its lines.///
/// # Errors
/// Those of the writer.
pub fn table(
    out: &mut impl Write,
    header: &[&str],
    numbers: Range<usize>,
    rows: impl Iterator<Item = Vec<String>>,
) -> io::Result<()> {
    let mut table = Table::new();
    // A line break within a cell would be a line of the table.
    let rows = rows.map(|cells| cells.iter().map(|cell| inert(cell)).collect::<Vec<_>>());
    table.load_style(TableStyle::new()).set_header(header).add_rows(rows);
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for line in table.lines() {
        writeln!(out, " {}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(write: impl FnOnce(&mut Lines<Vec<u8>>)) -> String {
        let mut out = Lines(Vec::new());
        write(&mut out);
        String::from_utf8(out.0).unwrap()
    }

    #[test]
    fn names_are_inert_and_styles_are_not() {
        let bold = Paint::new(Style::new().bold());
        let name = "\u{1b}[2Ja\r\nPASS\u{202e}\u{9b}1m\u{200b}b\n";
        let written = line(|out| writeln!(out, "{bold}{name}{bold:#}, {name}").unwrap());
        let shown = "␛[2Ja  PASS��1m�b ";
        assert_eq!(written, format!("\u{1b}[1m{shown}\u{1b}[0m, {shown}\n"));
    }

    #[test]
    fn a_line_has_one_end() {
        assert_eq!(line(|out| writeln!(out).unwrap()), "\n");
        let name = "\n\n";
        assert_eq!(line(|out| writeln!(out, "a{name}").unwrap()), "a  \n");
        assert_eq!(line(|out| out.write_all(b"a\x1b\nb\n").unwrap()), "a␛ b\n");
    }
}
