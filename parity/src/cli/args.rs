//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use parity::audit::Expect;
use parity::bench::MIN_RUNS;

/// Hold a BERT's ONNX graph against its checkpoint: do both compute the same function?
///
/// Without arguments, the embedded bert-tiny is checked. Exit code 0: they do; 1: they do not; 2: the check could not be
/// run; 3: nothing, or not everything that was asked for, was compared.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub check: CheckArgs,
}

#[derive(Subcommand)]
pub enum Command {
    /// Compare a graph with its checkpoint (the default command)
    Check(CheckArgs),
    /// Run a checkpoint or any graph on inputs from a file
    Run(RunArgs),
    /// Make an ONNX graph of a checkpoint
    Export(ExportArgs),
    /// Show what is in a graph: inputs, outputs, operators, modules
    Inspect(InspectArgs),
    /// Turn texts into vectors
    Embed(EmbedArgs),
    /// Time the engines against each other
    Bench(BenchArgs),
    /// Plant faults in copies of a graph, and see which of them a check would have caught
    Selftest(SelftestArgs),
}

/// An engine that runs a graph.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphEngine {
    /// candle-onnx over a lowered graph
    Candle,
    /// Every operator by the specification: right, and slow
    Oracle,
}

impl GraphEngine {
    /// The engine that calls itself so.
    pub fn named(name: &str) -> Option<Self> {
        Self::value_variants()
            .iter()
            .copied()
            .find(|engine| engine.to_possible_value().is_some_and(|value| value.get_name() == name))
    }
}

/// Any engine.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnyEngine {
    /// The native model, from the checkpoint
    Reference,
    /// candle-onnx over a lowered graph
    Candle,
    /// Every operator by the specification: right, and slow
    Oracle,
}

impl AnyEngine {
    /// The engine as one that runs graphs, unless it is the reference.
    pub fn on_graph(self) -> Option<GraphEngine> {
        match self {
            AnyEngine::Reference => None,
            AnyEngine::Candle => Some(GraphEngine::Candle),
            AnyEngine::Oracle => Some(GraphEngine::Oracle),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    F32,
    F64,
}

/// What graphs are converted to on purpose.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Conversion {
    /// Half precision, f16 or bf16
    F16,
    /// Weights of eight bits, activations as they may be
    Int8,
}

impl From<Conversion> for Expect {
    fn from(conversion: Conversion) -> Self {
        match conversion {
            Conversion::F16 => Expect::F16,
            Conversion::Int8 => Expect::Int8,
        }
    }
}

#[derive(Args)]
pub struct CheckArgs {
    /// A folder, the id of a model in the hub cache, or a graph that the one in --onnx was made of [default: the embedded bert-tiny]
    pub model: Option<String>,

    /// The graph [default: onnx/model.onnx or model.onnx beside the checkpoint]
    #[arg(long, value_name = "FILE")]
    pub onnx: Vec<PathBuf>,

    /// An engine that runs the graph (may be repeated) [default: candle, or the oracle where candle does not take it]
    #[arg(long, value_name = "ENGINE")]
    pub engine: Vec<GraphEngine>,

    /// The largest difference that passes, absolute
    #[arg(long, value_name = "X", default_value = "1e-6", value_parser = tolerance)]
    pub atol: f64,

    /// The largest difference that proves both the same in f64, relative to the largest value where that is above 1
    #[arg(long, value_name = "X", default_value = "1e-10", value_parser = tolerance)]
    pub proof_tol: f64,

    /// Exit with 1 where f32 is beyond --atol, though that is rounding and the proof holds
    #[arg(long)]
    pub strict: bool,

    /// What the graph was converted to on purpose: it is held against the checkpoint rounded the same way, and the loss is told apart
    #[arg(long, value_name = "PRECISION")]
    pub expect: Option<Conversion>,

    /// Compare this output, and fail to conclude where it is missing
    #[arg(long, value_name = "NAME")]
    pub output: Vec<String>,

