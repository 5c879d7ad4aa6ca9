//! What a conversion on purpose costs, for a terminal.

use std::io::{self, Write};

use parity::audit::Expect;
use parity::expect::{Conversion, Loss};

use super::show::{BOLD, DIM, table};

/// The loss of each output, on each side.
pub fn loss(out: &mut impl Write, conversion: &Conversion) -> io::Result<()> {
    let what = match conversion.expect {
        Expect::F16 => "half precision",
        Expect::Int8 => "eight bits",
        Expect::Exact => "no conversion",
    };
    writeln!(out)?;
    writeln!(
        out,
        "{BOLD}Loss by {what}{BOLD:#}  {DIM}the graph as it runs, against the checkpoint itself in f64; it decides nothing{DIM:#}"
    )?;
    let scientific = |x: Option<f64>| x.map_or("not finite".into(), |x| format!("{x:.2e}"));
    let row = |loss: &Loss| {
        vec![
            loss.output.clone(),
            loss.engine.clone(),
            scientific(loss.max_abs),
            scientific(loss.mean_abs),
            scientific(loss.max_rel),
            loss.cosine.map_or("not finite".into(), |x| format!("{x:.7}")),
        ]
    };
    table(
        out,
        &["output", "on", "max |Δ|", "mean |Δ|", "relative", "cosine"],
        2..6,
        conversion.loss.iter().map(row),
    )
}
