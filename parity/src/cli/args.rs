//! What can be typed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use architecture::Task;
use candle_core::Device;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use parity::engines::bench::MIN_RUNS;
use parity::engines::open::Kind;
use parity::report::Expect;

/// Hold a BERT's ONNX graph against its checkpoint: do both compute the same function?
///
/// Without arguments, the embedded bert-tiny is checked. Exit code 0: they do; 1: they do not; 2: the check could not be
/// run; 3: nothing, or not everything that was asked for, was compared.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The most memory that a file may make when it is read, such as 512M or 4G; what it maps of
    /// its weights does not count [default: 128 MiB and 8 times the file's size]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    pub max_memory: Option<u64>,

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
    Embed(super::embed::EmbedArgs),
    /// Answer for texts what the model was trained to answer: labels, entities, answers, missing words
    Predict(super::predict::PredictArgs),
    /// Time the engines against each other
    Bench(BenchArgs),
    /// Plant faults in copies of a graph, and see which of them a check would have caught
    Selftest(SelftestArgs),
    /// Show a report again that was saved as JSON, in any form
    Render(RenderArgs),
}

/// Any engine: one that runs graphs, or the native model, from the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnyEngine(pub Option<Kind>);

/// The engine that is the native model.
const REFERENCE: &str = "reference";

impl FromStr for AnyEngine {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name == REFERENCE { Ok(Self(None)) } else { name.parse().map(|kind| Self(Some(kind))) }
    }
}

/// Reads the name of an engine that runs graphs.
fn on_graph() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(described)).try_map(|name| name.parse())
}

/// Reads the name of any engine.
pub fn any_engine() -> impl TypedValueParser<Value = AnyEngine> {
    let reference = PossibleValue::new(REFERENCE).help("The native model, from the checkpoint");
    let all = [reference].into_iter().chain(Kind::ALL.map(described));
    PossibleValuesParser::new(all).try_map(|name| name.parse())
}

fn described(kind: Kind) -> PossibleValue {
    PossibleValue::new(kind.name()).help(match kind {
        Kind::Candle => "candle-onnx over a lowered graph",
        Kind::Compiled => "The graph compiled to few steps over packed weights",
        Kind::Oracle => "Every operator by the specification: right, and slow",
    })
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    F32,
    F64,
}

/// A device of candle's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceName {
    Cpu,
    Cuda(usize),
    Metal(usize),
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || "one of cpu, cuda, cuda:N, metal and metal:N".to_string();
        let (kind, number) = match text.split_once(':') {
            Some((kind, number)) => (kind, Some(number.parse().map_err(|_| unknown())?)),
            None => (text, None),
        };
        match (kind, number) {
            ("cpu", None) => Ok(DeviceName::Cpu),
            ("cuda", number) => Ok(DeviceName::Cuda(number.unwrap_or(0))),
            ("metal", number) => Ok(DeviceName::Metal(number.unwrap_or(0))),
            _ => Err(unknown()),
        }
    }
}

impl DeviceName {
    /// The device.
    ///
    /// # Errors
    /// If it is not there, or this was built without it.
    pub fn open(self) -> anyhow::Result<Device> {
        match self {
            DeviceName::Cpu => Ok(Device::Cpu),
            DeviceName::Cuda(number) => Device::new_cuda(number).with_context(|| {
                format!("there is no device cuda:{number} here; it takes a build with the feature 'cuda'")
            }),
            DeviceName::Metal(number) => Device::new_metal(number).with_context(|| {
                format!("there is no device metal:{number} here; it takes a build with the feature 'metal'")
            }),
        }
    }
}

/// Reads what graphs are converted to on purpose.
fn conversion() -> impl TypedValueParser<Value = Expect> {
    let values = [
        PossibleValue::new("f16").help("Half precision, f16 or bf16"),
        PossibleValue::new("int8").help("Weights of eight bits, activations as they may be"),
        PossibleValue::new("int4").help("Weights of four bits, or of four and eight"),
    ];
    PossibleValuesParser::new(values).map(|name| match name.as_str() {
        "f16" => Expect::F16,
        "int8" => Expect::Int8,
        _ => Expect::Int4,
    })
}

