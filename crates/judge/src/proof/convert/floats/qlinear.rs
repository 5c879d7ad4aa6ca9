//! The operators of ONNX Runtime's static quantizer, in floats: see [`super::in_floats`].

use onnx_graph::{Attribute, Node};

use super::{Unwritable, Writer, refused};

impl Writer<'_> {
    /// A node of `QLinearAdd` and its kin: three inputs a value, which are its number, scale and
    /// zero point.
    pub(super) fn microsoft(&mut self, node: Node) -> Result<(), Unwritable> {
        let input = |index: usize| node.inputs.get(index).map_or("", String::as_str);
        let output = node.outputs.first().map_or("", String::as_str);
        let y = self.fresh(&node, "y");
        let (scale, zero) = match node.op.as_str() {
            "QLinearAdd" | "QLinearMul" => {
                let (a, b) = (self.operand(&node, 0), self.operand(&node, 3));
                self.add(&node, &node.op["QLinear".len()..], &[&a, &b], &y);
                (6, 7)
            }
            "QLinearSigmoid" | "QLinearLeakyRelu" | "QLinearSoftmax" => {
                let x = self.operand(&node, 0);
                self.add(&node, &node.op["QLinear".len()..], &[&x], &y);
                self.keep(&node, &["alpha", "axis"]);
                self.softmax_of_an_opset(&node)?;
                (3, 4)
            }
            "QLinearWhere" => {
                let (a, b) = (self.operand(&node, 1), self.operand(&node, 4));
                self.add(&node, "Where", &[input(0), &a, &b], &y);
                (7, 8)
            }
            "QLinearConcat" => {
                let parts: Vec<String> =
                    (2..node.inputs.len()).step_by(3).map(|at| self.operand(&node, at)).collect();
                self.add(&node, "Concat", &parts.iter().map(String::as_str).collect::<Vec<_>>(), &y);
                self.keep(&node, &["axis"]);
                (0, 1)
            }
            "QGemm" => {
                self.gemm(&node, &y)?;
                if input(7).is_empty() {
                    self.add(&node, "Identity", &[&y], output);
                    return Ok(());
                }
                (7, 8)
            }
            _ => return Err(refused(&node, "has no form in floats here")),
        };
        self.quantized(&node, &y, input(scale), input(zero), output)
    }

    /// The float that an input and the two after it stand for.
    fn operand(&mut self, node: &Node, at: usize) -> String {
        let input = |index: usize| node.inputs.get(index).map_or("", String::as_str);
        self.dequantized(node, input(at), input(at + 1), input(at + 2))
    }

    /// Gives the node that was added last these attributes, where the original has them.
    fn keep(&mut self, node: &Node, attributes: &[&str]) {
        let Some(added) = self.nodes.last_mut() else { return };
        for name in attributes {
            if let Some(value) = node.attributes.get(*name) {
                added.attributes.insert((*name).into(), value.clone());
            }
        }
    }

    /// A softmax is written for the model's opset, and has the meaning of the one it was made of:
    /// since opset 13 it is along one axis.
    fn softmax_of_an_opset(&self, node: &Node) -> Result<(), Unwritable> {
        match node.int("opset") {
            Ok(Some(opset)) if (opset < 13) != (self.opset < 13) => {
                Err(refused(node, "has the meaning of another opset than the model's"))
            }
            _ => Ok(()),
        }
    }

    /// The step of the bias is the product of the steps of both factors.
    fn gemm(&mut self, node: &Node, y: &str) -> Result<(), Unwritable> {
        let input = |index: usize| node.inputs.get(index).map_or("", String::as_str);
        let is_set = |name: &str| node.attributes.get(name).is_some_and(|value| *value != Attribute::Int(0));
        if is_set("transB") {
            // Scales by column would stand at the rows.
            self.one_scale(node, input(4))?;
        }
        let (a, b) = (self.operand(node, 0), self.operand(node, 3));
        let mut factors = vec![a, b];
        if !input(6).is_empty() {
            let c = self.float(node, input(6));
            let (half, bias) = (self.fresh(node, "scaled once"), self.fresh(node, "bias"));
            self.add(node, "Mul", &[&c, input(1)], &half);
            self.add(node, "Mul", &[&half, input(4)], &bias);
            factors.push(bias);
        }
        self.add(node, "Gemm", &factors.iter().map(String::as_str).collect::<Vec<_>>(), y);
        self.keep(node, &["transA", "transB", "alpha"]);
        // The bias is multiplied with alpha, too.
        if let Some(alpha) = node.attributes.get("alpha").cloned()
            && let Some(added) = self.nodes.last_mut()
        {
            added.attributes.insert("beta".into(), alpha);
        }
        Ok(())
    }
}
