//! The engines of this project beside others, on the same tensors. README.md says how to run it.

mod batch;
mod load;
mod machine;
mod peer;
mod rows;
mod runtimes;
mod table;
mod timing;
mod truth;
mod workload;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};

use peer::{ENTRIES, Entry};
use rows::{Row, Writer};
use workload::{WORKLOADS, Workload};

/// candle takes its number of threads from here, once, when it starts: each number of threads is a process of its own.
const THREADS: &str = "RAYON_NUM_THREADS";

#[derive(Parser)]
#[command(about = "BERT on this project's engines, ONNX Runtime, rten, tract and candle, side by side")]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Times peers in turn, after each has shown that it computes what the model in f64 computes.
    Run(RunArgs),
    /// Load time and memory, each peer alone in a fresh process.
    Load(LoadArgs),
    /// Makes Markdown of results files.
    Table {
        /// Files that `run` and `load` wrote.
        files: Vec<PathBuf>,
        /// Where to write it; stdout if not given.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Lists peers and workloads.
    List,
}

#[derive(Args)]
struct Common {
    /// The folder that models.py wrote.
    #[arg(long)]
    models: PathBuf,
    /// Rows are appended to this file.
    #[arg(long)]
    out: PathBuf,
    /// Threads of each peer; each number in a process of its own.
    #[arg(long, value_delimiter = ',', default_value = "2")]
    threads: Vec<usize>,
    /// Only these peers.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// All but these peers.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    common: Common,
    /// Only these workloads.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// At least this many rounds.
    #[arg(long, default_value_t = timing::MIN_ROUNDS)]
    rounds: usize,
    /// Seconds for each workload, if its fewest rounds take no longer; at most 30 rounds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Of the order of turns.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Set in a process that has been started for this number of threads.
    #[arg(long, hide = true)]
    here: Option<usize>,
}

#[derive(Args)]
struct LoadArgs {
    #[command(flatten)]
    common: Common,
    /// Of which workloads.
    #[arg(long, value_delimiter = ',', default_value = "W2,W5")]
    workloads: Vec<String>,
    /// Set in the fresh process.
    #[arg(long, hide = true)]
    here: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Action::Run(args) => run(&args),
        Action::Load(args) => load(&args),
        Action::Table { files, out } => write_table(&files, out.as_deref()),
        Action::List => list(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

impl Common {
    fn entries(&self) -> anyhow::Result<Vec<&'static Entry>> {
        for name in self.peers.iter().chain(&self.without) {
            peer::named(name)?;
        }
        let wanted = |entry: &&Entry| {
            let name = &entry.name.to_owned();
            (self.peers.is_empty() || self.peers.contains(name)) && !self.without.contains(name)
        };
        let entries: Vec<_> = ENTRIES.iter().filter(wanted).collect();
        ensure!(!entries.is_empty(), "no peer is left");
        Ok(entries)
    }
}

fn workloads(names: &[String]) -> anyhow::Result<Vec<Workload>> {
    if names.is_empty() {
        return Ok(WORKLOADS.to_vec());
    }
    names.iter().map(|name| Workload::named(name)).collect()
}

/// True if no peer was left out.
fn run(args: &RunArgs) -> anyhow::Result<bool> {
    let (entries, workloads) = (args.common.entries()?, workloads(&args.workloads)?);
    let Some(threads) = args.here else {
        return each_threads(&args.common.threads);
    };
    let mut writer = Writer::append(&args.common.out)?;
    writer.write(&Row::Process(machine::process(threads, args.seed)?))?;
    let mut plan = timing::Plan {
        threads,
        seed: args.seed,
        min_rounds: args.rounds,
        time: Duration::from_secs(args.seconds),
        writer: &mut writer,
        tell: &mut |line| Ok(writeln!(std::io::stderr(), "{line}")?),
    };
    let mut left_out = 0;
    for workload in workloads {
        left_out += timing::run(&workload, &workload.files(&args.common.models)?, &entries, &mut plan)?;
    }
    Ok(left_out == 0)
}

/// Runs this command again, in a process for each number of threads.
fn each_threads(threads: &[usize]) -> anyhow::Result<bool> {
    let mut complete = true;
    for count in threads {
        ensure!(*count > 0, "--threads must be at least 1");
        let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
        arguments.extend(["--here".into(), count.to_string().into()]);
        complete &= again(&arguments, *count)?;
    }
    Ok(complete)
}

/// This program in a process of its own. Whether it said that all went well.
fn again(arguments: &[std::ffi::OsString], threads: usize) -> anyhow::Result<bool> {
    let program = std::env::current_exe().context("cannot find this program to start it again")?;
    let status = Command::new(program).args(arguments).env(THREADS, threads.to_string()).status()?;
    ensure!(status.code().is_some_and(|code| code < 2), "it failed with {threads} thread(s)");
    Ok(status.success())
}

fn load(args: &LoadArgs) -> anyhow::Result<bool> {
    let (entries, workloads) = (args.common.entries()?, workloads(&args.workloads)?);
    if args.here {
        let ([entry], [workload], [threads]) = (&entries[..], &workloads[..], &args.common.threads[..])
        else {
            anyhow::bail!("--here is for one peer, one workload and one number of threads");
        };
        let row = load::measure(workload, &workload.files(&args.common.models)?, entry, *threads)?;
        Writer::append(&args.common.out)?.write(&row)?;
        return Ok(true);
    }
    let mut complete = true;
    for threads in &args.common.threads {
        let mut writer = Writer::append(&args.common.out)?;
        writer.write(&Row::Process(machine::process(*threads, 0)?))?;
        for workload in &workloads {
            for entry in entries.iter().filter(|entry| !entry.ragged_only) {
                complete &= load_alone(args, workload, entry, *threads)?;
            }
        }
    }
    Ok(complete)
}

fn load_alone(args: &LoadArgs, workload: &Workload, entry: &Entry, threads: usize) -> anyhow::Result<bool> {
    let (models, out) = (args.common.models.as_os_str(), args.common.out.as_os_str());
    let threads_text = threads.to_string();
    let mut arguments: Vec<std::ffi::OsString> =
        ["load", "--here", "--peers", entry.name, "--workloads", workload.name, "--threads", &threads_text]
            .map(Into::into)
            .into();
    arguments.extend(["--models".into(), models.into(), "--out".into(), out.into()]);
    let done = again(&arguments, threads);
    if let Err(error) = &done {
        writeln!(std::io::stderr(), "{} {}: left out: {error:#}", workload.name, entry.name)?;
    }
    Ok(done.unwrap_or(false))
}

fn write_table(files: &[PathBuf], out: Option<&Path>) -> anyhow::Result<bool> {
    ensure!(!files.is_empty(), "name the results files");
    let mut rows = Vec::new();
    for file in files {
        rows.extend(rows::read(file)?);
    }
    let text = table::markdown(&rows);
    match out {
        Some(path) => std::fs::write(path, text).with_context(|| path.display().to_string())?,
        None => std::io::stdout().write_all(text.as_bytes())?,
    }
    Ok(true)
}

fn list() -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    for entry in ENTRIES {
        writeln!(out, "{:30} {}", entry.name, entry.what)?;
    }
    for workload in WORKLOADS {
        writeln!(out, "{:30} {}", workload.name, workload.title)?;
    }
    Ok(true)
}
