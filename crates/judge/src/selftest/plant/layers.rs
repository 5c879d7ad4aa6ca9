//! Faults inside the layers: activations, residuals, what attention takes, normalisations.

use architecture::{Activation, Op, Role};
use engine::Value;
use onnx_graph::Attribute;

use super::Plants;
use super::formulas::{gelu, gelu_tanh, layer_norm, quick_gelu};
use crate::audit::Origin;
use crate::proof::Promoted;
use crate::selftest::edit::Nodes;

impl Plants<'_> {
    pub(super) fn activation(&mut self, layer: usize) {
        for step in self.sound.steps_in(layer, |op| matches!(op, Op::Activation { configured: true, .. })) {
            self.other_activations(layer, step);
        }
    }

    fn other_activations(&mut self, layer: usize, step: usize) {
        let Op::Activation { function: own, .. } = self.sound.program().steps[step].op else { return };
        let input = self.sound.fed(step).and_then(|before| self.sound.output(before));
        let (Some(value), Some(input)) = (self.sound.output(step), input) else { return };
        type Make = fn(&mut Nodes, &str) -> String;
        let others: [(Activation, &str, &'static str, Make); 4] = [
            (Activation::Gelu, "gelu", "gelu", gelu),
            (Activation::GeluTanh, "the tanh form of gelu", "tanh", gelu_tanh),
            (Activation::QuickGelu, "quick gelu", "quick", quick_gelu),
            (Activation::Relu, "relu", "relu", |nodes, x| nodes.op("Relu", &[x])),
        ];
        for (other, name, explained, make) in others {
            // gelu_fast is gelu's tanh form to ten digits.
            let same = own == other || (own == Activation::GeluFast && other == Activation::GeluTanh);
            if !same {
                let fault = format!("{name} for {own} in layer {layer}");
                let (value, input) = (value.clone(), input.clone());
                self.add(1, fault, Some(self.sound.path(step)), Some(explained), |edit| {
                    edit.replace(&value, |nodes, _| make(nodes, &input))
                });
            }
        }
    }

    pub(super) fn residuals(&mut self, layer: usize) {
        for step in self.sound.steps_in(layer, |op| *op == Op::Sum) {
            let program = self.sound.program();
            let parts = program.steps[step].inputs.iter().filter_map(|wire| wire.step());
            let mut linear = parts.filter(|&part| matches!(program.steps[part].op, Op::Linear { .. }));
            let projection = linear.next().and_then(|part| self.sound.output(part));
            let (Some(sum), Some(projection)) = (self.sound.output(step), projection) else { continue };
            let module = self.sound.path(step);
            let fault = format!("no residual connection in {module}");
            self.add(29, fault, Some(module), Some("residual"), |edit| edit.replace(&sum, |_, _| projection));
        }
    }

    pub(super) fn values(&mut self, layer: usize) {
        for step in self.sound.steps_in(layer, |op| matches!(op, Op::Linear { .. })) {
            let module = self.sound.path(step);
            let (Some(value), Some(bias)) = (self.sound.output(step), self.sound.parameter(step, "bias"))
            else {
                continue;
            };
            // A key's bias adds the same to all scores of a query, which softmax does not see: leaving it out is no other function.
            if self.sound.program().role(step) == Some(Role::Key) {
                continue;
            }
            for (op, what, explained) in [("Sub", "left out", "bias"), ("Add", "added twice", "bias")] {
                let fault = format!("the bias of {module} {what}");
                let (value, bias) = (value.clone(), bias.clone());
                self.add(14, fault, Some(module.clone()), Some(explained), |edit| {
                    edit.replace(&value, |nodes, sound| {
                        let bias = nodes.constant(&bias);
                        nodes.op(op, &[sound, &bias])
                    })
                });
            }
        }
        for step in self.sound.steps_in(layer, |op| matches!(op, Op::Attention { .. })) {
            let Some(value) = self.sound.fed(step).and_then(|query| self.sound.output(query)) else {
                continue;
            };
            let fault = format!("the scale applied twice in layer {layer}, on the query");
            let Some(size) = self.sound.program().head_size() else { continue };
            self.add(15, fault, Some(self.sound.path(step)), Some("scale"), |edit| {
                edit.replace(&value, |nodes, sound| {
                    let scale = nodes.number(1.0 / (size as f64).sqrt());
                    nodes.op("Mul", &[sound, &scale])
                })
            });
        }
    }

    pub(super) fn layer_norms(&mut self) {
        let tried = self.sound.tried_layers();
        let norms: Vec<(usize, f64)> = self
            .sound
            .steps(|op| matches!(op, Op::LayerNorm { .. }))
            .filter(|&(step, _)| self.sound.layer(step).is_none_or(|layer| tried.contains(&layer)))
            .filter_map(|(step, of)| match of.op {
                Op::LayerNorm { eps, .. } => Some((step, eps)),
                _ => None,
            })
            .collect();
        for (step, own) in norms {
            let other = if own > 1e-8 { 1e-12 } else { 1e-5 };
            let module = self.sound.path(step);
            let sum = self.sound.fed(step).and_then(|before| self.sound.output(before));
            let (Some(value), Some(sum)) = (self.sound.output(step), sum) else { continue };
            let parameters = ["weight", "bias"].map(|name| self.sound.parameter(step, name));
            let [Some(gain), Some(bias)] = parameters else { continue };
            let fault = format!("eps {other:e} for {own:e} in {module}");
            self.add(2, fault, Some(module.clone()), Some("eps"), |edit| {
                edit.replace(&value, |nodes, _| layer_norm(nodes, &sum, &gain, &bias, other, false))
            });
            let fault = format!("the mean not taken off in {module}");
            self.add(24, fault, Some(module.clone()), Some("mean"), |edit| {
                edit.replace(&value, |nodes, _| layer_norm(nodes, &sum, &gain, &bias, own, true))
            });
        }
    }

    pub(super) fn scale(&mut self) {
        let is_scale = |promoted: &&Promoted| ["√d", "1/√d", "d^¼", "d^-¼"].contains(&&*promoted.meaning);
        let names: Vec<String> =
            self.sound.promoted.iter().filter(is_scale).map(|p| p.name.clone()).collect();
        // Exact powers of two need no promotion, and are among the constants of the audit.
        let exact =
            self.sound.audit.constants.iter().filter(|constant| constant.origin == Origin::AttentionScale);
        let mut names: Vec<String> =
            names.into_iter().chain(exact.map(|constant| constant.name.clone())).collect();
        names.dedup();
        // √4 is a 2 that layer norms may take powers of.
        let scales = |name: &String| {
            let mut nodes = self.sound.edit.model.graph.nodes.iter();
            nodes.any(|node| node.op != "Pow" && node.inputs.contains(name))
        };
        if let Some(name) = names.into_iter().find(scales) {
            // One constant may serve all layers.
            let module = self.sound.first_attention();
            self.add(15, "twice the attention scale", module, Some("scale"), |edit| {
                let doubled = edit.copy(&name)?;
                edit.change(&doubled, |elements| elements.iter_mut().for_each(|x| *x *= 2.0))?;
                let nodes = edit.model.graph.nodes.iter_mut().filter(|node| node.op != "Pow");
                let inputs = nodes.flat_map(|node| &mut node.inputs).filter(|input| **input == name);
                inputs.for_each(|input| input.clone_from(&doubled));
                Some(())
            });
        }
    }

    pub(super) fn softmax(&mut self) {
        // Before opset 13 another axis than the last one means several.
        if self.sound.edit.opset() < 13 {
            return;
        }
        let module = self.sound.first_attention();
        self.add(28, "softmax over the queries", module, Some("softmax"), |edit| {
            let mut nodes = edit.model.graph.nodes.iter_mut().filter(|node| node.op == "Softmax").peekable();
            nodes.peek()?;
            nodes.for_each(|node| {
                node.attributes.insert("axis".into(), Attribute::Int(-2));
            });
            Some(())
        });
    }

    pub(super) fn dropout(&mut self) {
        let Some((value, _)) = self.sound.first_norm().filter(|_| self.sound.edit.opset() >= 12) else {
            return;
        };
        self.add(11, "dropout left in", None, Some("deterministic"), |edit| {
            edit.replace(&value, |nodes, sound| {
                let ratio = nodes.number(0.1);
                let training = nodes.constant(&Value::scalar(true));
                nodes.op("Dropout", &[sound, &ratio, &training])
            })
        });
    }
}
