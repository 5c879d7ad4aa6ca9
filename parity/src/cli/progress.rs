//! Progress of long work: a bar on stderr, and only on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Quick work shows no bar: it is drawn at this rate for the first time after one interval.
pub const REDRAWN_EVERY: Duration = Duration::from_millis(200);

/// A count of steps, of work whose end nobody knows.
pub fn counter(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::no_length().with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{msg} {spinner} {pos}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(REDRAWN_EVERY);
    bar
}

/// A bar for so many steps of work. Indicatif hides it where stderr is no terminal.
pub fn bar(what: &'static str, steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64).with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {prefix}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(REDRAWN_EVERY);
    bar
}
