//! Faults of an engine: kernels that compute something else from the right graph.

use candle_bert::Activation;
use onnx_graph::Attribute;

use super::formulas::{gelu_tanh, one_pass};
use super::{Plants, Side, Wanted};
use crate::locate::Kind;

impl Plants<'_> {
    /// Faults of an engine: the graph is sound, what runs it is not.
    pub(super) fn engine(&mut self) {
        let before = self.plants.len();
        self.add(22, "an engine whose MatMul rounds to bf16", None, None, |edit| {
            let values: Vec<String> = edit
                .model
                .graph
                .nodes
                .iter()
                .filter(|node| ["MatMul", "Gemm", "FusedMatMul"].contains(&node.op.as_str()))
                .filter_map(|node| node.inputs.first().cloned())
                .filter(|name| !edit.model.graph.initializers.contains_key(name))
                .collect();
            let mut done: Vec<&String> = Vec::new();
            for value in &values {
                if done.contains(&value) {
                    continue;
                }
                done.push(value);
                edit.replace(value, |nodes, sound| {
                    let half = nodes.op_with("Cast", &[sound], [("to", Attribute::Int(BFLOAT16))]);
                    nodes.op_with("Cast", &[&half], [("to", Attribute::Int(FLOAT))])
                })?;
            }
            (!done.is_empty()).then_some(())
        });
        if self.sound.config.hidden_act == Activation::Gelu {
            self.add(22, "an engine whose gelu is the tanh form", None, None, |edit| {
                for layer in 0..self.sound.config.num_hidden_layers {
                    let module = format!("encoder.layer.{layer}.intermediate");
                    let (value, input) =
                        (self.sound.output(&module)?, self.sound.output(&format!("{module}.dense"))?);
                    edit.replace(&value, |nodes, _| gelu_tanh(nodes, &input))?;
                }
                Some(())
            });
        }
        self.add(22, "an engine whose LayerNorm is one-pass", None, None, |edit| {
            let norms = self.sound.held.iter().filter(|held| held.kind == Kind::Output && held.plain);
            let eps = self.sound.config.layer_norm_eps;
            let mut planted = None;
            for norm in norms {
                let Some(parent) = norm.module.strip_suffix(".LayerNorm") else { continue };
                let tensors =
                    ["weight", "bias"].map(|part| self.sound.tensor(&format!("{}.{part}", norm.module)));
                let (Some(sum), [Some(gain), Some(bias)]) = (self.sound.plain(parent, Kind::Sum), tensors)
                else {
                    continue;
                };
                edit.replace(&norm.value, |nodes, _| one_pass(nodes, sum, &gain, &bias, eps))?;
                planted = Some(());
            }
            planted
        });
        self.last_is(before, Wanted::Fail, Side::Engine);
    }
}

/// TensorProto's numbers of the types that nodes are cast to.
const FLOAT: i64 = 1;
const BFLOAT16: i64 = 16;