/// How the engine `compiled` runs a graph.
#[derive(Args, Default)]
pub struct CompiledArgs {
    /// The engine compiled computes real tokens only; padded positions of an output are zero
    #[arg(long)]
    pub skip_padding: bool,

    /// The engine compiled makes these passes and no others; an empty list for none [default: all]
    #[arg(long, value_name = "NAME,…", value_parser = pass_names)]
    pub passes: Option<Names>,
}

/// Names from one argument, divided by commas.
pub type Names = std::sync::Arc<[String]>;

#[derive(Args)]
pub struct CheckArgs {
    /// A folder, the id of a model on the hub, or a graph that the one in --onnx was made of [default: the embedded bert-tiny]
    pub model: Option<String>,

    /// An exported folder: its graph is taken, and its labels, tokenizer, lengths, pooling and
    /// prompts are held against the checkpoint's
    pub export: Option<String>,

    /// The graph, a file or one of the model's such as onnx/model_O4.onnx [default: onnx/model.onnx
    /// or model.onnx beside the checkpoint, else the only .onnx file there, else one made of the
    /// checkpoint in memory]
    #[arg(long, value_name = "FILE")]
    pub onnx: Vec<PathBuf>,

    /// What the model is for, as transformers' pipelines call it: text-classification, fill-mask, … [default: by the architectures of config.json]
    #[arg(long, value_name = "TASK")]
    pub task: Option<Task>,

    /// An engine that runs the graph (may be repeated) [default: candle and compiled, each if it takes the graph, or else the oracle]
    #[arg(long, value_name = "ENGINE", value_parser = on_graph())]
    pub engine: Vec<Kind>,

    /// The largest difference that passes, absolute
    #[arg(long, value_name = "X", default_value = "1e-6", value_parser = tolerance)]
    pub atol: f64,

    /// The largest difference that proves both the same in f64, relative to the largest value where that is above 1
    #[arg(long, value_name = "X", default_value = "1e-10", value_parser = tolerance)]
    pub proof_tol: f64,

    /// Exit with 1 where f32 is beyond --atol, though that is rounding and the proof holds
    #[arg(long)]
    pub strict: bool,

    /// Exit with 3 where the proof holds on the inputs tried alone
    #[arg(long, value_name = "SCOPE")]
    pub require: Option<Require>,

    /// What the graph was converted to on purpose: it is held against the checkpoint rounded the same way, and the loss is told apart
    #[arg(long, value_name = "PRECISION", value_parser = conversion())]
    pub expect: Option<Expect>,

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

    /// Where the reference runs in f32: cpu, cuda, cuda:N, metal or metal:N, as far as this was built for it
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: DeviceName,

    /// Write the report as JSON; `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    #[command(flatten)]
    pub forms: FormArgs,

    #[command(flatten)]
    pub inputs_of: InputArgs,

    #[command(flatten)]
    pub compiled: CompiledArgs,
}

/// What the inputs of a graph are.
#[derive(Args)]
pub struct InputArgs {
    /// What an input of the graph is, where neither its name nor its use tells (may be repeated):
    /// attention_mask=input.2
    #[arg(long, value_name = "USUAL=NAME", value_parser = input_name)]
    pub input: Vec<(String, String)>,
}

impl InputArgs {
    /// The graph's names by the usual ones.
    pub fn names(&self) -> BTreeMap<String, String> {
        self.input.iter().cloned().collect()
    }
}

/// The forms of a report that are files for people and CI.
#[derive(Args)]
pub struct FormArgs {
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
pub struct RenderArgs {
    /// What `parity check --json` or `parity selftest --json` has written; `-` for stdin
    #[arg(value_name = "REPORT.json")]
    pub report: PathBuf,

    #[command(flatten)]
    pub forms: FormArgs,
}

#[derive(Args)]
pub struct RunArgs {
    /// A folder, the id of a model on the hub, or a graph (FILE.onnx)
    pub model: String,

