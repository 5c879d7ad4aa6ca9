//! A graph of integers in floats: the same weights, and activations that are not quantized.
//!
//! Quantized activations are not a matter of weights: a dynamic scale follows from all values of a tensor, and rounding to its steps is no small
//! error. So each quantized node is written out in floats, `(x − zero point) · scale` for what it is given and `x / scale + zero point` for what it
//! gives, without rounding to integers and without saturation. What is quantized at run time (`DynamicQuantizeLinear`) is given a scale of 1 and a zero
//! point of 0: any would do, as they cancel. Nothing of the pattern around these nodes is assumed.

mod qlinear;

use std::collections::HashSet;

use engine::{DType, Value};
use onnx_graph::{Attribute, Graph, Model, Node, Tensor};

/// Nodes that move elements, whatever these are. Their first input has them.
const MOVES: [&str; 14] = [
    "Identity",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Expand",
    "Gather",
    "Slice",
    "Concat",
    "Split",
    "Pad",
    "Tile",
    "Cast",
];

/// A node that cannot be written out in floats.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op} '{node}' {why}, so activations cannot be taken for floats")]
pub(super) struct Unwritable {
    node: String,
    op: String,
    why: &'static str,
}

/// A model in floats.
#[derive(Debug)]
pub(super) struct InFloats {
    pub model: Model,
    /// What the model itself quantizes with steps that do not follow from the values.
    pub activations: Vec<Activation>,
}

/// A value that a model quantizes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Activation {
    /// The node that does.
    pub node: String,
    /// What it is called before it is quantized, in floats.
    pub value: String,
    /// The distance of two numbers that it can be.
    pub step: f64,
    /// The least and the greatest of these numbers.
    pub range: (f64, f64),
}

/// The model with every quantized node of its main graph in floats. What functions and branches hold stays as it is.
pub(super) fn in_floats(model: &Model) -> Result<InFloats, Unwritable> {
    let mut model = model.clone();
    let nodes = std::mem::take(&mut model.graph.nodes);
    let opset = model.opset("").unwrap_or_default();
    let mut writer = Writer::new(&mut model.graph, &nodes, opset);
    for node in nodes {
        writer.write(node)?;
    }
    let Writer { nodes, floats, activations, .. } = writer;
    model.graph.value_info.retain(|name, _| !floats.contains(name));
    model.graph.nodes = nodes;
    Ok(InFloats { model, activations })
}

struct Writer<'a> {
    graph: &'a mut Graph,
    nodes: Vec<Node>,
    /// Values that were integers, and are floats now.
    floats: HashSet<String>,
    names: HashSet<String>,
    activations: Vec<Activation>,
    /// The version of ONNX's operators.
    opset: i64,
}

impl<'a> Writer<'a> {
    fn new(graph: &'a mut Graph, nodes: &[Node], opset: i64) -> Self {
        let values = nodes.iter().flat_map(|node| node.outputs.iter().chain([&node.name]));
        let given = graph.inputs.iter().map(|spec| &spec.name).chain(graph.initializers.keys());
        let names = values.chain(given).cloned().collect();
        Self { graph, nodes: Vec::new(), floats: HashSet::new(), names, activations: Vec::new(), opset }
    }

    fn write(&mut self, node: Node) -> Result<(), Unwritable> {
        let input = |index: usize| node.inputs.get(index).map_or("", String::as_str);
        let output = |index: usize| node.outputs.get(index).map_or("", String::as_str);
        match node.op.as_str() {
            "DynamicQuantizeLinear" => {
                self.add(&node, "Identity", &[input(0)], output(0));
                for (index, number) in [(1, 1f32), (2, 0f32)] {
                    if !output(index).is_empty() {
                        let tensor = Tensor::from_value(&Value::scalar(number));
                        self.graph.initializers.insert(output(index).into(), tensor);
                    }
                }
                self.floats.extend([output(0), output(2)].map(String::from));
            }
            "MatMulInteger" => {
                let a = self.centred(&node, input(0), input(2));
                let b = self.centred(&node, input(1), input(3));
                self.add(&node, "MatMul", &[&a, &b], output(0));
                self.floats.insert(output(0).into());
            }
            "MatMulIntegerToFloat" => {
                let a = self.dequantized(&node, input(0), input(2), input(4));
                let b = self.dequantized(&node, input(1), input(3), input(5));
                self.product(&node, &a, &b, input(6), output(0));
            }
            "DynamicQuantizeMatMul" => {
                let b = self.dequantized(&node, input(1), input(2), input(3));
                self.product(&node, input(0), &b, input(4), output(0));
            }
            "QLinearMatMul" => {
                let a = self.dequantized(&node, input(0), input(1), input(2));
                let b = self.dequantized(&node, input(3), input(4), input(5));
                let y = self.fresh(&node, "y");
                self.add(&node, "MatMul", &[&a, &b], &y);
                self.quantized(&node, &y, input(6), input(7), output(0))?;
            }
            "QuantizeLinear" => self.quantized(&node, input(0), input(1), input(2), output(0))?,
            op if op.starts_with("QLinear") || op == "QGemm" => self.microsoft(node)?,
            "DequantizeLinear" if self.floats.contains(input(0)) => {
                self.one_scale(&node, input(1))?;
                let centred = self.centred(&node, input(0), input(2));
                self.add(&node, "Mul", &[&centred, input(1)], output(0));
            }
            op => {
                let takes = |name: &String| self.floats.contains(name);
                if MOVES.contains(&op) && node.inputs.first().is_some_and(takes) {
                    // A cast to floats is what an integer needs, and a float does not mind.
                    if op != "Cast" {
                        self.floats.extend(node.outputs.iter().cloned());
                    }
                } else if node.inputs.iter().any(takes) {
                    return Err(refused(&node, "takes quantized activations"));
                }
                self.nodes.push(node);
            }
        }
        Ok(())
    }

