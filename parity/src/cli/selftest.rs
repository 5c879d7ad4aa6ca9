//! `parity selftest`

use std::io::Write as _;

use parity::check::suite;
use parity::report::terminal as form;
use parity::selftest::selftest;
use parity::trial::Graph;
use parity::{Bounds, Verdict};

use super::args::SelftestArgs;
use super::embed::tell;
use super::{is_stdout, model, progress, terminal, unless_closed, write_json};

pub fn command(args: &SelftestArgs) -> anyhow::Result<Verdict> {
    let mut subject = model::open_for(args.of.model.as_deref(), args.of.task)?;
    let (onnx, model) = subject.graph_or_export(args.of.onnx.as_deref())?;
    if args.of.task.is_none() {
        subject.fit_to(&[&model]);
    }
    let mut notes = Vec::new();
    let cases = suite(&subject, &model.graph.inputs, &mut notes)?;
    notes.iter().for_each(|note| tell(note));
    let bar = progress::bar("planting", 0);
    let bounds = Bounds::default();
    let graph = Graph::new(&onnx, &model, &[], &bounds);
    let result = selftest(&subject, graph, &cases, |all, fault| {
        bar.set_length(all as u64);
        bar.set_prefix(terminal::inert(fault));
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    if let Some(path) = &args.json {
        write_json(path, &result)?;
    }
    if !args.json.as_deref().is_some_and(is_stdout) {
        let mut out = terminal::stdout();
        let shown = form::selftest(&mut out, &result);
        unless_closed(shown.and_then(|()| out.flush()))?;
    }
    Ok(result.verdict)
}
