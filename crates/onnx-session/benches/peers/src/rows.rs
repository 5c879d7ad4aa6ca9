//! What a run writes: one JSON object a line, nothing summed up.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// A line of a results file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "row", rename_all = "snake_case")]
pub enum Row {
    /// The process that wrote the lines after it.
    Process(Process),
    /// A batch.
    Workload {
        /// `W1`.
        workload: String,
        /// Model and shape.
        title: String,
        /// Texts.
        rows: usize,
        /// The longest.
        width: usize,
        /// Real tokens in them.
        tokens: usize,
    },
    /// What a peer computes, against the model in f64.
    Check {
        /// The workload.
        workload: String,
        /// The peer.
        peer: String,
        /// Threads.
        threads: usize,
        /// Largest distance of `last_hidden_state` at real tokens.
        hidden: f64,
        /// The root of its mean square.
        hidden_rms: f64,
        /// Largest distance of `pooler_output`.
        pooled: Option<f64>,
        /// Values compared.
        compared: usize,
    },
    /// A peer that was not timed.
    LeftOut {
        /// The workload.
        workload: String,
        /// The peer.
        peer: String,
        /// Threads.
        threads: usize,
        /// Why not.
        reason: String,
    },
    /// A peer's turn in a round.
    Turn {
        /// The workload.
        workload: String,
        /// The peer.
        peer: String,
        /// Threads.
        threads: usize,
        /// Which round, from 0.
        round: usize,
        /// Which turn of the round, from 0.
        turn: usize,
        /// Each run, in microseconds.
        us: Vec<f64>,
    },
    /// A peer alone in a fresh process.
    Load {
        /// The workload.
        workload: String,
        /// The peer.
        peer: String,
        /// Threads.
        threads: usize,
        /// From the file to something that can be run.
        load_ms: f64,
        /// The first run.
        first_ms: f64,
        /// The median of runs after it.
        warm_ms: f64,
        /// Resident before the model was loaded: the program itself.
        rss_before_mb: f64,
        /// Resident after loading.
        rss_loaded_mb: f64,
        /// The most that was ever resident.
        rss_peak_mb: f64,
        /// What it takes, on disk, of weights.
        weights_mb: f64,
    },
}

/// Where and with what rows were made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// From /proc/cpuinfo, with family and model, since virtual machines hide the name.
    pub cpu: String,
    /// Cores the process may use.
    pub cores: usize,
    /// Which of AVX2, FMA, AVX-512 it has.
    pub features: Vec<String>,
    /// Threads each peer may use.
    pub threads: usize,
    /// Seconds since 1970.
    pub time: u64,
    /// Processes that ran or waited over the last minute when it started. Something else was running if it is not near 0.
    pub load_average: f64,
    /// Of the order of turns.
    pub seed: u64,
    /// Of the peers.
    pub versions: BTreeMap<String, String>,
}

/// Appends lines to a file, each as soon as it is known.
pub struct Writer(std::fs::File);

impl Writer {
    /// Opens or makes the file, and its folder.
    pub fn append(path: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(file.with_context(|| path.display().to_string())?))
    }

    /// Writes a line.
    pub fn write(&mut self, row: &Row) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(row)?;
        line.push('\n');
        Ok(self.0.write_all(line.as_bytes())?)
    }
}

/// Reads results files.
pub fn read(path: &Path) -> anyhow::Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines()
        .enumerate()
        .map(|(line, row)| {
            serde_json::from_str(row).with_context(|| format!("{}, line {}", path.display(), line + 1))
        })
        .collect()
}
