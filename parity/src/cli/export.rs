//! `parity export`

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use bert_export::{Options, Shape, Target, Weights, export, save_beside};
use onnx_graph::{External, GraphError, Model};
use parity::{Subject, Verdict};

use super::args::{ExportArgs, ExportTarget, WeightsFrom};
use super::unless_closed;

pub fn command(args: &ExportArgs) -> anyhow::Result<Verdict> {
    let subject = Subject::open(Some(&args.model))?;
    let checkpoint = subject.files().checkpoint()?;
    let options = options(args);
    let model = export(&checkpoint, subject.config(), &options).with_context(|| args.model.clone())?;
    match options.weights {
        Weights::AsStored => save_beside(&model, &checkpoint, &args.output)?,
        Weights::Transposed => save(&model, &args.output, args.external_data)?,
    }
    let opset = options.opset;
    let shown = writeln!(
        anstream::stdout(),
        "{}: opset {opset}, {} nodes, {} weights and constants",
        args.output.display(),
        model.graph.nodes.len(),
        model.graph.initializers.len(),
    );
    unless_closed(shown)?;
    Ok(Verdict::Pass)
}

fn options(args: &ExportArgs) -> Options {
    Options {
        opset: args.opset,
        shape: match args.fixed {
            Some((batch, sequence)) => Shape::Static { batch, sequence },
            None => Shape::Dynamic,
        },
        target: match args.target {
            ExportTarget::Onnx => Target::Onnx,
            ExportTarget::CandleOnnx => Target::CandleOnnx,
        },
        weights: match args.weights_from {
            Some(WeightsFrom::Safetensors) => Weights::AsStored,
            None => Weights::Transposed,
        },
    }
}

/// Writes a graph with its weights in it, or beside it where it is too large for that or the user wants it so.
fn save(model: &Model, path: &Path, beside: bool) -> Result<(), GraphError> {
    if beside {
        return model.save_with(path, &External::default());
    }
    match model.save(path) {
        Err(GraphError::TooLargeForOneFile { .. }) => model.save_with(path, &External::default()),
        saved => saved,
    }
}
