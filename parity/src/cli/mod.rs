//! The command line: what was typed becomes a command, a command becomes a result, and a result is shown by one renderer.
//!
//! Results go to stdout, everything else to stderr.

mod args;
mod bench;
mod check;
mod embed;
mod engines;
mod export;
mod inspect;
mod lines;
mod model;
mod predict;
mod progress;
mod render;
mod reports;
mod run;
mod selftest;
mod show;
mod signals;
mod terminal;
mod vectors;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use bert_pipeline::PipelineError;
use checkpoint::CheckpointError;
use clap::Parser as _;
use engine::memory::set_max_memory;
use engine::replace_file;
use parity::{ParityError, Verdict};
use serde::Serialize;

use args::{Cli, Command};

/// Runs the command that the process's arguments ask for.
pub fn main() -> ExitCode {
    // A wrong usage ends here, with exit code 2 and clap's message, which repeats what was typed: a
    // shell may have put the name of a file there.
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let inert = std::env::args_os().map(|argument| terminal::inert(&argument.to_string_lossy()));
        Cli::try_parse_from(inert).err().unwrap_or(error).exit()
    });
    if let Some(bytes) = cli.max_memory {
        set_max_memory(bytes);
    }
    signals::watch();
    let result = match &cli.command {
        None => check::command(&cli.check),
        Some(Command::Check(args)) => check::command(args),
        Some(Command::Run(args)) => run::command(args),
        Some(Command::Export(args)) => export::command(args),
        Some(Command::Inspect(args)) => inspect::command(args),
        Some(Command::Embed(args)) => embed::command(args),
        Some(Command::Predict(args)) => predict::command(args),
        Some(Command::Bench(args)) => bench::command(args),
        Some(Command::Selftest(args)) => selftest::command(args),
        Some(Command::Render(args)) => render::command(args),
    };
    match result {
        Ok(verdict) => verdict.into(),
        // Whoever read our output has had enough, as `parity | head` does.
        Err(error) if is_broken_pipe(&error) => Verdict::Pass.into(),
        Err(error) => {
            // If stderr is gone too there is nobody left to tell.
            let _ = show::error(&mut terminal::stderr(), &one_line(&error));
            Verdict::Error.into()
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// So much of a list is shown in an error.
const LISTED: usize = 8;

/// An error and its causes on one line, each cause said once: many messages hold that of their cause already.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    if let Some(CheckpointError::SeveralGraphs { model, graphs }) = error.chain().find_map(of_files) {
        let again = |graph: &String| format!("{} --onnx {}", reports::command_line(), reports::quoted(graph));
        let commands: Vec<String> = graphs.iter().take(LISTED).map(again).collect();
        let more = match graphs.len().saturating_sub(LISTED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        return format!(
            "{model} has {} graphs, and none of them is called onnx/model.onnx or model.onnx; say which is meant: {}{more}",
            graphs.len(),
            commands.join("; ")
        );
    }
    let mut line = String::new();
    for cause in error.chain().map(|cause| joined(&cause.to_string())) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line += ": ";
            line += &cause;
        }
    }
    line
}

/// The error about a model's files that another error hands on as its own.
fn of_files<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a CheckpointError> {
    let of_pipeline = |error: &'a PipelineError| match error {
        PipelineError::Checkpoint(error) => Some(error),
        _ => None,
    };
    match error.downcast_ref() {
        Some(ParityError::Checkpoint(error)) => Some(error),
        Some(ParityError::Pipeline(error)) => of_pipeline(error),
        _ => error.downcast_ref().and_then(of_pipeline).or_else(|| error.downcast_ref()),
    }
}

/// A message of several lines as one. Of a long list, such as all tensors of another model, the beginning is enough.
fn joined(message: &str) -> String {
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut line = lines.next().unwrap_or_default().to_string();
    for (number, item) in lines.by_ref().take(LISTED).enumerate() {
        line += if number == 0 { ": " } else { "; " };
        line += item;
    }
    match lines.count() {
        0 => line,
        more => format!("{line}; and {more} more"),
    }
}

/// Whoever reads stdout may have had enough, as `parity | head` does. That changes nothing about the result.
fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

/// Where `--json` writes: `-` is stdout, which then holds that JSON alone.
fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Writes a file as a whole or not at all.
fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = replace_file(path, text.as_bytes());
    unless_closed(written).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a result as JSON, to a file or to stdout.
fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let mut json = serde_json::to_string_pretty(value)?;
    json.push('\n');
    if is_stdout(path) {
        unless_closed(io::stdout().write_all(terminal::inert_json(&json).as_bytes()))?;
        return Ok(());
    }
    write_file(path, &json)
}
