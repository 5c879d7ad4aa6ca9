//! `parity embed`

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use bert_pipeline::pipeline::{Embeddings, EngineChoice, Options};
use engine::memory::allowed_memory;
use engine::{open_stream, shown_path};
use parity::{Subject, Verdict};
use serde::Deserialize;

use super::args::{AnyEngine, CompiledArgs, EmbedArgs, Precision};
use super::vectors::{Form, Vectors};
use super::{engines, is_stdout, model, progress, show, terminal};

/// Some editors begin a file with it; it belongs to no text.
const BYTE_ORDER_MARK: char = '\u{feff}';

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

/// A text at a time, or why it cannot be read.
type Texts = Box<dyn Iterator<Item = anyhow::Result<String>>>;

/// The texts, and how many there are, where that is known before they are read.
fn texts(args: &EmbedArgs) -> anyhow::Result<(Option<usize>, Texts)> {
    let Some(path) = &args.file else {
        return Ok((Some(args.text.len()), Box::new(args.text.clone().into_iter().map(Ok))));
    };
    let mut lines = lines(path)?.peekable();
    match lines.next_if(Result::is_err) {
        Some(Err(error)) => Err(error),
        _ if lines.peek().is_none() => {
            anyhow::bail!("{} has no lines, so there is nothing to embed", shown_path(path))
        }
        _ => Ok((None, Box::new(lines))),
    }
}

/// What a tokenizer makes of a byte of text: up to a token, with its word and its place in the
/// text.
const TOKENIZED: u64 = 128;

/// The lines of a file, a pipe or standard input, which is read once; of one that is called .jsonl
/// or .ndjson, the `text` of each.
fn lines(path: &Path) -> anyhow::Result<Texts> {
    #[derive(Deserialize)]
    struct Line {
        text: String,
    }
    let is_json = path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
    let mut reader = BufReader::new(open_stream(path)?);
    let shown = shown_path(path).into_owned();
    let longest = allowed_memory(0) / TOKENIZED;
    let mut number = 0;
    let mut next = move || -> anyhow::Result<Option<String>> {
        loop {
            number += 1;
            let place = || format!("cannot read {shown}, line {number}");
            let mut line = Vec::new();
            let found = reader.by_ref().take(longest + 1).read_until(b'\n', &mut line);
            if found.with_context(place)? == 0 {
                return Ok(None);
            }
            anyhow::ensure!(
                line.len() as u64 <= longest,
                "{}: it is longer than {longest} bytes, and no model takes such a text: cut it, or allow more with --max-memory",
                place()
            );
            let mut line =
                String::from_utf8(line).map_err(|_| anyhow::anyhow!("{}: it is not UTF-8", place()))?;
            line.truncate(line.trim_end_matches('\n').trim_end_matches('\r').len());
            if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
                line.drain(..BYTE_ORDER_MARK.len_utf8());
            }
            if !is_json {
                return Ok(Some(line));
            }
            if !line.trim().is_empty() {
                let Line { text } = serde_json::from_str(&line)
                    .with_context(|| format!("{}, is not {{\"text\": …}}", place()))?;
                return Ok(Some(text));
            }
        }
    };
    Ok(Box::new(std::iter::from_fn(move || next().transpose())))
}

/// By the engine asked for, or else by the fastest that takes the graph, or else by the reference.
fn pipeline(subject: &Subject, kind: Option<AnyEngine>) -> anyhow::Result<Embeddings> {
    let (files, options) = (subject.files(), Options::default());
    let Some(kind) = kind else { return Ok(Embeddings::from_files(files, &options)?) };
    match kind.0 {
        None => Ok(Embeddings::from_files(files, &options.with_engine(EngineChoice::Native))?),
        Some(kind) => {
            let (onnx, graph) = subject.graph(None)?;
            let engine = engines::open(&graph, kind, Precision::F32, &CompiledArgs::default())
                .context(onnx.clone())?;
            Embeddings::with_engine(files, engine, &options).context(onnx)
        }
    }
}
