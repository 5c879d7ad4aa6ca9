//! Load time and memory: a peer alone in a fresh process.

use std::time::Instant;

use crate::machine::Memory;
use crate::peer::Entry;
use crate::rows::Row;
use crate::table::median;
use crate::workload::{Files, Workload};

/// Runs after the first.
const WARM_RUNS: usize = 7;

/// Loads and runs a peer. The process must not have done anything before.
///
/// # Errors
/// If the peer cannot load or run the model.
pub fn measure(workload: &Workload, files: &Files, entry: &Entry, threads: usize) -> anyhow::Result<Row> {
    let batch = workload.batch(files)?;
    // Read once, so that the files are in the page cache: what is measured is the runtime, not the disk.
    for file in [files.weights(), files.graph(), files.optimized(), files.opset14()] {
        std::io::copy(&mut std::fs::File::open(file)?, &mut std::io::sink())?;
    }
    let before = Memory::now()?;
    let start = Instant::now();
    let mut peer = (entry.load)(files, &batch, threads)?;
    let load = start.elapsed();
    let loaded = Memory::now()?;
    let first = peer.run()?;
    let warm =
        (0..WARM_RUNS).map(|_| Ok(peer.run()?.as_secs_f64() * 1e3)).collect::<anyhow::Result<Vec<f64>>>()?;
    Ok(Row::Load {
        workload: workload.name.into(),
        peer: entry.name.into(),
        threads,
        load_ms: load.as_secs_f64() * 1e3,
        first_ms: first.as_secs_f64() * 1e3,
        warm_ms: median(&warm).unwrap_or(f64::NAN),
        rss_before_mb: before.resident_mb,
        rss_loaded_mb: loaded.resident_mb,
        rss_peak_mb: Memory::now()?.peak_mb,
        weights_mb: std::fs::metadata(files.weights())?.len() as f64 / 1e6,
    })
}
