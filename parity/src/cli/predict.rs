//! `parity predict`

mod answers;
mod items;

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use architecture::Task;
use bert_pipeline::PipelineError;
use bert_pipeline::pipeline::{Aggregation, EngineChoice, Options, TextRanking, task_of};
use checkpoint::ModelFiles;
use clap::Args;
use engine::Engine;
use parity::{Subject, Verdict};

use self::items::{Item, items};
use super::args::{AnyEngine, CompiledArgs, InputArgs, Precision, any_engine};
use super::embed::refuse_graph_on_reference;
use super::{engines, model};

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
    #[arg(long, value_name = "TEXT", required_unless_present = "file", conflicts_with = "file")]
    pub text: Vec<String>,

    /// A file with one text a line, or `-` for stdin, and one answer for each; if it is called
    /// .jsonl or .ndjson, one object a line: "text", and with it "pair", "context", "choices" or
    /// "documents", as the task needs them
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

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

    /// The graph, a file or one of the model's such as onnx/model_O4.onnx [default: onnx/model.onnx
    /// or model.onnx beside the checkpoint; where there is no checkpoint, the only .onnx file]
    #[arg(long, value_name = "FILE")]
    pub onnx: Option<PathBuf>,

    #[command(flatten)]
    pub inputs_of: InputArgs,

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

impl Asked {
    fn name(self) -> &'static str {
        match self {
            Self::Task(task) => task.name(),
            Self::Ranking => "text-ranking",
        }
    }
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
    /// What is asked, one after the other.
    items: Vec<Item>,
}

type FromFiles<P> = fn(&ModelFiles, &Options) -> Result<P, PipelineError>;
type WithEngine<P> = fn(&ModelFiles, Box<dyn Engine>, &Options) -> Result<P, PipelineError>;

impl Source<'_> {
    fn make<P>(&self, from_files: FromFiles<P>, with_engine: WithEngine<P>) -> anyhow::Result<P> {
        let files = self.subject.files();
        match self.args.engine.map(|engine| engine.0) {
            None => Ok(from_files(files, &self.options)?),
            Some(None) => {
                refuse_graph_on_reference(self.args.onnx.as_deref())?;
                Ok(from_files(files, &self.options.clone().with_engine(EngineChoice::Native))?)
            }
            Some(Some(kind)) => {
                let (onnx, graph) = self.subject.graph(self.args.onnx.as_deref())?;
                let engine = engines::open(&graph, kind, Precision::F32, &CompiledArgs::default())
                    .context(onnx.clone())?;
                with_engine(files, engine, &self.options).context(onnx)
            }
        }
    }
}

pub fn command(args: &PredictArgs) -> anyhow::Result<Verdict> {
    let subject = model::open_any(Some(&args.model))?.naming_inputs(args.inputs_of.names());
    let mut options = Options::default();
    options.onnx.clone_from(&args.onnx);
    options.inputs = args.inputs_of.names();
    if args.truncate {
        options.truncation = Some(true);
    }
    let asked = match args.task {
        Some(asked) => asked,
        None if TextRanking::is_meant_by(subject.files())? => Asked::Ranking,
        None => Asked::Task(task_of(subject.files(), &options)?),
    };
    refuse_strangers(args, asked)?;
    let source = Source { items: items(args, asked)?, subject: &subject, args, options };
    let top_k = args.top_k.map(|top_k| top_k as usize);
    match asked {
        Asked::Ranking => answers::rank(&source, top_k),
        Asked::Task(Task::SequenceClassification) => answers::classify(&source, top_k),
        Asked::Task(Task::TokenClassification) => answers::label_tokens(&source),
        Asked::Task(Task::QuestionAnswering) => answers::answer(&source, top_k),
        Asked::Task(Task::MaskedLm) => answers::fill(&source, top_k),
        Asked::Task(Task::MultipleChoice) => answers::choose(&source),
        Asked::Task(Task::FeatureExtraction) => answers::extract(&source),
        Asked::Task(task) => bail!(
            "there is no pipeline for {task}: `parity run` gives its logits, and --task names another head"
        ),
    }
}

/// An argument that the task would not look at was meant for something.
fn refuse_strangers(args: &PredictArgs, asked: Asked) -> anyhow::Result<()> {
    let is = |task| asked == Asked::Task(task);
    let ranks = asked == Asked::Ranking;
    let name = asked.name();
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
        ensure!(
            !is_given || is_taken,
            "{argument} means nothing to {name}: leave it out, or name another --task"
        );
    }
    ensure!(
        ranks || args.pair.len() < 2,
        "a text has one --pair: leave the others out, or rank them all with --task text-ranking"
    );
    Ok(())
}
