//! `parity check`

use std::io::Write as _;
use std::path::PathBuf;

use parity::check::{Check, Inputs, Step};
use parity::report::{Expect, Report, terminal as form};
use parity::{Bounds, Verdict, is_graph};

use super::args::CheckArgs;
use super::{engines, is_stdout, model, one_line, progress, reports, terminal, unless_closed};

pub fn command(args: &CheckArgs) -> anyhow::Result<Verdict> {
    let result = report(args);
    let failed = result.as_ref().err().map(|error| failed(args, error));
    // A check that cannot be run is reported, too; where that cannot be written, both errors are
    // shown.
    let written = match result.as_ref().ok().or(failed.as_ref()) {
        Some(report) => reports::write(args.json.as_deref(), &args.forms, report),
        None => Ok(()),
    };
    let report = match (result, written) {
        (Ok(report), written) => written.map(|()| report),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(unwritten)) => Err(error.context(one_line(&unwritten))),
    }?;
    if !args.json.as_deref().is_some_and(is_stdout) {
        let mut out = terminal::stdout();
        unless_closed(form::report(&mut out, &report).and_then(|()| out.flush()))?;
    }
    Ok(match report.verdict {
        // The report stays as it is: only the exit code is stricter.
        Verdict::Rounding if args.strict => Verdict::Fail,
        Verdict::Pass | Verdict::Rounding if args.require.is_some() && !report.is_for_every_input() => {
            Verdict::Inconclusive
        }
        verdict => verdict,
    })
}

fn report(args: &CheckArgs) -> anyhow::Result<Report> {
    // Between two graphs the second is no folder.
    let (mut onnx, export) = (args.onnx.clone(), args.export.as_deref());
    onnx.extend(export.filter(|name| is_graph(name)).map(PathBuf::from));
    let mut check = Check {
        onnx,
        export: None,
        task: args.task,
        engines: args.engine.clone(),
        compiled: engines::options(&args.compiled)?,
        bounds: Bounds {
            atol: args.atol,
            proof_tol: args.proof_tol,
            outputs: args.output.clone(),
            expect: args.expect.unwrap_or(Expect::Exact),
            ..Bounds::default()
        },
        inputs: match (&args.inputs, args.text.as_slice()) {
            (Some(path), _) => Inputs::File(path.clone()),
            (None, []) => Inputs::Suite,
            (None, texts) => Inputs::Texts(texts.to_vec()),
        },
        input_names: args.inputs_of.names(),
        expected: args.expected.clone(),
        repro: args.repro.clone(),
        device: args.device.open()?,
        command: Some(reports::command_line()),
    };
    let bar = progress::bar("checking", 0);
    let mut step = |Step { of, case }: Step| {
        // With the next graph it begins anew.
        if bar.length() != Some(of as u64) || bar.position() == of as u64 {
            bar.reset();
            bar.set_length(of as u64);
        }
        bar.set_prefix(terminal::inert(case));
        bar.inc(1);
    };
    // Between two graphs there is no checkpoint.
    let report = match args.model.as_deref().filter(|model| is_graph(model) && !check.onnx.is_empty()) {
        Some(raw) => check.of_graph(raw, &mut step),
        None => {
            let model = model::open(args.model.as_deref())?;
            check.export = export.filter(|name| !is_graph(name)).map(model::files).transpose()?;
            check.of_model(model, &mut step)
        }
    };
    bar.finish_and_clear();
    Ok(report?)
}

/// The report of a check that could not be run.
fn failed(args: &CheckArgs, error: &anyhow::Error) -> Report {
    let model = args.model.as_deref().unwrap_or(bert_tiny::NAME);
    let onnx = args.onnx.first().map(|path| path.display().to_string());
    let command = Some(reports::command_line());
    Report { command, ..Report::failed(model, onnx, args.atol, one_line(error)) }
}
