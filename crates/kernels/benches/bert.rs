//! GFLOP/s of the GEMMs of BERT at the project's workloads, and microseconds of what stands between them.
//!
//! `cargo bench -p kernels [-- FILTER]`. Rounds go over all cases again and again, so that whatever else the machine does hits all alike;
//! medians are printed. For one thread (1T) it is the time that the thread was on a CPU, where the system tells, so that other work does not
//! count; for two (2T) it is the time that passed. `ceiling` is the innermost loop on operands in the first-level cache.

#![allow(unsafe_code, reason = "asking the system for the time of a thread")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use kernels::{
    Attention, Epilogue, Gather, Isa, KernelError, Kernels, KeyMask, Pool, Rows, RowsMut, Source, Unary,
};

const ROUNDS: usize = 7;
/// What one case takes in one round at least.
const ROUND: Duration = Duration::from_millis(8);

/// Hidden size, heads, size of the feed-forward layer, sequences and their length.
struct Workload {
    name: &'static str,
    hidden: usize,
    heads: usize,
    feed: usize,
    batch: usize,
    length: usize,
}

const WORKLOADS: [Workload; 6] = [
    Workload { name: "W1", hidden: 128, heads: 2, feed: 512, batch: 2, length: 16 },
    Workload { name: "W2", hidden: 384, heads: 12, feed: 1536, batch: 1, length: 16 },
    Workload { name: "W3", hidden: 384, heads: 12, feed: 1536, batch: 8, length: 128 },
    Workload { name: "W4", hidden: 384, heads: 12, feed: 1536, batch: 32, length: 26 },
    Workload { name: "W5", hidden: 768, heads: 12, feed: 3072, batch: 1, length: 128 },
    Workload { name: "W6", hidden: 768, heads: 12, feed: 3072, batch: 8, length: 128 },
];

struct Case {
    name: String,
    threads: usize,
    /// What the work counts, and in what; microseconds where it counts nothing.
    flops: f64,
    run: Box<dyn FnMut()>,
    times: Vec<f64>,
}

/// Seconds that this thread has been on a CPU.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn cpu_time() -> Option<f64> {
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = [0; 2];
    // SAFETY: on 64-bit Linux a timespec is two i64.
    let result = unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    (result == 0).then(|| time[0] as f64 + time[1] as f64 * 1e-9)
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn cpu_time() -> Option<f64> {
    None
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919) % 2003) as f32 / 1001.5 - 1.0).collect()
}

/// One panel and few rows: nothing comes from beyond the first-level cache, nothing is finished.
fn ceiling(kernels: &Kernels) -> Result<Case, KernelError> {
    let (m, k, n) = (24, 192, if kernels.isa() == Isa::Avx512 { 64 } else { 16 });
    let packed = kernels.pack(&[Source::new(&numbers(k * n), k, n)?])?;
    let (a, mut out, kernels) = (numbers(m * k), vec![0.0; m * n], kernels.clone());
    let run = move || {
        let (Ok(a), Ok(mut out)) = (Rows::new(&a, m, k), RowsMut::new(&mut out, m, n)) else { return };
        let _ = black_box(kernels.gemm(a, &packed, &Epilogue::default(), &mut out));
    };
    let (name, flops) = (format!("ceiling {m}×{k}×{n} 1T"), 2.0 * (m * k * n) as f64);
    Ok(Case { name, threads: 1, flops, run: Box::new(run), times: Vec::new() })
}

