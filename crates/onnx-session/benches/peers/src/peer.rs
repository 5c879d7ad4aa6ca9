//! What a runtime has to offer to be timed, and the list of those that do.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::batch::{Batch, Outputs};
use crate::runtimes::{candle_models, house, onnxruntime, rten, tract};
use crate::workload::Files;

/// A way to run BERT, with a model loaded.
///
/// Only [`Runtime::run`] is timed. Inputs are put into the runtime's own form before, and outputs are read out of it after: nobody pays
/// for a conversion that a user of that runtime would not make.
pub trait Runtime {
    /// A batch in the runtime's own form.
    type Inputs;
    /// What a run leaves, in the runtime's own form.
    type Outputs;

    /// Brings a batch into the runtime's own form.
    fn prepare(&self, batch: &Batch) -> anyhow::Result<Self::Inputs>;

    /// Runs the model for all its outputs.
    fn run(&mut self, inputs: &Self::Inputs) -> anyhow::Result<Self::Outputs>;

    /// Reads the outputs.
    fn read(&self, outputs: Self::Outputs) -> anyhow::Result<Outputs>;
}

/// A runtime with its model and its batch: what is timed.
pub trait Peer {
    /// Runs the model on the batch once, and says how long it took.
    fn run(&mut self) -> anyhow::Result<Duration>;

    /// What the last run computed.
    fn outputs(&mut self) -> anyhow::Result<Outputs>;
}

struct Seated<R: Runtime> {
    runtime: R,
    batch: Batch,
    parts: Vec<Part<R>>,
}

/// A batch may be run in parts, each with its rows of the whole.
struct Part<R: Runtime> {
    rows: Vec<usize>,
    width: usize,
    inputs: R::Inputs,
    outputs: Option<R::Outputs>,
}

/// A batch as it is.
pub fn whole<R: Runtime + 'static>(runtime: R, batch: &Batch) -> anyhow::Result<Box<dyn Peer>> {
    seated(runtime, batch, vec![((0..batch.rows).collect(), batch.clone())])
}

/// A batch sorted by length and cut into batches of [`SORTED_BATCH`]: what a user can do about padding without the runtime's help.
/// Sorting is not timed.
pub fn sorted<R: Runtime + 'static>(runtime: R, batch: &Batch) -> anyhow::Result<Box<dyn Peer>> {
    seated(runtime, batch, batch.sorted(SORTED_BATCH))
}

/// Texts in a batch of a peer that sorts.
pub const SORTED_BATCH: usize = 8;

fn seated<R: Runtime + 'static>(
    runtime: R,
    batch: &Batch,
    parts: Vec<(Vec<usize>, Batch)>,
) -> anyhow::Result<Box<dyn Peer>> {
    let parts = parts
        .into_iter()
        .map(|(rows, part)| {
            Ok(Part { rows, width: part.width, inputs: runtime.prepare(&part)?, outputs: None })
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(Box::new(Seated { runtime, batch: batch.clone(), parts }))
}

impl<R: Runtime> Peer for Seated<R> {
    fn run(&mut self) -> anyhow::Result<Duration> {
        // The outputs of the run before go first, so that their memory can be used again.
        for part in &mut self.parts {
            part.outputs = None;
        }
        let start = Instant::now();
        for part in &mut self.parts {
            part.outputs = Some(self.runtime.run(&part.inputs)?);
        }
        Ok(start.elapsed())
    }

    fn outputs(&mut self) -> anyhow::Result<Outputs> {
        let mut parts = Vec::new();
        for part in &mut self.parts {
            let outputs = part.outputs.take().context("outputs were asked for before a run")?;
            parts.push((&part.rows[..], part.width, self.runtime.read(outputs)?));
        }
        Outputs::unsorted(&self.batch, &parts)
    }
}

/// A peer that can be asked for by name.
pub struct Entry {
    /// Its name on the command line and in tables.
    pub name: &'static str,
    /// What it is, in a line.
    pub what: &'static str,
    /// Whether it differs from another entry only where there is padding.
    pub ragged_only: bool,
    /// Loads the model for this batch.
    pub load: fn(&Files, &Batch, usize) -> anyhow::Result<Box<dyn Peer>>,
}

/// All peers, ours first.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "compiled",
        what: "onnx-session's engine compiled, on model.onnx",
        ragged_only: false,
        load: |files, batch, threads| whole(house::compiled(files, threads, false)?, batch),
    },
    Entry {
        name: "compiled-skip-padding",
        what: "the same with skip_padding",
        ragged_only: true,
        load: |files, batch, threads| whole(house::compiled(files, threads, true)?, batch),
    },
    Entry {
        name: "candle",
        what: "onnx-session's engine candle, on model.onnx",
        ragged_only: false,
        load: |files, batch, _| whole(house::candle(files)?, batch),
    },
    Entry {
        name: "reference",
        what: "candle-bert in f32, from model.safetensors",
        ragged_only: false,
        load: |files, batch, _| whole(house::reference(files)?, batch),
    },
    Entry {
        name: "onnxruntime",
        what: "ONNX Runtime, on model.onnx",
        ragged_only: false,
        load: |files, batch, threads| whole(onnxruntime::OnnxRuntime::load(&files.graph(), threads)?, batch),
    },
    Entry {
        name: "onnxruntime-optimized",
        what: "ONNX Runtime, on the file its transformers optimizer writes",
        ragged_only: false,
        load: |files, batch, threads| {
            whole(onnxruntime::OnnxRuntime::load(&files.optimized(), threads)?, batch)
        },
    },
    Entry {
        name: "onnxruntime-sorted",
        what: "as onnxruntime, on batches of 8 texts sorted by length",
        ragged_only: true,
        load: |files, batch, threads| sorted(onnxruntime::OnnxRuntime::load(&files.graph(), threads)?, batch),
    },
    Entry {
        name: "onnxruntime-optimized-sorted",
        what: "as onnxruntime-optimized, on batches of 8 texts sorted by length",
        ragged_only: true,
        load: |files, batch, threads| {
            sorted(onnxruntime::OnnxRuntime::load(&files.optimized(), threads)?, batch)
        },
    },
    Entry {
        name: "rten",
        what: "rten with prepacked weights, on model.onnx",
        ragged_only: false,
        load: |files, batch, threads| whole(rten::Rten::load(files, threads)?, batch),
    },
    Entry {
        name: "tract",
        what: "tract, on model.onnx with its inputs fixed to the batch's shape",
        ragged_only: false,
        load: |files, batch, threads| whole(tract::Tract::load(files, batch, threads)?, batch),
    },
    Entry {
        name: "candle-transformers",
        what: "candle-transformers' BertModel, from model.safetensors; it has no pooler",
        ragged_only: false,
        load: |files, batch, _| whole(candle_models::Transformers::load(files)?, batch),
    },
    Entry {
        name: "candle-onnx",
        what: "candle-onnx's simple_eval as it comes, on opset14.onnx",
        ragged_only: false,
        load: |files, batch, _| whole(candle_models::SimpleEval::load(files)?, batch),
    },
];

/// The peer of that name.
pub fn named(name: &str) -> anyhow::Result<&'static Entry> {
    let known = || ENTRIES.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
    ENTRIES
        .iter()
        .find(|entry| entry.name == name)
        .with_context(|| format!("there is no peer '{name}': {}", known()))
}
