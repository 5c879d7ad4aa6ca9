//! What goes to a terminal as text: every command's tables, notes and errors, by [`stdout`] and
//! [`stderr`], which show names as [`parity::report::terminal`] does.

use std::io::{self, Write};

use anstream::AutoStream;
pub use parity::report::render::inert_json;
use parity::report::terminal::Lines;
pub use parity::report::terminal::inert;

/// Standard output, for lines. On anything but a terminal it has no colours.
pub fn stdout() -> Lines<impl Write> {
    Lines(anstream::stdout().lock())
}

/// Standard error, for lines.
pub fn stderr() -> Lines<AutoStream<io::Stderr>> {
    Lines(anstream::stderr())
}
