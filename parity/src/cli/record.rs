//! What a check is held against beside its own proof, and what it leaves behind: `--expected` and `--repro`.

use anyhow::{bail, ensure};
use engine::{Engine, NamedValues, ValueSpec};
use parity::judge::{Bounds, Judged};
use parity::recorded::{self, Recorded, Side};
use parity::replay::{self, Replay, Sides};
use parity::report::Report;
use parity::suite::Case;
use parity::{Verdict, tensors};

use super::args::CheckArgs;
use super::check::Candidate;
use super::{one_line, reports};

/// What came of both, over all graphs.
#[derive(Default)]
pub struct Beside {
    recorded: Vec<Recorded>,
    expected: Option<NamedValues>,
    repro: Option<Replay>,
    /// Why nothing was written, though something fails.
    unwritten: Option<String>,
}

/// Said before anything is run, and lost on nothing.
pub fn refuse_full_folder(args: &CheckArgs) -> anyhow::Result<()> {
    let Some(dir) = &args.repro else { return Ok(()) };
    let is_empty = std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
    ensure!(is_empty, "{} is not empty, and nothing is overwritten: give a new folder", dir.display());
    Ok(())
}

impl Beside {
    /// Whether either was asked for.
    pub fn is_wanted(args: &CheckArgs) -> bool {
        args.expected.is_some() || args.repro.is_some()
    }

    /// Looks at a graph that was judged. `reference` is what the graph was held against, as it was named.
    #[expect(clippy::too_many_arguments, reason = "everything that a check of one graph has")]
    pub fn add(
        &mut self,
        args: &CheckArgs,
        reference: &str,
        candidate: &Candidate,
        graph: &Judged,
        sides: Sides,
        cases: &[Case],
        bounds: &Bounds,
    ) -> anyhow::Result<()> {
        if let (Some(path), [case]) = (&args.expected, cases) {
            let specs = sides.single.outputs();
            // Read once, however many graphs it is for.
            let expected = match self.expected.take() {
                Some(expected) => expected,
                None => tensors::read_outputs(path, specs)?,
            };
            let budget = |output: &str| graph.budget.as_ref()?.of(output);
            let graph_sides = sides.exact.map(|exact| exact as &dyn Engine).into_iter();
            let graph_sides = graph_sides.chain(sides.engines.iter().copied());
            let graph_sides: Vec<Side> =
                graph_sides.map(|engine| Side { name: &candidate.onnx, engine }).collect();
            let reference_sides = [sides.single, sides.double].map(|engine| Side { name: reference, engine });
            refuse_unknown(&expected, reference_sides.iter().chain(&graph_sides))?;
            // Of several graphs, the reference is the same.
            let first = self.recorded.is_empty();
            let all = reference_sides.into_iter().filter(|_| first).chain(graph_sides);
            for side in all {
                self.recorded.push(recorded::judge(case, &expected, side, specs, args.atol, budget)?);
            }
            self.expected = Some(expected);
        }
        if let (Some(dir), None, Verdict::Fail) = (&args.repro, &self.repro, graph.report.verdict) {
            let command = reports::command_line();
            match replay::write(dir, &candidate.model, &graph.report, sides, cases, bounds, &command) {
                Ok(written) => self.repro = Some(written),
                // The verdict stands, whatever keeps the folder from being written.
                Err(error) => self.unwritten = Some(one_line(&error.into())),
            }
        }
        Ok(())
    }

    /// The report with all of that.
    pub fn tell(self, args: &CheckArgs, report: Report) -> Report {
        let mut report = report.with_recorded(self.recorded);
        if let Some(dir) = &args.repro {
            let dir = dir.display();
            report.notes.push(match (&self.repro, self.unwritten) {
                (Some(Replay { input, shape, precision, .. }), _) => {
                    format!("{dir} replays what fails, in {precision}, on '{input}' made small: {shape:?}")
                }
                (None, Some(why)) => format!("{dir} was not written: {why}"),
                (None, None) => format!("{dir} was not written: no graph fails"),
            });
        }
        report.repro = self.repro;
        report
    }
}

/// An output that no side has is a slip of the pen: leaving it out in silence would compare less than was meant.
fn refuse_unknown<'a>(
    expected: &NamedValues,
    sides: impl Iterator<Item = &'a Side<'a>>,
) -> anyhow::Result<()> {
    let outputs =
        |side: &'a Side<'a>| side.engine.outputs().iter().map(|spec: &ValueSpec| spec.name.as_str());
    let mut known: Vec<&str> = sides.flat_map(outputs).collect();
    known.sort_unstable();
    known.dedup();
    if let Some(name) = expected.names().find(|name| !known.contains(name)) {
        bail!("something is expected of output '{name}', and this model gives {}", known.join(", "));
    }
    Ok(())
}
