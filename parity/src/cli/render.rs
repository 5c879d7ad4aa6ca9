//! `parity render`

use std::io::Write as _;

use anyhow::{Context as _, bail};
use engine::memory::Budget;
use engine::{read_file, shown_path};
use parity::Verdict;
use parity::report::{ReadError, Saved, read, terminal as form};

use super::args::RenderArgs;
use super::{reports, terminal, unless_closed};

/// Shows a saved report on the terminal, or writes the forms that were asked for. Whatever its
/// verdict is: this judges nothing.
pub fn command(args: &RenderArgs) -> anyhow::Result<Verdict> {
    let RenderArgs { report: path, forms } = args;
    let name = shown_path(path);
    let json = read_file(path)?;
    Budget::of(name.clone(), json.len() as u64).spend_json(&json)?;
    let cure = |error: &ReadError| match error {
        ReadError::Schema(_) => "render it with the version of parity that wrote it",
        _ => "give what 'parity check --json FILE' has written",
    };
    let saved = read(&json)
        .map_err(|error| anyhow::anyhow!("{error}; {}", cure(&error)))
        .with_context(|| format!("{name} is no saved report"))?;
    let in_files = [&forms.markdown, &forms.html, &forms.junit].into_iter().any(Option::is_some);
    let mut out = terminal::stdout();
    let shown = match &saved {
        Saved::Report(report) if in_files => {
            return reports::write(None, forms, report).map(|()| Verdict::Pass);
        }
        Saved::Report(report) => form::report(&mut out, report),
        Saved::Selftest(_) if in_files => {
            bail!(
                "{name} is a selftest, which has no form but that of the terminal: leave --markdown, --html and --junit out"
            )
        }
        Saved::Selftest(selftest) => form::selftest(&mut out, selftest),
    };
    unless_closed(shown.and_then(|()| out.flush()))?;
    Ok(Verdict::Pass)
}
