//! `parity predict`

use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use architecture::Task;
use bert_pipeline::PipelineError;
use bert_pipeline::pipeline::{
    Aggregation, EngineChoice, FeatureExtraction, FillMask, MultipleChoice, Options, Output, Pipeline,
    QuestionAnswering, TextClassification, TextRanking, TokenClassification,
};
use checkpoint::ModelFiles;
use clap::Args;
use engine::Engine;
use parity::report::terminal::table;
use parity::{Subject, Verdict};
use serde::Serialize;

use super::args::{AnyEngine, CompiledArgs, Precision, any_engine};
use super::embed::{tell, tell_truncation};
use super::{engines, is_stdout, model, terminal, write_json};

#[derive(Args)]
pub struct PredictArgs {
    /// A folder, or the id of a model on the hub
    pub model: String,

    /// What is asked: text-classification, token-classification, question-answering, fill-mask, multiple-choice, text-ranking or
    /// feature-extraction [default: text-ranking for a cross-encoder of
    /// sentence-transformers, else by the architectures of config.json]
    #[arg(long, value_name = "TASK")]
    pub task: Option<Asked>,

    /// A text, question or query (may be repeated where one answer a text is given)
    #[arg(long, value_name = "TEXT", required = true)]
    pub text: Vec<String>,

    /// The second text of a pair to classify; or a document to rank (then it may be repeated)
    #[arg(long, value_name = "TEXT")]
    pub pair: Vec<String>,

    /// Where the answer to a question is looked for
    #[arg(long, value_name = "TEXT")]
    pub context: Option<String>,

    /// A choice (repeated), for multiple choice
    #[arg(long, value_name = "TEXT")]
    pub choice: Vec<String>,

    /// The prompt before a query to rank by, by its name in config_sentence_transformers.json
    /// [default: the one named there]
    #[arg(long, value_name = "NAME")]
    pub prompt_name: Option<String>,

    /// What computes it [default: the fastest that takes the graph, where there is one, else reference]
    #[arg(long, value_name = "ENGINE", value_parser = any_engine())]
    pub engine: Option<AnyEngine>,

    /// The graph [default: onnx/model.onnx or model.onnx beside the checkpoint]
    #[arg(long, value_name = "FILE")]
    pub onnx: Option<PathBuf>,

    /// So many labels, answers, tokens or documents, the best first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub top_k: Option<u32>,

    /// How tokens become entities: none, simple, first, average or max
    #[arg(long, value_name = "STRATEGY", default_value = "none")]
    pub aggregation: Aggregation,

    /// Read texts with entities that are too long in parts that share N tokens
    #[arg(long, value_name = "N")]
    pub stride: Option<usize>,

    /// A word to choose from for a mask (may be repeated) [default: all words]
    #[arg(long, value_name = "WORD")]
    pub target: Vec<String>,

    /// Cut texts that are too long, where transformers would not
    #[arg(long)]
    pub truncate: bool,

    /// Write what transformers' pipeline for the task returns as JSON; `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What is asked of a model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Task(Task),
    /// Documents in the order in which they fit a query: what a cross-encoder is for, whose task is the classification of a pair.
    Ranking,
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "text-ranking" => Ok(Self::Ranking),
            _ => name.parse().map(Self::Task).map_err(|error: architecture::TaskError| error.to_string()),
        }
    }
}

/// How the pipelines are made.
struct Source<'a> {
    subject: &'a Subject,
    args: &'a PredictArgs,
    options: Options,
}

type FromFiles<P> = fn(&ModelFiles, &Options) -> Result<P, PipelineError>;
type WithEngine<P> = fn(&ModelFiles, Box<dyn Engine>, &Options) -> Result<P, PipelineError>;

impl Source<'_> {
    fn make<P>(&self, from_files: FromFiles<P>, with_engine: WithEngine<P>) -> anyhow::Result<P> {
        let files = self.subject.files();
        match self.args.engine.map(|engine| engine.0) {
            None => Ok(from_files(files, &self.options)?),
            Some(None) => Ok(from_files(files, &self.options.clone().with_engine(EngineChoice::Native))?),
            Some(Some(kind)) => {
                let (onnx, graph) = self.subject.graph(self.args.onnx.as_deref())?;
                let engine = engines::open(&graph, kind, Precision::F32, &CompiledArgs::default())
                    .context(onnx.clone())?;
                with_engine(files, engine, &self.options).context(onnx)
            }
        }
    }
}

macro_rules! make {
    ($source:expr, $pipeline:ident) => {{
        let pipeline = $source.make($pipeline::from_files, $pipeline::with_engine)?;
        if let Some(reason) = pipeline.note() {
            tell(&format!("the checkpoint runs and not the graph: {reason}"));
        }
        pipeline
    }};
}

