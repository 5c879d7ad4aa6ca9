//! `parity export`

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use architecture::Task;
use bert_pipeline::Modules;
use checkpoint::ModelFiles;
use onnx_export::{FloatType, Options, Shape, Target, Weights, export, save_beside};
use onnx_graph::{External, GraphError, Model};
use parity::Verdict;

use super::args::{ExportArgs, ExportDtype, ExportTarget, FixedInputs, WeightsFrom};
use super::{model, terminal, unless_closed};

pub fn command(args: &ExportArgs) -> anyhow::Result<Verdict> {
    let subject = model::open(Some(&args.model))?;
    let checkpoint = subject.files().checkpoint()?;
    let task = args.task.map_or_else(|| subject.family().task(), Ok).with_context(|| args.model.clone())?;
    let options = options(args, task);
    let model = export(&checkpoint, subject.family(), &options).with_context(|| args.model.clone())?;
    match options.weights {
        Weights::AsStored => save_beside(&model, &checkpoint, &args.output)?,
        Weights::Transposed => save(&model, &args.output, args.external_data)?,
    }
    let opset = options.opset;
    let left_out = if task == Task::FeatureExtraction { left_out(subject.files()) } else { String::new() };
    let shown = writeln!(
        terminal::stdout(),
        "{}: {left_out}opset {opset}, {} nodes, {} weights and constants",
        args.output.display(),
        model.graph.nodes.len(),
        model.graph.initializers.len(),
    );
    unless_closed(shown)?;
    Ok(Verdict::Pass)
}

/// What sentence-transformers does behind the transformer, which is not in the graph.
fn left_out(files: &ModelFiles) -> String {
    let what = match Modules::from_files(files) {
        Ok(None) => return String::new(),
        Ok(Some(modules)) => format!("({modules}), which 'parity embed' does"),
        Err(error) => format!("({error})"),
    };
    format!("the transformer alone, without what modules.json lists after it {what}; ")
}

fn options(args: &ExportArgs, task: Task) -> Options {
    Options {
        task,
        opset: args.opset,
        shape: match args.fixed {
            Some(FixedInputs(batch, None, sequence)) => Shape::Static { batch, sequence },
            Some(FixedInputs(batch, Some(choices), sequence)) => {
                Shape::StaticChoices { batch, choices, sequence }
            }
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
        dtype: match args.dtype {
            ExportDtype::F32 => FloatType::F32,
            ExportDtype::F16 => FloatType::F16,
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
