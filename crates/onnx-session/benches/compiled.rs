//! The engine `compiled` by itself, on a model that is given: how long it loads, how much memory it takes, and how long runs of several shapes take.
//!
//! ```text
//! cargo bench -p onnx-session --no-default-features --bench compiled -- MODEL.onnx [THREADS]
//! ```
//!
//! The harness in `peers/` compares it with others.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints what it measures")]

use std::time::{Duration, Instant};

use engine::{NamedValues, Value};
use onnx_graph::Model;
use onnx_session::compiled::{CompiledEngine, Options, Threads};

/// A batch of texts of these lengths, padded to the longest.
fn batch(engine: &dyn engine::Engine, lengths: &[usize]) -> NamedValues {
    let longest = lengths.iter().copied().max().unwrap();
    let shape = [lengths.len(), longest];
    let mut inputs = NamedValues::new();
    for spec in engine.inputs() {
        let element = |row: usize, at: usize| match spec.name.as_str() {
            "input_ids" if at < lengths[row] => 5 + ((row * 131 + at * 17) % 1000) as i64,
            "attention_mask" if at < lengths[row] => 1,
            _ => 0,
        };
        let elements: Vec<i64> = (0..shape[0] * longest).map(|i| element(i / longest, i % longest)).collect();
        inputs.insert(spec.name.clone(), Value::new(shape, elements).unwrap());
    }
    inputs
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default().to_string();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(path) = arguments.next() else {
        println!("no model given");
        return;
    };
    let threads = arguments.next().map_or(2, |threads| threads.parse().unwrap());
    let before = resident();
    let start = Instant::now();
    let model = Model::open(&path).unwrap();
    let options = Options { threads: Threads::Count(threads), ..Options::default() };
    let engine = CompiledEngine::new(&model, options.clone()).unwrap();
    let loaded = start.elapsed();
    drop(model);
    println!(
        "loaded in {loaded:.0?}, {} MB more, of which packed {} MB; {} steps, padding can be skipped: {}",
        (resident() - before) / 1000,
        engine.packed_bytes() / 1_000_000,
        engine.steps().len(),
        engine.can_skip_padding()
    );
    let packing =
        CompiledEngine::new(&Model::open(&path).unwrap(), Options { skip_padding: true, ..options }).unwrap();
    let mixed: Vec<usize> = (0..32)
        .map(|row| 5 + (row * row * 37 + row * 11) % 44 + if row == 7 { 123 - 5 } else { 0 })
        .map(|n| n.min(128))
        .collect();
    for (name, engine, lengths) in [
        ("2×16", &engine, vec![16; 2]),
        ("1×16", &engine, vec![16]),
        ("1×128", &engine, vec![128]),
        ("8×128", &engine, vec![128; 8]),
        ("32 mixed, padded", &engine, mixed.clone()),
        ("32 mixed, padding skipped", &packing, mixed.clone()),
    ] {
        let inputs = batch(engine, &lengths);
        let run = || engine.run_with(&inputs, |_, _, _| ()).unwrap();
        run();
        let mut times = Vec::new();
        let start = Instant::now();
        while times.len() < 7 || (start.elapsed() < Duration::from_secs(2) && times.len() < 500) {
            let start = Instant::now();
            run();
            times.push(start.elapsed());
        }
        times.sort();
        let real: usize = lengths.iter().sum();
        println!(
            "{name:28} {real:5} tokens  median {:>9.3?}  least {:>9.3?}",
            times[times.len() / 2],
            times[0]
        );
    }
    println!("{} MB resident at the end", resident() / 1000);
}
