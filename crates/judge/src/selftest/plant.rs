//! The faults of a graph, each planted in a copy of it.

mod ends;
mod engines;
mod formulas;
mod gated;
mod layers;
mod off_samples;
mod weights;

use architecture::{Bound, Op, Program, Step};
use engine::Value;
use onnx_graph::Model;

use super::edit::Edit;
use crate::audit::{Audit, Layout};
use crate::blame::locate::Carried;
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
    pub bound: &'a Bound<'a>,
    pub carried: &'a [Carried],
    pub audit: &'a Audit,
    pub promoted: &'a [Promoted],
}

impl Sound<'_> {
    fn program(&self) -> &Program {
        &self.bound.program
    }

    /// The steps of a kind, with what each is.
    fn steps(&self, is: fn(&Op) -> bool) -> impl Iterator<Item = (usize, &Step)> {
        self.program().steps.iter().enumerate().filter(move |(_, step)| is(&step.op))
    }

    /// The path of the innermost module that a step is the end of, or is in.
    fn path(&self, step: usize) -> String {
        self.program().place(step).into()
    }

    /// The step that feeds the first input of another.
    fn fed(&self, step: usize) -> Option<usize> {
        self.program().steps[step].inputs.first()?.step()
    }

    /// The layer that a step is in.
    fn layer(&self, step: usize) -> Option<usize> {
        self.program().layer_of(self.program().place(step))
    }

    /// The layers that faults are planted in: the first, the last and one between, as what a fault
    /// does is the same in all.
    fn tried_layers(&self) -> Vec<usize> {
        let last = self.program().layers().saturating_sub(1);
        let mut layers = vec![0, last / 2, last];
        layers.dedup();
        layers
    }

    /// The steps of a kind in a layer.
    fn steps_in(&self, layer: usize, is: fn(&Op) -> bool) -> Vec<usize> {
        self.steps(is).map(|(step, _)| step).filter(|&step| self.layer(step) == Some(layer)).collect()
    }

    /// The value that holds what a step gives, in its own order.
    fn output(&self, step: usize) -> Option<String> {
        let is_it = |carried: &&Carried| carried.step == step && carried.plain;
        self.carried.iter().find(is_it).map(|carried| carried.value.clone())
    }

    /// The name of a parameter of a step.
    fn named(&self, step: usize, parameter: &str) -> Option<&str> {
        Some(&self.program().parameter(step, parameter)?.name)
    }

    /// A parameter of a step, as f32; zeros for the bias of a layer norm that has none.
    fn parameter(&self, step: usize, parameter: &str) -> Option<Value> {
        let Some(name) = self.named(step, parameter) else {
            let is_norm = matches!(self.program().steps[step].op, Op::LayerNorm { .. });
            let width = self.width(step).filter(|_| is_norm && parameter == "bias")?;
            return Value::new([width], vec![0f32; width]).ok();
        };
        let (_, entry) = self.bound.named().find(|(found, _)| *found == name)?;
        let value = entry.to_value().ok()?;
        let elements: Vec<f32> = value.to_f64().into_iter().map(|x| x as f32).collect();
        Value::new(value.shape(), elements).ok()
    }

    /// The value of the first layer norm, through which everything goes, and its width.
    fn first_norm(&self) -> Option<(String, usize)> {
        let (step, _) = self.steps(|op| matches!(op, Op::LayerNorm { .. })).next()?;
        Some((self.output(step)?, self.width(step)?))
    }

    /// How many features a step gives.
    fn width(&self, step: usize) -> Option<usize> {
        self.program().shapes()[step].width
    }

    /// The path of the first attention, which is the first to suffer from a wrong mask.
    fn first_attention(&self) -> Option<String> {
        let (step, _) = self.steps(|op| matches!(op, Op::Attention { .. })).next()?;
        Some(self.path(step))
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
    for layer in sound.tried_layers() {
        plants.activation(layer);
        plants.residuals(layer);
        plants.values(layer);
        plants.gates(layer);
    }
    plants.layer_norms();
    plants.scale();
    plants.mask();
    plants.embeddings();
    plants.distances();
    plants.angles();
    plants.windows();
    plants.pooler();
    plants.outputs();
    plants.sizes();
    plants.softmax();
    plants.dropout();
    plants.weights();
    plants.off_samples();
    plants.harmless();
    plants.moved();
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