    /// The inputs, named as the model's: .safetensors, .npz, .npy for a single one, or one of
    /// ONNX's test folders
    #[arg(long, value_name = "IN.safetensors")]
    pub inputs: PathBuf,

    /// What must come out, in the same forms; exit code 1 where it does not
    #[arg(long, value_name = "FILE")]
    pub expected: Option<PathBuf>,

    /// The largest difference from what is expected, absolute
    #[arg(long, value_name = "X", default_value = "1e-6", value_parser = tolerance, requires = "expected")]
    pub atol: f64,

    /// Where the outputs go: .safetensors, .npz, or .npy for a single one
    #[arg(long, value_name = "OUT.safetensors")]
    pub outputs: PathBuf,

    /// What the model is for, as transformers' pipelines call it: text-classification, fill-mask, … [default: by the architectures of config.json]
    #[arg(long, value_name = "TASK")]
    pub task: Option<Task>,

    /// What runs it [default: reference for a checkpoint; for a graph compiled, or the oracle where that does not take it or f64 is asked for]
    #[arg(long, value_name = "ENGINE", value_parser = any_engine())]
    pub engine: Option<AnyEngine>,

    /// What reference and oracle compute in
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    pub dtype: Precision,

    #[command(flatten)]
    pub compiled: CompiledArgs,
}

/// Who will run a graph.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportTarget {
    /// Anything that follows the specification
    Onnx,
    /// Stock candle-onnx as well
    CandleOnnx,
}

/// What a graph computes in.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportDtype {
    /// Single precision
    F32,
    /// Half precision, with outputs in f32
    F16,
}

/// Where a graph has its weights from.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WeightsFrom {
    /// From the checkpoint's own file, where they stay
    Safetensors,
}

/// Rows, choices where there are any, and tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedInputs(pub usize, pub Option<usize>, pub usize);

#[derive(Args)]
pub struct ExportArgs {
    /// A folder, or the id of a model on the hub
    pub model: String,

    /// The graph to write
    #[arg(short, long, value_name = "FILE.onnx", value_parser = onnx_file)]
    pub output: PathBuf,

    /// The version of ONNX's operators, 13 to 21
    #[arg(long, value_name = "N", default_value_t = 17)]
    pub opset: i64,

    /// The task, and so the head [default: by config.json's `architectures`]
    #[arg(long, value_name = "TASK")]
    pub task: Option<Task>,

    /// Fix the inputs to B rows of S tokens, or those of a multiple choice to B,C,S [default: any]
    #[arg(long = "static", value_name = "B,S", value_parser = fixed_inputs)]
    pub fixed: Option<FixedInputs>,

    /// Who will run it
    #[arg(long, value_name = "TARGET", default_value = "onnx")]
    pub target: ExportTarget,

    /// What it computes in
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    pub dtype: ExportDtype,

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

    /// Say too what this engine makes of it: in how many steps, and what of it fell back to the
    /// oracle, and why
    #[arg(long)]
    pub engine: Option<PlanningEngine>,
}

/// An engine that makes a plan of a graph.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanningEngine {
    /// The graph compiled to few steps over packed weights
    Compiled,
}

/// A graph, and the model that it is of.
#[derive(Args)]
pub struct GraphArgs {
    /// A folder, or the id of a model on the hub [default: the embedded bert-tiny]
    pub model: Option<String>,

    /// The graph, a file or one of the model's such as onnx/model_O4.onnx [default: onnx/model.onnx
    /// or model.onnx beside the checkpoint, else the only .onnx file there, else one made of the
    /// checkpoint in memory]
    #[arg(long, value_name = "FILE")]
    pub onnx: Option<PathBuf>,

    /// What the model is for, as transformers' pipelines call it: text-classification, fill-mask, … [default: by the architectures of config.json]
    #[arg(long, value_name = "TASK")]
    pub task: Option<Task>,
}

#[derive(Args)]
pub struct BenchArgs {
    #[command(flatten)]
    pub of: GraphArgs,

