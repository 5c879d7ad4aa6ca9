//! `parity embed`

use std::cell::RefCell;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bert_pipeline::pipeline::{Embeddings, EngineChoice, Options};
use clap::Args;
use parity::{Subject, Verdict};
use serde::Deserialize;

use super::args::{AnyEngine, CompiledArgs, InputArgs, Precision, any_engine};
use super::lines::{self, Lines};
use super::vectors::{Form, Vectors};
use super::{engines, is_stdout, model, progress, show, terminal};

/// The table shows so many vectors; files hold them all.
const SHOWN: usize = 100;

#[derive(Args)]
pub struct EmbedArgs {
    /// A folder, or the id of a model on the hub [default: the embedded bert-tiny]
    pub model: Option<String>,

    /// A text (may be repeated)
    #[arg(long, value_name = "TEXT", required_unless_present = "file", conflicts_with = "file")]
    pub text: Vec<String>,

    /// A file with one text a line, or `-` for stdin; if it is called .jsonl or .ndjson, one
    /// {"text": …} a line
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// The prompt before every text, by its name in config_sentence_transformers.json [default: the
    /// one named there]
    #[arg(long, value_name = "NAME")]
    pub prompt_name: Option<String>,

    /// Give every vector length 1, also where the model's files do not ask for it
    #[arg(long)]
    pub normalize: bool,

    /// So many texts are run at once, at most
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch_size: u32,

    /// The graph, a file or one of the model's such as onnx/model_O4.onnx [default: onnx/model.onnx
    /// or model.onnx beside the checkpoint; where there is no checkpoint, the only .onnx file]
    #[arg(long, value_name = "FILE")]
    pub onnx: Option<PathBuf>,

    /// What computes the features [default: the fastest that takes the graph, where there is one, else reference]
    #[arg(long, value_name = "ENGINE", value_parser = any_engine())]
    pub engine: Option<AnyEngine>,

    /// Write the vectors as JSON; `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write {"text", "embedding"} of each text on a line of its own; `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub jsonl: Option<PathBuf>,

    /// Write the vectors as one tensor `embeddings`, f32 [texts, dimension]
    #[arg(long, value_name = "FILE")]
    pub safetensors: Option<PathBuf>,

    #[command(flatten)]
    pub inputs_of: InputArgs,
}

