//! What it is worth that initializers become tensors once, and what it costs to run node by node: the engine against one call of stock
//! `simple_eval` on the same lowered graph, with its initializers inside, which stock candle-onnx converts again on every call, and with
//! ready tensors as inputs.
//!
//! Run it on a real model with `MODEL=path/to/model.onnx cargo bench -p onnx-session`; without, on a fixture, which is too small to
//! show much. The outputs are compared, bit for bit, before anything is timed; the two are timed in turn.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench; criterion's macros have no docs"
)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use candle_onnx::onnx;
use criterion::{Criterion, criterion_group, criterion_main};
use engine::{Engine, NamedValues, Value};
use onnx_graph::Model;
use onnx_session::candle::CandleEngine;

const SHAPE: [usize; 2] = [1, 16];

fn initializer(name: &str, tensor: &Tensor) -> onnx::TensorProto {
    let flat = tensor.flatten_all().unwrap();
    let mut proto = onnx::TensorProto {
        name: name.into(),
        dims: tensor.dims().iter().map(|&size| size as i64).collect(),
        ..Default::default()
    };
    match tensor.dtype() {
        DType::F32 => {
            proto.data_type = onnx::tensor_proto::DataType::Float.into();
            let data = flat.to_vec1::<f32>().unwrap();
            proto.raw_data = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        }
        DType::I64 => {
            proto.data_type = onnx::tensor_proto::DataType::Int64.into();
            let data = flat.to_vec1::<i64>().unwrap();
            proto.raw_data = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        }
        DType::U8 => {
            proto.data_type = onnx::tensor_proto::DataType::Uint8.into();
            proto.raw_data = flat.to_vec1::<u8>().unwrap();
        }
        other => panic!("{name} is {other:?}"),
    }
    proto
}

fn compare(c: &mut Criterion) {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/baseline/onnx/ts17-eager-dynamic.onnx");
    let path = std::env::var_os("MODEL").map_or(default, PathBuf::from);
    let engine = CandleEngine::new(&Model::open(path).unwrap()).unwrap();
    let inputs: NamedValues = engine
        .inputs()
        .iter()
        .map(|spec| {
            let value = i64::from(spec.name != "token_type_ids");
            (spec.name.clone(), Value::new(SHAPE, vec![value; SHAPE.iter().product()]).unwrap())
        })
        .collect();
    let tensors: HashMap<String, Tensor> = inputs
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_tensor(&Device::Cpu).unwrap()))
        .collect();
    let (outside, constants) = engine.lowered_model();
    let mut with_constants = tensors.clone();
    with_constants.extend(constants.clone());
    let mut stock = outside.clone();
    stock.graph.as_mut().unwrap().initializer =
        constants.iter().map(|(name, tensor)| initializer(name, tensor)).collect();

    let ours = engine.run(&inputs).unwrap();
    let theirs = candle_onnx::simple_eval(&stock, tensors.clone()).unwrap();
    for (name, value) in ours.iter() {
        assert_eq!(value, &Value::from_tensor(&theirs[name]).unwrap(), "{name}");
    }

    // In turn, so that a machine that slows down slows all; the ratios are what counts.
    let time = |run: &dyn Fn()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    let rounds: Vec<[f64; 2]> = (0..31)
        .map(|_| {
            let ours = time(&|| drop(engine.run(&inputs).unwrap()));
            let inside = time(&|| drop(candle_onnx::simple_eval(&stock, tensors.clone()).unwrap()));
            let as_inputs =
                time(&|| drop(candle_onnx::simple_eval(&outside, with_constants.clone()).unwrap()));
            [inside / ours, as_inputs / ours]
        })
        .collect();
    for (what, at) in [("inside", 0), ("as inputs", 1)] {
        let mut ratios: Vec<f64> = rounds.iter().map(|round| round[at]).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        println!(
            "one simple_eval call, initializers {what} / engine, 31 pairs: median {:.2}, from {:.2} to {:.2}",
            ratios[15], ratios[0], ratios[30]
        );
    }

    let mut group = c.benchmark_group("1x16");
    group.measurement_time(Duration::from_secs(3)).sample_size(20);
    group.bench_function("engine", |b| b.iter(|| engine.run(&inputs).unwrap()));
    group.bench_function("simple_eval, initializers inside", |b| {
        b.iter(|| candle_onnx::simple_eval(&stock, tensors.clone()).unwrap());
    });
    group.finish();
}

criterion_group!(benches, compare);
criterion_main!(benches);
