//! That the engine `compiled` takes no memory anew at a shape that it has seen. A binary of its own, since it counts what the whole process allocates.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::alloc::System;
use std::path::Path;

use engine::{Engine, NamedValues, Value};
use onnx_graph::Model;
use onnx_session::compiled::{CompiledEngine, Options, Threads};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn inputs(engine: &CompiledEngine, lengths: &[usize], width: usize) -> NamedValues {
    let of = |name: &str| {
        let element = |row: usize, at: usize| match name {
            _ if at >= lengths[row] => 0,
            "input_ids" => 5 + (row + at) as i64,
            "attention_mask" => 1,
            _ => 0,
        };
        let elements: Vec<i64> = (0..lengths.len() * width).map(|i| element(i / width, i % width)).collect();
        Value::new([lengths.len(), width], elements).unwrap()
    };
    engine.inputs().iter().map(|spec| (spec.name.clone(), of(&spec.name))).collect()
}

#[test]
fn a_shape_that_was_seen_takes_no_memory_anew() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    for graph in ["ts14-sdpa-dynamic", "ts17-eager-dynamic", "dynamo20-sdpa-dynamic"] {
        let model = Model::open(fixtures.join(format!("baseline/onnx/{graph}.onnx"))).unwrap();
        for (threads, skip_padding) in [(1, false), (1, true), (2, false), (2, true)] {
            let options = Options { threads: Threads::Count(threads), skip_padding, ..Options::default() };
            let engine = CompiledEngine::new(&model, options).unwrap();
            let batches: Vec<NamedValues> = [(&[9usize, 3, 5, 9][..], 9), (&[2], 2), (&[7, 7], 11)]
                .into_iter()
                .map(|(lengths, width)| inputs(&engine, lengths, width))
                .collect();
            let mut sum = 0.0;
            let mut run = || {
                for batch in &batches {
                    engine.run_with(batch, |_, shape, data| sum += data[0] * shape.len() as f32).unwrap();
                }
            };
            // Shares may fall to either thread: enough runs for both to have seen all.
            (0..50).for_each(|_| run());
            let region = Region::new(ALLOCATOR);
            (0..10).for_each(|_| run());
            let change = region.change();
            assert_eq!(
                (change.allocations, change.reallocations),
                (0, 0),
                "{graph}, {threads} threads: {change:?}"
            );
            assert!(sum != 0.0);
        }
    }
}