pub fn command(args: &EmbedArgs) -> anyhow::Result<Verdict> {
    let targets =
        [(Form::Json, &args.json), (Form::JsonLines, &args.jsonl), (Form::Safetensors, &args.safetensors)];
    let to_stdout = targets.iter().filter(|(_, path)| path.as_deref().is_some_and(is_stdout)).count();
    anyhow::ensure!(
        to_stdout < 2,
        "only one of --json and --jsonl can be written to stdout: name a file for the other"
    );

    // What is wrong with the first line is told before a model is loaded.
    let (count, texts) = texts(args)?;
    let subject = model::open_any(args.model.as_deref())?.naming_inputs(args.inputs_of.names());
    let mut pipeline = pipeline(&subject, args)?;
    if args.normalize {
        pipeline = pipeline.normalized();
    }
    if let Some(name) = &args.prompt_name {
        pipeline = pipeline.with_prompt_name(name)?;
    }
    if let Some(reason) = pipeline.note() {
        tell(&format!("the checkpoint runs and not the graph: {reason}"));
    }
    let mut files = targets
        .into_iter()
        .filter_map(|(form, path)| Some(Vectors::create(form, path.as_deref()?, subject.name())))
        .collect::<Result<Vec<_>, _>>()?;

    // The pipeline reads ahead: texts wait here for their vectors, and a line that cannot be read ends them.
    let waiting = RefCell::new(std::collections::VecDeque::new());
    let unreadable = RefCell::new(None);
    let texts = texts.map_while(|text| match text {
        Ok(text) => {
            waiting.borrow_mut().push_back(text.clone());
            Some(text)
        }
        Err(error) => {
            *unreadable.borrow_mut() = Some(error);
            None
        }
    });
    let bar = match count {
        Some(count) => progress::bar("embedding", count),
        None => progress::counter("embedding"),
    };
    let (mut shown_texts, mut shown): (Vec<String>, Vec<Vec<f32>>) = Default::default();
    let (mut total, mut truncated) = (0, Vec::new());
    for output in pipeline.embed_iter(texts) {
        let output = output?;
        if unreadable.borrow().is_some() {
            break;
        }
        let text = waiting.borrow_mut().pop_front().unwrap_or_default();
        for file in &mut files {
            file.push(&text, &output)?;
        }
        if output.truncated {
            truncated.push(total);
        }
        total += 1;
        if shown.len() < SHOWN {
            shown_texts.push(text);
            shown.push(output.prediction);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some(error) = unreadable.into_inner() {
        return Err(error);
    }
    for file in files {
        file.finish()?;
    }
    tell_truncation(&truncated);
    if to_stdout == 0 {
        let mut out = terminal::stdout();
        let how = format!("{}, {}", pipeline.engine(), pipeline.recipe());
        show::embeddings(&mut out, &how, pipeline.similarity(), &shown_texts, &shown)?;
        if total > shown.len() {
            writeln!(out, " … and {} more", total - shown.len())?;
        }
        out.flush()?;
    }
    Ok(Verdict::Pass)
}

/// Says which texts were cut, as the model's own files ask for. Their numbers are counted from 0.
pub(super) fn tell_truncation(texts: &[usize]) {
    let Some(first) = texts.first() else { return };
    let which = match texts.len() {
        1 => format!("text number {} is", first + 1),
        count => format!("{count} texts, the first of them number {}, are", first + 1),
    };
    tell(&format!("{which} longer than the model takes, and the end was not read"));
}

/// A note on stderr.
pub(super) fn tell(note: &str) {
    // If stderr is gone there is nobody left to tell.
    let _ = writeln!(terminal::stderr(), "note: {note}");
}

/// The texts, and how many there are, where that is known before they are read.
fn texts(args: &EmbedArgs) -> anyhow::Result<(Option<usize>, Lines<String>)> {
    #[derive(Deserialize)]
    struct Line {
        text: String,
    }
    let Some(path) = &args.file else {
        return Ok((Some(args.text.len()), Box::new(args.text.clone().into_iter().map(Ok))));
    };
    let lines = lines::read(path, |text| Line { text }, "{\"text\": …}")?;
    Ok((None, Box::new(lines.map(|line| line.map(|line| line.text)))))
}

/// By the engine asked for, or else by the fastest that takes the graph, or else by the reference.
fn pipeline(subject: &Subject, args: &EmbedArgs) -> anyhow::Result<Embeddings> {
    let mut options = Options::default().with_batch_size(args.batch_size as usize);
    options.onnx.clone_from(&args.onnx);
    options.inputs = args.inputs_of.names();
    let files = subject.files();
    let Some(kind) = args.engine else { return Ok(Embeddings::from_files(files, &options)?) };
    match kind.0 {
        None => {
            refuse_graph_on_reference(args.onnx.as_deref())?;
            Ok(Embeddings::from_files(files, &options.with_engine(EngineChoice::Native))?)
        }
        Some(kind) => {
            let (onnx, graph) = subject.graph(args.onnx.as_deref())?;
            let engine = engines::open(&graph, kind, Precision::F32, &CompiledArgs::default())
                .context(onnx.clone())?;
            Embeddings::with_engine(files, engine, &options).context(onnx)
        }
    }
}

/// The reference runs the checkpoint: a graph that is named beside it would not be looked at.
pub(super) fn refuse_graph_on_reference(onnx: Option<&Path>) -> anyhow::Result<()> {
    anyhow::ensure!(
        onnx.is_none(),
        "--engine reference runs the checkpoint and no graph: leave out --onnx, or name an engine that runs it"
    );
    Ok(())
}
