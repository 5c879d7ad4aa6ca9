//! `parity check RAW.onnx --onnx OPTIMISED.onnx`

use anyhow::bail;
use checkpoint::OnnxSource;
use engine::{Engine, shown_path};
use parity::against::{self, Comparison, Original};
use parity::audit::Expect;
use parity::check::Options;
use parity::judge::Bounds;
use parity::replay::Sides;
use parity::report::{ReferenceKind, ReferenceSide, Report};
use parity::suite::Case;
use parity::{open_graph, tensors};

use super::args::CheckArgs;
use super::check::{Candidate, candidates, described, refused, summary, time};
use super::record::Beside;
use super::{input, progress, show, terminal};

/// Whether the command line gives two graphs, and no checkpoint.
pub fn is_graph(model: &str, args: &CheckArgs) -> bool {
    parity::is_graph(model) && !args.onnx.is_empty()
}

/// Holds each graph in `--onnx` against `raw`.
pub fn judge(args: &CheckArgs, raw: &str) -> anyhow::Result<Report> {
    if !args.text.is_empty() {
        bail!("{raw} is a graph, which has no tokenizer and cannot read --text: give --inputs");
    }
    if args.expect.is_some() {
        bail!("{raw} is a graph: --expect says what was made of a checkpoint, so give that");
    }
    let (name, model) = open_graph(OnnxSource::File(raw.into()))?;
    let mut notes = Vec::new();
    let open =
        |path: Option<&std::path::Path>| open_graph(OnnxSource::File(path.unwrap_or(raw.as_ref()).into()));
    let candidates = candidates(args, open, &mut notes)?;
    let bounds = Bounds {
        options: Options { atol: args.atol, outputs: args.output.clone(), ..Options::default() },
        proof_tol: args.proof_tol,
        expect: Expect::Exact,
    };
    let given = match &args.inputs {
        Some(path) => Some(Case {
            name: shown_path(path).into_owned(),
            inputs: tensors::read_inputs(path, &model.graph.inputs)?,
        }),
        None => None,
    };
    let (mut inputs, mut timing) = (Vec::new(), None);
    let (mut graphs, mut beside) = (Vec::new(), Beside::default());
    for candidate in &candidates {
        let original = Original::new(&name, &model, &candidate.model)?;
        let cases = cases(given.as_ref(), &original.single, &model, candidate)?;
        for summary in cases.iter().map(summary) {
            if !inputs.contains(&summary) {
                inputs.push(summary);
            }
        }
        let bar = progress::bar("checking", (4 + candidate.engines.len()) * cases.len());
        let step = |case: &Case| {
            bar.set_prefix(terminal::inert(&case.name));
            bar.inc(1);
        };
        let engines: Vec<&dyn Engine> = candidate.engines.iter().map(AsRef::as_ref).collect();
        let comparison = Comparison { cases: &cases, engines: &engines, bounds: &bounds };
        let mut graph = against::judge(&original, &candidate.onnx, &candidate.model, comparison, step)?;
        if let Some(error) = &candidate.refused {
            refused(&mut graph.report, candidate, error);
        }
        if Beside::is_wanted(args) {
            let exact = original.exact(&candidate.model).ok().map(|(exact, _)| exact);
            let sides = Sides {
                single: &original.single,
                double: &original.double,
                exact: exact.as_ref(),
                engines: &engines,
            };
            beside.add(args, &name, candidate, &graph, sides, &cases, &bounds)?;
        }
        graphs.push(described(graph.report, &candidate.model));
        if timing.is_none() && !engines.is_empty() {
            timing = time(&original.single, &engines, &cases)?;
        }
        bar.finish_and_clear();
    }
    let report = Report::of(&name, args.atol, inputs, notes, graphs, timing);
    let report = beside.tell(args, report);
    let text = format!("a graph, on the oracle in f32 ({})", show::graph(&model));
    Ok(Report { reference: Some(ReferenceSide { kind: ReferenceKind::Graph, text }), ..report })
}

/// The inputs for both graphs: those of the file, or made for the first.
fn cases(
    given: Option<&Case>,
    original: &dyn Engine,
    model: &onnx_graph::Model,
    candidate: &Candidate,
) -> anyhow::Result<Vec<Case>> {
    let Some(case) = given else { return Ok(against::cases(model, &candidate.model)?) };
    input::refuse_unknown(&case.inputs, &[original.inputs(), &candidate.model.graph.inputs])?;
    Ok(vec![case.clone()])
}
