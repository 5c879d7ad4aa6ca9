//! Faults of models that turn queries and keys, see windows, and have gates.

use architecture::{Op, Rotation};
use engine::Value;
use onnx_graph::{Attribute, Tensor};

use super::Plants;
use crate::selftest::edit::Edit;

impl Plants<'_> {
    /// Angles. Places that are all shifted by the same are no fault: only distances count.
    pub(super) fn angles(&mut self) {
        let all: Vec<(usize, Rotation)> = self
            .sound
            .steps(|op| matches!(op, Op::Angles { sines: false, .. }))
            .filter_map(|(step, of)| match of.op {
                Op::Angles { rotation, .. } => Some((step, rotation)),
                _ => None,
            })
            .collect();
        for (cosines, rotation) in all {
            let sines = Op::Angles { rotation, sines: true };
            let sines = self.sound.program().steps.iter().position(|step| step.op == sines);
            // One value holds them for all texts.
            let value = |step: usize| {
                let carried = self.sound.carried.iter().find(|carried| carried.step == step);
                carried.map(|carried| carried.value.clone())
            };
            let (Some(sines), Some(cosine_value)) = (sines, value(cosines)) else { continue };
            let Some(sine_value) = value(sines) else { continue };
            let module = self.sound.path(cosines);
            let base = if rotation.base == 10_000.0 { 160_000.0 } else { 10_000.0 };
            let other = Rotation { base, ..rotation };
            self.add(
                37,
                "another base of the angles",
                Some(module.clone()),
                Some("angles of base"),
                |edit| {
                    edit.replace_rows(&cosine_value, &table(&other, false)?)?;
                    edit.replace_rows(&sine_value, &table(&other, true)?)
                },
            );
            let module = self.sound.path(sines);
            self.add(37, "turned the other way", Some(module), Some("the other way"), |edit| {
                edit.replace(&sine_value, |nodes, sound| nodes.op("Neg", &[sound]))
            });
        }
    }

    /// How far tokens see.
    pub(super) fn windows(&mut self) {
        let masks = self.sound.steps(|op| matches!(op, Op::Mask { window: Some(_) }));
        let Some((mask, Op::Mask { window: Some(window) })) = masks.map(|(at, step)| (at, &step.op)).next()
        else {
            return;
        };
        let window = *window as i64;
        let reader = self.sound.program().consumers(mask).next().map(|(step, _)| self.sound.path(step));
        for by in [1, -1] {
            let fault = format!("a window that is {} by one", if by > 0 { "wider" } else { "narrower" });
            self.add(38, fault, reader.clone(), Some("a window of"), |edit| {
                let compared = edit.compared_with(window)?;
                let value = match edit.model.graph.nodes.get(compared)?.inputs.get(1) {
                    Some(name) => edit.integer(name)?.1,
                    None => return None,
                };
                let other =
                    if value { Value::scalar((window + by) as f32) } else { Value::scalar(window + by) };
                let name = edit.constant(&other);
                edit.model.graph.nodes.get_mut(compared)?.inputs[1] = name;
                Some(())
            });
        }
    }

    /// What gates.
    pub(super) fn gates(&mut self, layer: usize) {
        for product in self.sound.steps_in(layer, |op| matches!(op, Op::Product)) {
            let program = self.sound.program();
            let is_bent = |step: &usize| matches!(program.steps[*step].op, Op::Activation { .. });
            let mut factors = program.steps[product].inputs.iter().filter_map(|wire| wire.step());
            let Some(gate) = factors.find(is_bent) else { continue };
            let Some(value) = self.sound.output(gate) else { continue };
            let module = Some(self.sound.path(product));
            self.add(39, format!("no gate in layer {layer}"), module, Some("gate is missing"), |edit| {
                edit.replace(&value, |nodes, sound| {
                    let (nothing, one) = (nodes.number(0.0), nodes.number(1.0));
                    let blank = nodes.op("Mul", &[sound, &nothing]);
                    nodes.op("Add", &[&blank, &one])
                })
            });
        }
    }
}

/// Cosines or sines for every place: `[positions, size]`.
fn table(rotation: &Rotation, sines: bool) -> Option<Value> {
    let frequencies: Vec<f64> = rotation.frequencies().collect();
    let of = |place: usize, feature: usize| {
        let angle = place as f64 * frequencies[rotation.pair(feature)];
        (if sines { angle.sin() } else { angle.cos() }) as f32
    };
    let rows = 0..rotation.positions;
    let elements: Vec<f32> = rows
        .flat_map(|place| (0..rotation.size).map(move |feature| (place, feature)))
        .map(|(p, f)| of(p, f))
        .collect();
    Value::new([rotation.positions, rotation.size], elements).ok()
}

impl Edit {
    /// The number of a node that compares something with a whole number.
    fn compared_with(&self, number: i64) -> Option<usize> {
        const COMPARISONS: [&str; 4] = ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"];
        self.model.graph.nodes.iter().position(|node| {
            let other = node.inputs.get(1).and_then(|name| self.integer(name));
            COMPARISONS.contains(&node.op.as_str()) && other.is_some_and(|(found, _)| found == number)
        })
    }

    /// The whole number that a constant of one element is, and whether it is a float.
    fn integer(&self, name: &str) -> Option<(i64, bool)> {
        let of = |tensor: &Tensor| {
            let value = tensor.to_value().ok()?;
            let &[number] = &value.to_f64()[..] else { return None };
            (number.fract() == 0.0).then_some((number as i64, tensor.dtype.is_float()))
        };
        if let Some(tensor) = self.model.graph.initializers.get(name) {
            return of(tensor);
        }
        let mut nodes = self.model.graph.nodes.iter();
        let constant =
            nodes.find(|node| node.op == "Constant" && node.outputs.iter().any(|own| own == name))?;
        match constant.attributes.get("value")? {
            Attribute::Tensor(tensor) => of(tensor),
            _ => None,
        }
    }
}