    /// Run these inputs and nothing else: int64 tensors named as the model's inputs
    #[arg(long, value_name = "FILE.safetensors", conflicts_with = "text")]
    pub inputs: Option<PathBuf>,

    /// Hold everything against these outputs too, which were recorded elsewhere: .safetensors, .npz, or one of ONNX's test folders
    #[arg(long, value_name = "FILE", requires = "inputs")]
    pub expected: Option<PathBuf>,

    /// Where the check fails, write the smallest input that shows it to a new folder, with a test that replays it
    #[arg(long, value_name = "DIR", conflicts_with = "expect")]
    pub repro: Option<PathBuf>,

    /// Run this text and nothing else (may be repeated: one batch)
    #[arg(long, value_name = "TEXT")]
    pub text: Vec<String>,

    /// Write the report as JSON; `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write the report as Markdown, short enough for a CI summary
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,

    /// Write the report as one HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Write the report as JUnit's XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

#[derive(Args)]
pub struct RunArgs {
    /// A folder, the id of a model in the hub cache, or a graph (FILE.onnx)
    pub model: String,

    /// The inputs, named as the model's: .safetensors, .npz, or one of ONNX's test folders
    #[arg(long, value_name = "IN.safetensors")]
    pub inputs: PathBuf,

    /// What must come out, in the same forms; exit code 1 where it does not
    #[arg(long, value_name = "FILE")]
    pub expected: Option<PathBuf>,

    /// The largest difference from what is expected, absolute
    #[arg(long, value_name = "X", default_value = "1e-6", value_parser = tolerance, requires = "expected")]
    pub atol: f64,

    /// Where the outputs go
    #[arg(long, value_name = "OUT.safetensors")]
    pub outputs: PathBuf,

    /// What runs it [default: reference for a checkpoint; for a graph candle, or the oracle where that does not take it or f64 is asked for]
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<AnyEngine>,

    /// What reference and oracle compute in
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    pub dtype: Precision,
}

/// Who will run a graph.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportTarget {
    /// Anything that follows the specification
    Onnx,
    /// Stock candle-onnx as well
    CandleOnnx,
}

/// Where a graph has its weights from.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WeightsFrom {
    /// From the checkpoint's own file, where they stay
    Safetensors,
}

#[derive(Args)]
pub struct ExportArgs {
    /// A folder, or the id of a model in the hub cache
    pub model: String,

    /// The graph to write
    #[arg(short, long, value_name = "FILE.onnx", value_parser = onnx_file)]
    pub output: PathBuf,

    /// The version of ONNX's operators, 13 to 21
    #[arg(long, value_name = "N", default_value_t = 17)]
    pub opset: i64,

    /// Fix the inputs to B rows of S tokens [default: any]
    #[arg(long = "static", value_name = "B,S", value_parser = two_sizes)]
    pub fixed: Option<(usize, usize)>,

    /// Who will run it
    #[arg(long, value_name = "TARGET", default_value = "onnx")]
    pub target: ExportTarget,

    /// Leave the weights in the checkpoint's file: the graph, which must be written beside it, points at them
    #[arg(long, value_name = "FORMAT", conflicts_with = "external_data")]
    pub weights_from: Option<WeightsFrom>,

    /// Write the weights to a second file, FILE.onnx.data, as models of more than 2 GiB are in any case
    #[arg(long)]
    pub external_data: bool,
}

#[derive(Args)]
pub struct InspectArgs {
    /// The graph
    #[arg(value_name = "FILE.onnx")]
    pub onnx: PathBuf,

    /// Write it as JSON; `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args)]
pub struct EmbedArgs {
    /// A folder, or the id of a model in the hub cache [default: the embedded bert-tiny]
    pub model: Option<String>,

    /// A text (may be repeated)
    #[arg(long, value_name = "TEXT", required_unless_present = "file", conflicts_with = "file")]
    pub text: Vec<String>,

