//! `parity embed`

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use bert_pipeline::{Encoded, PipelineError, Pooling, Text, normalize};
use candle_core::{DType, Device};
use engine::{Engine, ValueSpec};
use parity::check::fit_inputs;
use parity::suite::FixedShape;
use parity::{Subject, Verdict};
use serde::Serialize;

use super::args::{AnyEngine, EmbedArgs, GraphEngine, Precision};
use super::{engines, is_stdout, progress, show, write_json};

/// Texts that are run at once.
const BATCH: usize = 32;

#[derive(Serialize)]
struct Embeddings<'a> {
    model: &'a str,
    dimension: usize,
    embeddings: &'a [Vec<f32>],
}

pub fn command(args: &EmbedArgs) -> anyhow::Result<Verdict> {
    let texts = match &args.file {
        Some(path) => lines(path)?,
        None => args.text.clone(),
    };
    let subject = Subject::open(args.model.as_deref())?;
    let tokenizer = subject.require_tokenizer()?;
    let (pooling, normalized) = Pooling::from_files(subject.files())?;
    let engine = engine(&subject, args.engine)?;

    let bar = progress::bar("embedding", texts.len());
    let mut embeddings: Vec<Vec<f32>> = Vec::new();
    for (number, batch) in texts.chunks(BATCH).enumerate() {
        let batch: Vec<Text> = batch.iter().map(|text| Text::from(text.as_str())).collect();
        let encoded = tokenizer.encode(&batch).map_err(|error| counted_from(number * BATCH, error))?;
        embeddings.extend(embed(engine.as_ref(), &encoded, pooling, normalized)?);
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();

    let dimension = embeddings.first().map_or(0, Vec::len);
    if let Some(path) = &args.json {
        write_json(path, &Embeddings { model: subject.name(), dimension, embeddings: &embeddings })?;
    }
    if !args.json.as_deref().is_some_and(is_stdout) {
        let how =
            format!("{}, {pooling} pooling{}", engine.name(), if normalized { ", normalized" } else { "" });
        let mut out = anstream::stdout().lock();
        show::embeddings(&mut out, &how, &texts, &embeddings)?;
        out.flush()?;
    }
    Ok(Verdict::Pass)
}

/// An error about a text of a batch, as one about a text of them all.
fn counted_from(first: usize, mut error: PipelineError) -> PipelineError {
    if let PipelineError::TooLong { text, .. } | PipelineError::Tokenize { text, .. } = &mut error {
        *text += first;
    }
    error
}

fn lines(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines: Vec<String> = text.lines().map(String::from).collect();
    anyhow::ensure!(!lines.is_empty(), "{} has no lines, so there is nothing to embed", path.display());
    Ok(lines)
}

/// The engine asked for, or else the graph's where there is one that can embed texts of any length, or else the reference.
fn engine(subject: &Subject, kind: Option<AnyEngine>) -> anyhow::Result<Box<dyn Engine>> {
    let on_graph = kind.and_then(AnyEngine::on_graph);
    if on_graph.is_some() || (kind.is_none() && subject.files().onnx()?.is_some()) {
        let (onnx, graph) = subject.graph(None)?;
        let kind = on_graph.unwrap_or(GraphEngine::Candle);
        match engines::open(&graph, kind, Precision::F32).and_then(embeds) {
            Ok(engine) => return Ok(engine),
            Err(error) if on_graph.is_some() => return Err(error.context(onnx)),
            Err(_) => {}
        }
    }
    Ok(Box::new(subject.reference(DType::F32)?.engine))
}

/// Texts of different lengths are padded, so a graph must be told the mask and take any shape; and pooling needs the tokens' states.
fn embeds(engine: Box<dyn Engine>) -> anyhow::Result<Box<dyn Engine>> {
    let has = |specs: &[ValueSpec], name: &str| specs.iter().any(|spec| spec.name == name);
    anyhow::ensure!(
        has(engine.inputs(), "attention_mask"),
        "the graph has no input 'attention_mask', so it would count padding; take --engine reference"
    );
    anyhow::ensure!(
        has(engine.outputs(), "last_hidden_state"),
        "the graph has no output 'last_hidden_state' to pool; take --engine reference"
    );
    anyhow::ensure!(
        FixedShape::of(engine.inputs()) == FixedShape::default(),
        "the graph takes inputs of one shape only; take --engine reference"
    );
    Ok(engine)
}

fn embed(
    engine: &dyn Engine,
    encoded: &Encoded,
    pooling: Pooling,
    normalized: bool,
) -> anyhow::Result<Vec<Vec<f32>>> {
    let inputs = encoded.to_named_values();
    let outputs = engine.run(&fit_inputs(&inputs, engine.inputs())?)?;
    let hidden = outputs.get("last_hidden_state").context("the graph has no output 'last_hidden_state'")?;
    let hidden = hidden.to_tensor(&Device::Cpu)?;
    let pooled = outputs.get("pooler_output").map(|value| value.to_tensor(&Device::Cpu)).transpose()?;
    let mut pooled = pooling.pool(&hidden, &encoded.attention_mask, pooled.as_ref())?;
    if normalized {
        pooled = normalize(&pooled)?;
    }
    Ok(pooled.to_dtype(DType::F32)?.to_vec2()?)
}