fn cases(w: &Workload, kernels: &Kernels) -> Result<Vec<Case>, KernelError> {
    let rows = w.batch * w.length;
    let hidden = w.hidden;
    let mut cases = Vec::new();
    let mut add = |name: String, flops: f64, run: Box<dyn FnMut()>| {
        let threads = kernels.pool().threads();
        let name = format!("{} {name} {threads}T", w.name);
        cases.push(Case { name, threads, flops, run, times: Vec::new() });
    };
    for (name, k, n, activation, residual) in [
        ("qkv", hidden, 3 * hidden, None, false),
        ("output", hidden, hidden, None, true),
        ("feed+gelu", hidden, w.feed, Some(Unary::GeluErf), false),
        ("feed back", w.feed, hidden, None, true),
    ] {
        let packed = kernels.pack(&[Source::new(&numbers(k * n), k, n)?])?;
        let (a, bias, plus) = (numbers(rows * k), numbers(n), numbers(rows * n));
        let mut out = vec![0.0; rows * n];
        let kernels = kernels.clone();
        add(
            format!("{name} {rows}×{k}×{n}"),
            2.0 * (rows * k * n) as f64,
            Box::new(move || {
                let residual = Rows::new(&plus, rows, n).ok().filter(|_| residual);
                let epilogue = Epilogue { bias: Some(&bias), activation, residual };
                let (Ok(a), Ok(mut out)) = (Rows::new(&a, rows, k), RowsMut::new(&mut out, rows, n)) else {
                    return;
                };
                let _ = black_box(kernels.gemm(a, &packed, &epilogue, &mut out));
            }),
        );
    }
    let layers = if hidden == 768 {
        12
    } else if hidden == 384 {
        6
    } else {
        2
    };
    let shapes = [(hidden, 3 * hidden), (hidden, hidden), (hidden, w.feed), (w.feed, hidden)];
    let mut weights = Vec::new();
    for _ in 0..layers {
        for (k, n) in shapes {
            weights.push(kernels.pack(&[Source::new(&numbers(k * n), k, n)?])?);
        }
    }
    let (a, bias) = (numbers(rows * w.feed), numbers(w.feed.max(3 * hidden)));
    let mut out = vec![0.0; rows * w.feed.max(3 * hidden)];
    let here = kernels.clone();
    let per_layer: usize = shapes.iter().map(|(k, n)| k * n).sum();
    add(
        format!("all GEMMs {rows}"),
        2.0 * (rows * layers * per_layer) as f64,
        Box::new(move || {
            for weight in &weights {
                let (k, n) = (weight.k(), weight.n());
                let activation = (n > k && n != 3 * k).then_some(Unary::GeluErf);
                let epilogue = Epilogue { bias: Some(&bias[..n]), activation, residual: None };
                let (Ok(a), Ok(mut out)) = (Rows::new(&a, rows, k), RowsMut::new(&mut out, rows, n)) else {
                    return;
                };
                let _ = black_box(here.gemm(a, weight, &epilogue, &mut out));
            }
        }),
    );
    let qkv = numbers(rows * 3 * hidden);
    let offsets: Vec<usize> = (0..=w.batch).map(|i| i * w.length).collect();
    let mut scratch = vec![0.0; kernels.attention_scratch(hidden / w.heads, w.length)];
    let mut out = vec![0.0; rows * hidden];
    let (heads, length) = (w.heads, w.length);
    let here = kernels.clone();
    add(
        format!("attention {}×{length}", w.batch),
        4.0 * (rows * length * hidden) as f64,
        Box::new(move || {
            let part = |i: usize| Rows::strided(&qkv[i * hidden..], rows, hidden, 3 * hidden);
            let (Ok(q), Ok(k), Ok(v)) = (part(0), part(1), part(2)) else { return };
            let attention = Attention {
                q,
                k,
                v,
                heads,
                scale: 0.125,
                offsets: &offsets,
                mask: KeyMask::None,
                bias: None,
                rotary: None,
            };
            let Ok(mut out) = RowsMut::new(&mut out, rows, hidden) else { return };
            let _ = black_box(here.attention(&attention, &mut scratch, &mut out));
        }),
    );
    let (x, plus, gamma, beta) =
        (numbers(rows * hidden), numbers(rows * hidden), numbers(hidden), numbers(hidden));
    let mut out = vec![0.0; rows * hidden];
    let here = kernels.clone();
    add(
        format!("layer_norm {rows}×{hidden}"),
        0.0,
        Box::new(move || {
            let (Ok(x), Ok(plus)) = (Rows::new(&x, rows, hidden), Rows::new(&plus, rows, hidden)) else {
                return;
            };
            let Ok(mut out) = RowsMut::new(&mut out, rows, hidden) else { return };
            let _ = black_box(here.layer_norm(x, Some(plus), &gamma, Some(&beta), 1e-12, &mut out));
        }),
    );
    let table = numbers(1000 * hidden);
    let (gamma, beta) = (numbers(hidden), numbers(hidden));
    let ids: Vec<i64> = (0..rows).map(|i| (i * 37 % 1000) as i64).collect();
    let mut out = vec![0.0; rows * hidden];
    let here = kernels.clone();
    add(
        format!("embeddings {rows}×{hidden}"),
        0.0,
        Box::new(move || {
            let Ok(table) = Rows::new(&table, 1000, hidden) else { return };
            let lookups = [Gather { table, indices: &ids }; 3];
            let Ok(mut out) = RowsMut::new(&mut out, rows, hidden) else { return };
            let _ = black_box(here.embeddings_layer_norm(&lookups, &gamma, Some(&beta), 1e-12, &mut out));
        }),
    );
    let source = numbers(rows * w.feed);
    let mut x = source.clone();
    let here = kernels.clone();
    add(
        format!("copy and gelu {rows}×{}", w.feed),
        0.0,
        Box::new(move || {
            x.copy_from_slice(&source);
            here.unary(Unary::GeluErf, black_box(&mut x));
        }),
    );
    Ok(cases)
}

fn main() -> Result<(), KernelError> {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let mut all = Vec::new();
    for threads in [1, 2] {
        let kernels = Kernels::with(Isa::detect(), Arc::new(Pool::new(threads)?))?;
        if threads == 1 {
            all.push(ceiling(&kernels)?);
        }
        for workload in &WORKLOADS {
            all.extend(cases(workload, &kernels)?);
        }
    }
    all.retain(|case| case.name.contains(&filter));
    for _ in 0..ROUNDS {
        for case in &mut all {
            (case.run)();
            let begin = Instant::now();
            let cpu = cpu_time().filter(|_| case.threads == 1);
            let mut runs = 0;
            while runs == 0 || begin.elapsed() < ROUND {
                (case.run)();
                runs += 1;
            }
            let time = match cpu.zip(cpu_time()) {
                Some((begin, end)) => end - begin,
                None => begin.elapsed().as_secs_f64(),
            };
            case.times.push(time / f64::from(runs));
        }
    }
    #[allow(clippy::print_stdout, reason = "what a bench is for")]
    for case in &mut all {
        case.times.sort_by(f64::total_cmp);
        let time = case.times[ROUNDS / 2];
        let speed =
            if case.flops > 0.0 { format!("{:7.1} GFLOP/s", case.flops / time / 1e9) } else { String::new() };
        println!("{:<40} {:10.1} µs {speed}", case.name, time * 1e6);
    }
    Ok(())
}
