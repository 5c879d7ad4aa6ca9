//! `parity inspect`

use std::io::{self, Write};

use checkpoint::OnnxSource;
use parity::inspect::{Inspection, inspect};
use parity::{Verdict, open_graph};

use super::args::InspectArgs;
use super::{is_stdout, terminal, unless_closed, write_json};

pub fn command(args: &InspectArgs) -> anyhow::Result<Verdict> {
    let (onnx, model) = open_graph(OnnxSource::File(args.onnx.clone()))?;
    let inspection = inspect(&model);
    if let Some(path) = &args.json {
        write_json(path, &inspection)?;
    }
    if !args.json.as_deref().is_some_and(is_stdout) {
        unless_closed(show(&mut terminal::stdout(), &onnx, &inspection))?;
    }
    Ok(Verdict::Pass)
}

fn show(out: &mut impl Write, onnx: &str, inspection: &Inspection) -> io::Result<()> {
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
    } = inspection;
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
    out.flush()
}