pub fn command(args: &PredictArgs) -> anyhow::Result<Verdict> {
    let subject = model::open(Some(&args.model))?;
    let mut options = Options::default();
    options.onnx.clone_from(&args.onnx);
    if args.truncate {
        options.truncation = Some(true);
    }
    let asked = match args.task {
        Some(asked) => asked,
        None if TextRanking::is_meant_by(subject.files())? => Asked::Ranking,
        None => Asked::Task(subject.family().task()?),
    };
    refuse_strangers(args, asked)?;
    let source = Source { subject: &subject, args, options };
    let top_k = args.top_k.map(|top_k| top_k as usize);
    match asked {
        Asked::Ranking => rank(&source, top_k),
        Asked::Task(Task::SequenceClassification) => classify(&source, top_k),
        Asked::Task(Task::TokenClassification) => label_tokens(&source),
        Asked::Task(Task::QuestionAnswering) => answer(&source, top_k),
        Asked::Task(Task::MaskedLm) => fill(&source, top_k),
        Asked::Task(Task::MultipleChoice) => choose(&source),
        Asked::Task(Task::FeatureExtraction) => extract(&source),
        Asked::Task(task) => bail!("there is no pipeline for {task}; `parity run` gives its logits"),
    }
}

/// An argument that the task would not look at was meant for something.
fn refuse_strangers(args: &PredictArgs, asked: Asked) -> anyhow::Result<()> {
    let is = |task| asked == Asked::Task(task);
    let ranks = asked == Asked::Ranking;
    let name = match asked {
        Asked::Task(task) => task.name(),
        Asked::Ranking => "text-ranking",
    };
    let one_answer_a_text = is(Task::SequenceClassification) && args.pair.is_empty()
        || is(Task::TokenClassification)
        || is(Task::MaskedLm)
        || is(Task::FeatureExtraction);
    for (argument, is_given, is_taken) in [
        ("--pair", !args.pair.is_empty(), ranks || is(Task::SequenceClassification)),
        ("--prompt-name", args.prompt_name.is_some(), ranks),
        ("--context", args.context.is_some(), is(Task::QuestionAnswering)),
        ("--choice", !args.choice.is_empty(), is(Task::MultipleChoice)),
        ("--target", !args.target.is_empty(), is(Task::MaskedLm)),
        ("--aggregation", args.aggregation != Aggregation::None, is(Task::TokenClassification)),
        ("--stride", args.stride.is_some(), is(Task::TokenClassification)),
        ("a second --text", args.text.len() > 1, one_answer_a_text),
        (
            "--top-k",
            args.top_k.is_some(),
            ranks || is(Task::SequenceClassification) || is(Task::QuestionAnswering) || is(Task::MaskedLm),
        ),
    ] {
        ensure!(!is_given || is_taken, "{argument} means nothing to {name}");
    }
    ensure!(!is(Task::QuestionAnswering) || args.context.is_some(), "{name} needs a --context");
    ensure!(!is(Task::MultipleChoice) || !args.choice.is_empty(), "{name} needs a --choice, and another");
    ensure!(!ranks || !args.pair.is_empty(), "{name} needs the documents, each as a --pair");
    ensure!(ranks || args.pair.len() < 2, "a text has one --pair");
    Ok(())
}

fn classify(source: &Source<'_>, top_k: Option<usize>) -> anyhow::Result<Verdict> {
    let args = source.args;
    let pipeline = make!(source, TextClassification).with_top_k(Some(top_k.unwrap_or(1)));
    let outputs = match args.pair.first() {
        Some(pair) => vec![pipeline.run_one((args.text[0].as_str(), pair.as_str()))?],
        None => pipeline.run(&args.text)?,
    };
    let rows = outputs.iter().zip(&args.text).flat_map(|(output, text)| {
        output.iter().map(|label| vec![text.clone(), label.label.clone(), score(label.score.into())])
    });
    let rows: Vec<_> = rows.collect();
    each(source, outputs, &["text", "label", "score"], 2, rows)
}

fn label_tokens(source: &Source<'_>) -> anyhow::Result<Verdict> {
    let args = source.args;
    let mut pipeline = make!(source, TokenClassification).with_aggregation(args.aggregation)?;
    if let Some(stride) = args.stride {
        pipeline = pipeline.with_stride(stride)?;
    }
    let outputs = pipeline.run(&args.text)?;
    let rows = outputs.iter().flat_map(|output| output.iter()).map(|entity| {
        let label = entity.entity.as_ref().or(entity.entity_group.as_ref());
        vec![
            entity.word.clone(),
            label.cloned().unwrap_or_default(),
            score(entity.score.into()),
            format!("{}..{}", entity.start, entity.end),
        ]
    });
    let rows: Vec<_> = rows.collect();
    each(source, outputs, &["word", "entity", "score", "characters"], 2, rows)
}

