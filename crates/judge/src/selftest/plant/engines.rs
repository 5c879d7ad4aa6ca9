//! Faults of an engine: kernels that compute something else from the right graph.

use architecture::{Activation, Op};
use onnx_graph::Attribute;

use super::formulas::{gelu_tanh, one_pass};
use super::{Plants, Side, Wanted};

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
        let is_gelu = |op: &Op| matches!(op, Op::Activation { function: Activation::Gelu, configured: true });
        let bends: Vec<usize> = self.sound.steps(is_gelu).map(|(step, _)| step).collect();
        // Those of heads have their places elsewhere.
        let bends = bends.into_iter().filter(|&step| self.sound.layer(step).is_some()).collect::<Vec<_>>();
        if !bends.is_empty() {
            self.add(22, "an engine whose gelu is the tanh form", None, None, |edit| {
                for step in bends {
                    let input = self.sound.output(self.sound.fed(step)?)?;
                    edit.replace(&self.sound.output(step)?, |nodes, _| gelu_tanh(nodes, &input))?;
                }
                Some(())
            });
        }
        if let Some((value, _)) = self.sound.first_norm() {
            self.add(
                22,
                "an engine that loses thirteen binary digits behind the first LayerNorm",
                None,
                None,
                |edit| {
                    edit.replace(&value, |nodes, sound| {
                        let large = nodes.number(8192.0);
                        let sum = nodes.op("Add", &[sound, &large]);
                        nodes.op("Sub", &[&sum, &large])
                    })
                },
            );
        }
        self.add(22, "an engine whose LayerNorm is one-pass", None, None, |edit| {
            let mut planted = None;
            for (step, of) in self.sound.steps(|op| matches!(op, Op::LayerNorm { .. })) {
                let Op::LayerNorm { eps, .. } = of.op else { continue };
                let given = self.sound.fed(step).and_then(|before| self.sound.output(before));
                let (Some(value), Some(given)) = (self.sound.output(step), given) else { continue };
                let parameters = ["weight", "bias"].map(|name| self.sound.parameter(step, name));
                let [Some(gain), Some(bias)] = parameters else { continue };
                edit.replace(&value, |nodes, _| one_pass(nodes, &given, &gain, &bias, eps))?;
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
