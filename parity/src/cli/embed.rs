//! `parity embed`

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;

use anyhow::Context as _;
use bert_pipeline::pipeline::{Embeddings, EngineChoice, Options};
use parity::{Subject, Verdict};
use serde::Deserialize;

use super::args::{AnyEngine, CompiledArgs, EmbedArgs, Precision};
use super::vectors::{Form, Vectors};
use super::{engines, is_stdout, model, progress, show};

/// The table shows so many vectors; files hold them all.
const SHOWN: usize = 100;

pub fn command(args: &EmbedArgs) -> anyhow::Result<Verdict> {
    let targets =
        [(Form::Json, &args.json), (Form::JsonLines, &args.jsonl), (Form::Safetensors, &args.safetensors)];
    let to_stdout = targets.iter().filter(|(_, path)| path.as_deref().is_some_and(is_stdout)).count();
    anyhow::ensure!(to_stdout < 2, "only one of --json and --jsonl can be written to stdout");

    // What is wrong with the first line is told before a model is loaded.
    let (count, texts) = texts(args)?;
    let subject = model::open(args.model.as_deref())?;
    let mut pipeline = pipeline(&subject, args.engine)?;
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
    let bar = progress::bar("embedding", count);
    let (mut shown_texts, mut shown): (Vec<String>, Vec<Vec<f32>>) = Default::default();
    let (mut total, mut truncated) = (0, Vec::new());
    for output in pipeline.embed_iter(texts) {
        let output = output?;
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
        let mut out = anstream::stdout().lock();
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
    let _ = writeln!(anstream::stderr(), "note: {note}");
}

/// A text at a time, or why it cannot be read.
type Texts = Box<dyn Iterator<Item = anyhow::Result<String>>>;

/// The texts, and how many there are.
fn texts(args: &EmbedArgs) -> anyhow::Result<(usize, Texts)> {
    let Some(path) = &args.file else {
        return Ok((args.text.len(), Box::new(args.text.clone().into_iter().map(Ok))));
    };
    // Counted first, line by line: a progress bar wants an end, and a file that cannot be read is told before anything is run.
    let mut count = 0;
    for text in lines(path)? {
        text?;
        count += 1;
    }
    anyhow::ensure!(count > 0, "{} has no lines, so there is nothing to embed", path.display());
    Ok((count, lines(path)?))
}

/// The lines of a file; of one that is called .jsonl or .ndjson, the `text` of each.
fn lines(path: &Path) -> anyhow::Result<Texts> {
    #[derive(Deserialize)]
    struct Line {
        text: String,
    }
    let cannot = {
        let path = path.display().to_string();
        move || format!("cannot read {path}")
    };
    let is_json = path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
    let lines = BufReader::new(File::open(path).with_context(cannot.clone())?).lines();
    Ok(Box::new(lines.enumerate().filter_map(move |(number, line)| {
        match line {
            Err(error) => Some(Err(error).with_context(cannot.clone())),
            Ok(line) if !is_json => Some(Ok(line)),
            Ok(line) if line.trim().is_empty() => None,
            Ok(line) => Some(
                serde_json::from_str(&line)
                    .map(|Line { text }| text)
                    .with_context(|| format!("{}, line {}, is not {{\"text\": …}}", cannot(), number + 1)),
            ),
        }
    })))
}

/// By the engine asked for, or else by the fastest that takes the graph, or else by the reference.
fn pipeline(subject: &Subject, kind: Option<AnyEngine>) -> anyhow::Result<Embeddings> {
    let (files, options) = (subject.files(), Options::default());
    let Some(kind) = kind else { return Ok(Embeddings::from_files(files, &options)?) };
    match kind.on_graph() {
        None => Ok(Embeddings::from_files(files, &options.with_engine(EngineChoice::Native))?),
        Some(kind) => {
            let (onnx, graph) = subject.graph(None)?;
            let engine = engines::open(&graph, kind, Precision::F32, &CompiledArgs::default())
                .context(onnx.clone())?;
            Embeddings::with_engine(files, engine, &options).context(onnx)
        }
    }
}
