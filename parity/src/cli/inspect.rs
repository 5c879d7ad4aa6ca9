//! `parity inspect`

use std::io::{self, Write};

use anyhow::Context as _;
use checkpoint::OnnxSource;
use onnx_session::compiled::{CompiledEngine, Options};
use parity::inspect::{Inspection, inspect};
use parity::{Verdict, open_graph};
use serde::Serialize;

use super::args::{InspectArgs, PlanningEngine};
use super::{is_stdout, terminal, unless_closed, write_json};

pub fn command(args: &InspectArgs) -> anyhow::Result<Verdict> {
    let (onnx, model) = open_graph(OnnxSource::File(args.onnx.clone()))?;
    let compiled = match args.engine {
        Some(PlanningEngine::Compiled) => {
            let engine = CompiledEngine::new(&model, Options::default()).with_context(|| onnx.clone())?;
            Some(engine.summary().to_string())
        }
        None => None,
    };
    let inspected = Inspected { inspection: inspect(&model), compiled };
    if let Some(path) = &args.json {
        write_json(path, &inspected)?;
    }
    if !args.json.as_deref().is_some_and(is_stdout) {
        unless_closed(show(&mut terminal::stdout(), &onnx, &inspected))?;
    }
    Ok(Verdict::Pass)
}

#[derive(Serialize)]
struct Inspected {
    #[serde(flatten)]
    inspection: Inspection,
    /// What the engine makes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    compiled: Option<String>,
}

fn show(out: &mut impl Write, onnx: &str, inspected: &Inspected) -> io::Result<()> {
    let Inspection {
        ir_version,
        opsets,
        producer,
        inputs,
        outputs,
        operators,
        modules,
        initializers,
        untagged,
    } = &inspected.inspection;
    let opsets: Vec<String> = opsets
        .iter()
        .map(|(domain, version)| {
            let domain = if domain.is_empty() { "" } else { &format!(" of {domain}") };
            format!("opset {version}{domain}")
        })
        .collect();
    let by = if producer.is_empty() { String::new() } else { format!(", by {producer}") };
    writeln!(out, "{onnx}: {}, IR version {ir_version}{by}", opsets.join(", "))?;
    writeln!(out)?;
    for (what, specs) in [("inputs", inputs), ("outputs", outputs)] {
        for (number, spec) in specs.iter().enumerate() {
            writeln!(out, "{:10}{spec}", if number == 0 { what } else { "" })?;
        }
    }
    let operators: Vec<String> = operators.iter().map(|(op, count)| format!("{count} {op}")).collect();
    writeln!(out, "operators {}", operators.join(", "))?;
    writeln!(out)?;

    let label = |depth: usize, name: &str| {
        let name = if depth == 0 { "(the whole model)" } else { name };
        terminal::inert(&format!("{}{name}", "  ".repeat(depth)))
    };
    let labels: Vec<String> = modules.iter().map(|module| label(module.depth, &module.name)).collect();
    let width = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    writeln!(out, "{:width$}  {:>6}  {:>12}", "module", "nodes", "bytes")?;
    for (module, label) in modules.iter().zip(&labels) {
        writeln!(out, "{label:width$}  {:>6}  {:>12}", module.nodes, module.bytes)?;
    }
    writeln!(out)?;
    writeln!(out, "{initializers} initializers")?;
    if *untagged > 0 {
        writeln!(out, "{untagged} nodes do not say what module they are of")?;
    }
    if let Some(compiled) = &inspected.compiled {
        writeln!(out, "compiled: {}", terminal::inert(compiled))?;
    }
    out.flush()
}