    /// An engine to time (may be repeated) [default: reference, candle and compiled]
    #[arg(long, value_name = "ENGINE", value_parser = any_engine())]
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

    #[command(flatten)]
    pub compiled: CompiledArgs,
}

#[derive(Args)]
pub struct SelftestArgs {
    #[command(flatten)]
    pub of: GraphArgs,

    /// Write the result as JSON; `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn pass_names(text: &str) -> Result<Names, String> {
    Ok(text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect())
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() && x >= 0.0 => Ok(x),
        _ => Err("a number such as 1e-6, not negative".into()),
    }
}

/// A usual name of an input, and the one that a graph has for it.
pub fn input_name(text: &str) -> Result<(String, String), String> {
    let (usual, name) = text.split_once('=').ok_or("two names, as in attention_mask=input.2")?;
    Ok((usual.into(), name.into()))
}

/// A number of bytes: 1000000, 512M, 4G, 4GiB.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => Some(0),
        "K" => Some(10),
        "M" => Some(20),
        "G" => Some(30),
        "T" => Some(40),
        _ => None,
    };
    let bytes =
        number.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.filter(|&bytes| bytes > 0).ok_or_else(|| "a number of bytes, such as 512M or 4G".into())
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

fn fixed_inputs(text: &str) -> Result<FixedInputs, String> {
    let sizes: Option<Vec<usize>> = text.split(',').map(|size| size.trim().parse().ok()).collect();
    match sizes.as_deref() {
        Some(&[batch, sequence]) => Ok(FixedInputs(batch, None, sequence)),
        Some(&[batch, choices, sequence]) => Ok(FixedInputs(batch, Some(choices), sequence)),
        _ => {
            Err("two whole numbers, rows and tokens, such as 1,128, or three, with choices between them"
                .into())
        }
    }
}

fn runs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(runs) if runs >= MIN_RUNS => Ok(runs),
        _ => Err(format!("a whole number, {MIN_RUNS} or more: fewer runs say nothing on a noisy machine")),
    }
}

/// For which inputs a proof must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Require {
    /// For all: the graph is the model, step by step
    EveryInput,
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
        assert_eq!(fixed_inputs("2, 8"), Ok(FixedInputs(2, None, 8)));
        assert_eq!(fixed_inputs("2,3,8"), Ok(FixedInputs(2, Some(3), 8)));
        assert!(["", "2", "2,", "2,8,1,1", "-1,8", "2x8"].iter().all(|text| fixed_inputs(text).is_err()));
    }

    #[test]
    fn a_size_is_a_number_of_bytes() {
        for (text, bytes) in
            [("1", 1), ("512M", 512 << 20), ("4g", 4 << 30), ("4GiB", 4 << 30), ("2KB", 2048), ("10b", 10)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert!(["", "0", "M", "-1", "1.5G", "1X", "99999999999T"].iter().all(|text| size(text).is_err()));
        let cli = Cli::parse_from(["parity", "inspect", "a.onnx", "--max-memory", "1G"]);
        assert_eq!(cli.max_memory, Some(1 << 30));
        assert_eq!(Cli::parse_from(["parity", "--max-memory", "1G"]).max_memory, Some(1 << 30));
    }

    #[test]
    fn a_device_is_one_of_candles() {
        assert_eq!("cuda:1".parse(), Ok(DeviceName::Cuda(1)));
        assert_eq!("metal".parse(), Ok(DeviceName::Metal(0)));
        assert!(
            ["", "gpu", "cuda:", "cuda:x", "cpu:0"].iter().all(|text| text.parse::<DeviceName>().is_err())
        );
    }

    #[test]
    fn a_tolerance_is_a_number() {
        assert_eq!(tolerance("1e-5"), Ok(1e-5));
        let check = Cli::parse_from(["parity"]).check;
        assert_eq!(check.atol, parity::DEFAULT_ATOL);
        assert_eq!(check.proof_tol, parity::DEFAULT_PROOF_TOL);
        assert!(["nan", "inf", "-1", "small"].iter().all(|text| tolerance(text).is_err()));
    }
}