fn answer(source: &Source<'_>, top_k: Option<usize>) -> anyhow::Result<Verdict> {
    let args = source.args;
    let pipeline = make!(source, QuestionAnswering).with_top_k(top_k.unwrap_or(1))?;
    let answers = pipeline.answer(&args.text[0], args.context.as_deref().unwrap_or_default())?;
    let rows = answers.0.iter().map(|answer| {
        vec![answer.answer.clone(), score(answer.score), format!("{}..{}", answer.start, answer.end)]
    });
    let rows = rows.collect();
    write(source, &answers, &["answer", "score", "characters"], 1, rows)
}

fn fill(source: &Source<'_>, top_k: Option<usize>) -> anyhow::Result<Verdict> {
    let args = source.args;
    let mut pipeline = make!(source, FillMask);
    if let Some(top_k) = top_k {
        pipeline = pipeline.with_top_k(top_k)?;
    }
    if !args.target.is_empty() {
        pipeline = pipeline.with_targets(&args.target)?;
    }
    let outputs = pipeline.run(&args.text)?;
    let rows = outputs
        .iter()
        .flat_map(|output| output.0.iter().flatten())
        .map(|filled| vec![filled.token_str.clone(), score(filled.score.into()), filled.sequence.clone()]);
    let rows: Vec<_> = rows.collect();
    each(source, outputs, &["token", "score", "sequence"], 1, rows)
}

fn choose(source: &Source<'_>) -> anyhow::Result<Verdict> {
    let args = source.args;
    let choices = make!(source, MultipleChoice).choose(&args.text[0], &args.choice)?;
    if choices.iter().any(|choice| choice.truncated) {
        tell_truncation(&[0]);
    }
    let rows = choices.iter().map(|choice| vec![choice.choice.clone(), score(choice.score.into())]).collect();
    write(source, &choices, &["choice", "score"], 1, rows)
}

fn rank(source: &Source<'_>, top_k: Option<usize>) -> anyhow::Result<Verdict> {
    let args = source.args;
    let mut pipeline = make!(source, TextRanking);
    if let Some(name) = &args.prompt_name {
        pipeline = pipeline.with_prompt_name(name)?;
    }
    let mut ranking = pipeline.rank(&args.text[0], &args.pair)?;
    let cut: Vec<usize> =
        ranking.iter().filter(|ranked| ranked.truncated).map(|ranked| ranked.corpus_id).collect();
    tell_truncation(&cut);
    ranking.truncate(top_k.unwrap_or(usize::MAX));
    let rows = ranking.iter().map(|ranked| {
        let document = args.pair.get(ranked.corpus_id).cloned().unwrap_or_default();
        vec![document, ranked.corpus_id.to_string(), score(ranked.score.into())]
    });
    let rows = rows.collect();
    write(source, &ranking, &["document", "corpus_id", "score"], 2, rows)
}

fn extract(source: &Source<'_>) -> anyhow::Result<Verdict> {
    const SHOWN: usize = 4;
    let args = source.args;
    let outputs = make!(source, FeatureExtraction).run(&args.text)?;
    let rows = outputs.iter().zip(&args.text).map(|(states, text)| {
        let first: Vec<String> =
            states.iter().flatten().take(SHOWN).map(|state| format!("{state:.4}")).collect();
        vec![text.clone(), states.len().to_string(), format!("{} …", first.join(" "))]
    });
    let rows: Vec<_> = rows.collect();
    // transformers has the batch around each text's features, of size 1.
    let outputs = outputs
        .into_iter()
        .map(|output| Output { truncated: output.truncated, prediction: [output.prediction] });
    each(source, outputs.collect(), &["text", "tokens", "features"], 1, rows)
}

fn score(score: f64) -> String {
    format!("{score:.4}")
}

/// Writes the prediction for each text: that of the only one as it is, those of several as a list, as transformers returns them.
fn each<T: Serialize>(
    source: &Source<'_>,
    mut outputs: Vec<Output<T>>,
    header: &[&str],
    number: usize,
    rows: Vec<Vec<String>>,
) -> anyhow::Result<Verdict> {
    let truncated = outputs.iter().enumerate().filter(|(_, output)| output.truncated);
    tell_truncation(&truncated.map(|(text, _)| text).collect::<Vec<_>>());
    if outputs.len() == 1
        && let Some(only) = outputs.pop()
    {
        return write(source, &only, header, number, rows);
    }
    write(source, &outputs, header, number, rows)
}

fn write(
    source: &Source<'_>,
    prediction: &impl Serialize,
    header: &[&str],
    number: usize,
    rows: Vec<Vec<String>>,
) -> anyhow::Result<Verdict> {
    if let Some(path) = &source.args.json {
        write_json(path, prediction)?;
    }
    if !source.args.json.as_deref().is_some_and(is_stdout) {
        let mut out = terminal::stdout();
        if rows.is_empty() {
            writeln!(out, "nothing found")?;
        } else {
            table(&mut out, header, number..number + 1, rows.into_iter())?;
        }
        out.flush()?;
    }
    Ok(Verdict::Pass)
}
