//! Faults inside the layers: activations, residuals, what attention takes, normalisations.

use candle_bert::Activation;
use engine::Value;
use onnx_graph::Attribute;

use super::Plants;
use super::formulas::{gelu, gelu_tanh, layer_norm, quick_gelu};
use crate::audit::Origin;
use crate::locate::Kind;
use crate::proof::Promoted;
use crate::selftest::edit::Nodes;

impl Plants<'_> {
    pub(super) fn activation(&mut self, layer: usize) {
        let module = format!("encoder.layer.{layer}.intermediate");
        let (Some(value), Some(input)) =
            (self.sound.output(&module), self.sound.output(&format!("{module}.dense")))
        else {
            return;
        };
        let own = self.sound.config.hidden_act;
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
                self.add(1, fault, Some(module.clone()), Some(explained), |edit| {
                    edit.replace(&value, |nodes, _| make(nodes, &input))
                });
            }
        }
    }

    pub(super) fn residuals(&mut self, layer: usize) {
        for part in ["attention.output", "output"] {
            let module = format!("encoder.layer.{layer}.{part}");
            let sum = self.sound.plain(&module, Kind::Sum).map(String::from);
            let (Some(sum), Some(dense)) = (sum, self.sound.output(&format!("{module}.dense"))) else {
                continue;
            };
            let fault = format!("no residual connection in {module}");
            self.add(29, fault, Some(module), Some("residual"), |edit| edit.replace(&sum, |_, _| dense));
        }
    }

    pub(super) fn values(&mut self, layer: usize) {
        let dense = [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        ];
        for part in dense {
            let module = format!("encoder.layer.{layer}.{part}");
            let (Some(value), Some(bias)) =
                (self.sound.output(&module), self.sound.tensor(&format!("{module}.bias")))
            else {
                continue;
            };
            // A key's bias adds the same to all scores of a query, which softmax does not see: leaving it out is no other function.
            let unseen = part.ends_with("key");
            if !unseen {
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
        }
        let query = format!("encoder.layer.{layer}.attention.self.query");
        if let Some(value) = self.sound.output(&query) {
            let fault = format!("the scale applied twice in layer {layer}, on the query");
            let size = self.sound.config.hidden_size as f64 / self.sound.config.num_attention_heads as f64;
            let module = Some(format!("encoder.layer.{layer}.attention.self"));
            self.add(15, fault, module, Some("scale"), |edit| {
                edit.replace(&value, |nodes, sound| {
                    let scale = nodes.number(1.0 / size.sqrt());
                    nodes.op("Mul", &[sound, &scale])
                })
            });
        }
    }

    pub(super) fn layer_norms(&mut self) {
        let mut modules = vec!["embeddings".to_string()];
        for layer in self.sound.layers() {
            modules
                .extend(["attention.output", "output"].map(|part| format!("encoder.layer.{layer}.{part}")));
        }
        let own = self.sound.config.layer_norm_eps;
        let other = if own > 1e-8 { 1e-12 } else { 1e-5 };
        for parent in modules {
            let module = format!("{parent}.LayerNorm");
            let sum = self.sound.plain(&parent, Kind::Sum).map(String::from);
            let (Some(value), Some(sum)) = (self.sound.output(&module), sum) else { continue };
            let gain = self.sound.tensor(&format!("{module}.weight"));
            let (Some(gain), Some(bias)) = (gain, self.sound.tensor(&format!("{module}.bias"))) else {
                continue;
            };
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
        if let Some(name) = names.into_iter().next() {
            // One constant may serve all layers.
            let module = Some("encoder.layer.0.attention.self".to_string());
            self.add(15, "twice the attention scale", module, Some("scale"), |edit| {
                edit.change(&name, |elements| elements.iter_mut().for_each(|x| *x *= 2.0))
            });
        }
    }

    pub(super) fn softmax(&mut self) {
        // Before opset 13 another axis than the last one means several.
        if self.sound.edit.opset() < 13 {
            return;
        }
        let module = Some("encoder.layer.0.attention.self".to_string());
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
        let Some(value) = self.sound.output("embeddings.LayerNorm").filter(|_| self.sound.edit.opset() >= 12)
        else {
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
