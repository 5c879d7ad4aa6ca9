//! The faults of a graph, each planted in a copy of it.

mod ends;
mod engines;
mod formulas;
mod layers;
mod weights;

use candle_bert::{BertConfig, Task};
use checkpoint::Checkpoint;
use engine::Value;
use onnx_graph::Model;

use super::edit::Edit;
use crate::audit::{Audit, Layout};
use crate::locate::{Held, Kind};
use crate::proof::Promoted;

/// A graph with a fault.
pub struct Plant {
    /// The row of the fault in the list of faults, by which reports and papers may refer to it.
    pub row: u8,
    /// What was done.
    pub fault: String,
    /// The graph.
    pub model: Model,
    /// Where it was done.
    pub side: Side,
    /// The first module that is wrong; nothing where none is to be named.
    pub module: Option<String>,
    /// What the explanation should speak of, where there is one.
    pub explained: Option<&'static str>,
    /// What it should come to.
    pub wanted: Wanted,
}

/// What has the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The graph, and so every engine that runs it.
    Graph,
    /// The engine: it runs this graph where the user's graph is sound.
    Engine,
}

/// What a check should come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It fails.
    Fail,
    /// Nothing can be compared.
    Inconclusive,
    /// It does not fail: the change makes no other function.
    Holds,
}

/// What is known about a sound graph.
pub(super) struct Sound<'a> {
    pub edit: Edit,
    pub task: Task,
    pub config: &'a BertConfig,
    pub checkpoint: &'a Checkpoint,
    pub held: &'a [Held],
    pub audit: &'a Audit,
    pub promoted: &'a [Promoted],
}

impl Sound<'_> {
    /// The value that holds what a module gives, in its own order.
    fn plain(&self, module: &str, kind: Kind) -> Option<&str> {
        let is_it = |held: &&Held| held.module == module && held.kind == kind && held.plain;
        self.held.iter().find(is_it).map(|held| held.value.as_str())
    }

    fn output(&self, module: &str) -> Option<String> {
        self.plain(module, Kind::Output).map(String::from)
    }

    /// The one initializer that carries a tensor, and whether it is transposed; nothing if there are several, or it carries more.
    fn carrier(&self, tensor: &str) -> Option<(String, bool)> {
        let mut carriers = self.audit.traced.iter().filter(|trace| trace.tensor == tensor);
        let trace = carriers.next().filter(|trace| trace.exact && trace.factor.is_none() && !trace.shared)?;
        let transposed = match trace.layout {
            Layout::Same => false,
            Layout::Transposed => true,
            _ => return None,
        };
        let alone =
            self.audit.traced.iter().filter(|other| other.initializer == trace.initializer).count() == 1;
        (alone && carriers.next().is_none()).then(|| (trace.initializer.clone(), transposed))
    }

    /// A tensor of the checkpoint, as f32.
    fn tensor(&self, name: &str) -> Option<Value> {
        let used = candle_bert::used_tensors_for(self.task, self.checkpoint, self.config).ok()?;
        let (_, entry) = used.into_iter().find(|(found, _)| found == name)?;
        let value = entry.to_value().ok()?;
        let elements: Vec<f32> = value.to_f64().into_iter().map(|x| x as f32).collect();
        Value::new(value.shape(), elements).ok()
    }

    fn layers(&self) -> Vec<usize> {
        // The first, the last and one between: what a fault does is the same in all.
        let last = self.config.num_hidden_layers.saturating_sub(1);
        let mut layers = vec![0, last / 2, last];
        layers.dedup();
        layers
    }

    fn planted(&self, plant: impl FnOnce(&mut Edit) -> Option<()>) -> Option<Model> {
        let mut edit = self.edit.clone();
        plant(&mut edit)?;
        edit.model.check().ok()?;
        Some(edit.model)
    }
}

/// All faults that can be planted in the graph; what it does not show, as the inside of a fused operator, is left out.
pub(super) fn plants(sound: &Sound) -> Vec<Plant> {
    let mut plants = Plants { sound, plants: Vec::new() };
    for layer in sound.layers() {
        plants.activation(layer);
        plants.residuals(layer);
        plants.values(layer);
    }
    plants.layer_norms();
    plants.scale();
    plants.mask();
    plants.embeddings();
    plants.pooler();
    plants.outputs();
    plants.sizes();
    plants.softmax();
    plants.dropout();
    plants.weights();
    plants.harmless();
    plants.engine();
    plants.plants
}

struct Plants<'a> {
    sound: &'a Sound<'a>,
    plants: Vec<Plant>,
}

impl Plants<'_> {
    fn add(
        &mut self,
        row: u8,
        fault: impl Into<String>,
        module: Option<String>,
        explained: Option<&'static str>,
        plant: impl FnOnce(&mut Edit) -> Option<()>,
    ) {
        if let Some(model) = self.sound.planted(plant) {
            self.plants.push(Plant {
                row,
                fault: fault.into(),
                model,
                side: Side::Graph,
                module,
                explained,
                wanted: Wanted::Fail,
            });
        }
    }

    fn last_is(&mut self, before: usize, wanted: Wanted, side: Side) {
        for plant in &mut self.plants[before..] {
            plant.wanted = wanted;
            plant.side = side;
        }
    }
}