    /// A file with one text a line
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// What computes the features [default: candle where there is a graph that it takes, else reference]
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<AnyEngine>,

    /// Write the vectors as JSON; `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args)]
pub struct BenchArgs {
    /// A folder, or the id of a model in the hub cache [default: the embedded bert-tiny]
    pub model: Option<String>,

    /// The graph [default: onnx/model.onnx or model.onnx beside the checkpoint]
    #[arg(long, value_name = "FILE")]
    pub onnx: Option<PathBuf>,

    /// An engine to time (may be repeated) [default: reference and candle]
    #[arg(long, value_name = "ENGINE")]
    pub engine: Vec<AnyEngine>,

    /// Time these inputs
    #[arg(long, value_name = "FILE.safetensors", conflicts_with_all = ["batch", "seq"])]
    pub inputs: Option<PathBuf>,

    /// Rows of the inputs
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: u32,

    /// Tokens in each row
    #[arg(long, value_name = "S", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub seq: u32,

    /// Timed runs of each engine, at least
    #[arg(long, value_name = "N", default_value_t = MIN_RUNS, value_parser = runs)]
    pub runs: usize,

    /// Threads that candle may use [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,

    /// Write the results as JSON; `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args)]
pub struct SelftestArgs {
    /// A folder, or the id of a model in the hub cache [default: the embedded bert-tiny]
    pub model: Option<String>,

    /// The graph [default: onnx/model.onnx or model.onnx beside the checkpoint]
    #[arg(long, value_name = "FILE")]
    pub onnx: Option<PathBuf>,

    /// Write the result as JSON; `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() && x >= 0.0 => Ok(x),
        _ => Err("a number such as 1e-6, not negative".into()),
    }
}

/// A file that does not look like a graph's is not overwritten: it may be the checkpoint.
fn onnx_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.extension().is_some_and(|extension| extension == "onnx") {
        Ok(path)
    } else {
        Err("the name of a graph ends in .onnx".into())
    }
}

fn two_sizes(text: &str) -> Result<(usize, usize), String> {
    let sizes = text
        .split_once(',')
        .and_then(|(batch, sequence)| Some((batch.trim().parse().ok()?, sequence.trim().parse().ok()?)));
    sizes.ok_or_else(|| "two whole numbers, rows and tokens, such as 1,128".into())
}

fn runs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(runs) if runs >= MIN_RUNS => Ok(runs),
        _ => Err(format!("a whole number, {MIN_RUNS} or more: fewer runs say nothing on a noisy machine")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn check_is_the_default_command() {
        let cli = Cli::parse_from(["parity", "org/model", "--onnx", "a.onnx"]);
        assert!(cli.command.is_none());
        assert_eq!(cli.check.model.as_deref(), Some("org/model"));
        let cli = Cli::parse_from(["parity", "check", "org/model"]);
        assert!(
            matches!(cli.command, Some(Command::Check(args)) if args.model.as_deref() == Some("org/model"))
        );
    }

    #[test]
    fn a_graph_is_written_to_a_graphs_name() {
        assert!(onnx_file("model.safetensors").is_err());
        assert_eq!(onnx_file("a/b.onnx"), Ok(PathBuf::from("a/b.onnx")));
        assert_eq!(two_sizes("2, 8"), Ok((2, 8)));
        assert!(["", "2", "2,", "2,8,1", "-1,8", "2x8"].iter().all(|text| two_sizes(text).is_err()));
    }

    #[test]
    fn a_tolerance_is_a_number() {
        assert_eq!(tolerance("1e-5"), Ok(1e-5));
        let check = Cli::parse_from(["parity"]).check;
        assert_eq!(check.atol, parity::check::DEFAULT_ATOL);
        assert_eq!(check.proof_tol, parity::proof::DEFAULT_PROOF_TOL);
        assert!(["nan", "inf", "-1", "small"].iter().all(|text| tolerance(text).is_err()));
    }
}