    /// A node in the place of `node`. The last that is added for it keeps its name.
    fn add(&mut self, node: &Node, op: &str, inputs: &[&str], output: &str) {
        if output.is_empty() {
            return;
        }
        let own = node.outputs.iter().any(|name| name == output);
        self.nodes.push(Node {
            name: if own { node.name.clone() } else { output.to_string() },
            op: op.into(),
            inputs: inputs.iter().map(ToString::to_string).collect(),
            outputs: vec![output.into()],
            metadata: node.metadata.clone(),
            ..Node::default()
        });
    }

    /// A name that nothing has.
    fn fresh(&mut self, node: &Node, what: &str) -> String {
        let stem = node.outputs.first().map_or("", String::as_str);
        let mut name = format!("{stem}/{what}");
        while !self.names.insert(name.clone()) {
            name.push('\'');
        }
        name
    }

    /// A value as a float.
    fn float(&mut self, node: &Node, value: &str) -> String {
        if self.floats.contains(value) {
            return value.into();
        }
        let cast = self.fresh(node, value);
        self.add(node, "Cast", &[value], &cast);
        if let Some(added) = self.nodes.last_mut() {
            // TensorProto.DataType.FLOAT
            added.attributes.insert("to".into(), Attribute::Int(1));
        }
        cast
    }

    /// `value − zero`, in floats.
    fn centred(&mut self, node: &Node, value: &str, zero: &str) -> String {
        let value = self.float(node, value);
        if zero.is_empty() {
            return value;
        }
        let zero = self.float(node, zero);
        let centred = self.fresh(node, "centred");
        self.add(node, "Sub", &[&value, &zero], &centred);
        centred
    }

    /// `(value − zero) · scale`
    fn dequantized(&mut self, node: &Node, value: &str, scale: &str, zero: &str) -> String {
        let centred = self.centred(node, value, zero);
        let scaled = self.fresh(node, "dequantized");
        self.add(node, "Mul", &[&centred, scale], &scaled);
        scaled
    }

    /// `a · b + bias`
    fn product(&mut self, node: &Node, a: &str, b: &str, bias: &str, output: &str) {
        if bias.is_empty() {
            return self.add(node, "MatMul", &[a, b], output);
        }
        let product = self.fresh(node, "product");
        self.add(node, "MatMul", &[a, b], &product);
        self.add(node, "Add", &[&product, bias], output);
    }

    /// `value / scale + zero`
    fn quantized(
        &mut self,
        node: &Node,
        value: &str,
        scale: &str,
        zero: &str,
        output: &str,
    ) -> Result<(), Unwritable> {
        self.one_scale(node, scale)?;
        self.activations.extend(self.activation(node, value, scale, zero));
        self.floats.insert(output.into());
        if zero.is_empty() {
            self.add(node, "Div", &[value, scale], output);
            return Ok(());
        }
        let zero = self.float(node, zero);
        let steps = self.fresh(node, "steps");
        self.add(node, "Div", &[value, scale], &steps);
        self.add(node, "Add", &[&steps, &zero], output);
        Ok(())
    }

    /// A scale for each place of an axis would have to be brought under the shape of what it is for, which is not known here.
    fn one_scale(&self, node: &Node, scale: &str) -> Result<(), Unwritable> {
        let one = |tensor: &Tensor| tensor.dtype.is_float() && tensor.shape.iter().product::<usize>() == 1;
        match self.held(scale) {
            Some(tensor) if one(tensor) => Ok(()),
            _ => Err(refused(node, "quantizes activations by more than one scale")),
        }
    }

    /// The constant of that name.
    fn held(&self, name: &str) -> Option<&Tensor> {
        let constant =
            |node: &&Node| node.op == "Constant" && node.outputs.iter().any(|output| output == name);
        self.graph.initializers.get(name).or_else(|| {
            let made = self.nodes.iter().find(constant)?;
            made.tensor("value").ok().flatten()
        })
    }

    /// What eight bits can be; others are not told apart.
    fn activation(&self, node: &Node, value: &str, scale: &str, zero: &str) -> Option<Activation> {
        let number = |tensor: &Tensor| Some(*tensor.to_value().ok()?.to_f64().first()?);
        let step = number(self.held(scale)?)?;
        let (dtype, zero) = match zero {
            "" => (DType::U8, 0.0),
            zero => (self.held(zero)?.dtype, number(self.held(zero)?)?),
        };
        let (least, most) = match dtype {
            DType::U8 => (0.0, 255.0),
            DType::I8 => (-128.0, 127.0),
            _ => return None,
        };
        let range = ((least - zero) * step, (most - zero) * step);
        Some(Activation { node: node.name.clone(), value: value.into(), step, range })
    }
}

fn refused(node: &Node, why: &'static str) -> Unwritable {
    Unwritable { node: node.name.clone(), op: node.op.clone(), why }
}

#[cfg(test)]
mod tests;
