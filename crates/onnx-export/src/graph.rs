//! From a program to a graph: what each building block is in ONNX's operators.

use architecture::{Op, Program, Shape as ValueShape, Step, TensorId, Wire};
use engine::{DType, Dim};
use half::f16;
use onnx_graph::Attribute;

use crate::builder::{Builder, Name};
use crate::functions::{activation, layer_norm};
use crate::{ExportError, FloatType, Options, Shape};

/// Adds inputs, all nodes and outputs.
pub(crate) fn write(b: &mut Builder, program: &Program, options: &Options) -> Result<(), ExportError> {
    let axes: Vec<Dim> = match options.shape.sizes() {
        None => program.axes.iter().map(|axis| Dim::Symbol((*axis).into())).collect(),
        Some(sizes) => sizes.into_iter().map(Dim::Fixed).collect(),
    };
    let inputs = program.inputs.iter().map(|input| b.input(input.name, DType::I64, &axes)).collect();
    let shapes = program.shapes();
    let mut writer = Writer { b, program, shapes: &shapes, shape: options.shape, inputs, values: Vec::new() };
    for step in 0..program.steps.len() {
        let value = writer.step(step)?;
        writer.values.push(value);
    }
    let values = writer.values;
    for output in &program.outputs {
        let ValueShape { per_token, width } = shapes[output.step];
        let axes = if per_token { &axes[..] } else { &axes[..axes.len() - 1] };
        let shape: Vec<Dim> = axes.iter().cloned().chain(width.map(Dim::Fixed)).collect();
        b.output(output.name, &values[output.step], program.owner(output.step), &shape);
    }
    Ok(())
}

struct Writer<'a, 'b> {
    b: &'a mut Builder<'b>,
    program: &'a Program,
    /// Of what each step gives.
    shapes: &'a [ValueShape],
    shape: Shape,
    inputs: Vec<Name>,
    /// What the steps so far give.
    values: Vec<Name>,
}

impl Writer<'_, '_> {
    fn step(&mut self, at: usize) -> Result<Name, ExportError> {
        let program = self.program;
        let step = &program.steps[at];
        let fed: Vec<Name> = step
            .inputs
            .iter()
            .map(|wire| match *wire {
                Wire::Input(input) => self.inputs[input].clone(),
                Wire::Step(step) => self.values[step].clone(),
            })
            .collect();
        let module = program.owner(at);
        let b = &mut *self.b;
        match (&step.op, fed.as_slice()) {
            (Op::Rows, [x]) => Ok(b.node_with(module, "Flatten", &[x], [("axis", Attribute::Int(2))])),
            (Op::Unrows, [x]) => {
                let shape = self.leading(module);
                Ok(self.b.node(module, "Reshape", &[x, &shape]))
            }
            (Op::Mask, [mask]) => Ok(additive_mask(b, module, mask)),
            (&Op::Embedding { table }, [ids]) => {
                let table = b.weight(&program.tensors[table].name)?;
                Ok(b.node(module, "Gather", &[&table, ids]))
            }
            (&Op::Positions { table }, []) => {
                let table = b.weight(&program.tensors[table].name)?;
                let (zero, length) = (b.ints(&[0]), self.length(module));
                Ok(self.b.node(module, "Slice", &[&table, &zero, &length, &zero]))
            }
            (&Op::Linear { weight, bias }, [x]) => {
                let weight = self.matrix(module, weight)?;
                let bias = self.b.weight(&program.tensors[bias].name)?;
                let product = self.b.node(module, "MatMul", &[x, &weight]);
                Ok(self.b.node(module, "Add", &[&product, &bias]))
            }
            (&Op::LayerNorm { weight, bias, eps }, [x]) => {
                let size = program.tensors[weight].shape.iter().product();
                let weight = b.weight(&program.tensors[weight].name)?;
                let bias = b.weight(&program.tensors[bias].name)?;
                Ok(layer_norm(b, module, x, [&weight, &bias], (size, eps)))
            }
            (&Op::Attention { heads }, [query, key, value, mask]) => {
                let width = self.shapes[at].width.unwrap_or_default();
                Ok(attention(b, module, [query, key, value], mask, (heads, width)))
            }
            (&Op::Activation { function, .. }, [x]) => Ok(activation(b, module, function, x)),
            (Op::Sum, [first, others @ ..]) => {
                Ok(others.iter().fold(first.clone(), |sum, part| b.node(module, "Add", &[&sum, part])))
            }
            (&Op::Token { at }, [x]) => {
                let at = b.index(at as i64);
                Ok(b.node_with(module, "Gather", &[x, &at], [("axis", Attribute::Int(1))]))
            }
            (&Op::Feature { at: feature }, [x]) => {
                let axis = if self.shapes[at].per_token { 2 } else { 1 };
                let at = b.index(feature as i64);
                Ok(b.node_with(module, "Gather", &[x, &at], [("axis", Attribute::Int(axis))]))
            }
            (_, fed) => Err(ExportError::Fed { module: module.into(), inputs: fed.len() }),
        }
    }

    /// A weight as MatMul takes it, `[in, out]`. One that is a table as well stays as it is, and is
    /// transposed by a node.
    fn matrix(&mut self, module: &str, weight: TensorId) -> Result<Name, ExportError> {
        let name = &self.program.tensors[weight].name;
        let is_table = |step: &Step| {
            let table = [Op::Embedding { table: weight }, Op::Positions { table: weight }];
            table.contains(&step.op)
        };
        if self.b.transposes() && !self.program.steps.iter().any(is_table) {
            return self.b.transposed_weight(name);
        }
        let stored = self.b.weight(name)?;
        Ok(self.b.node_with(module, "Transpose", &[&stored], [("perm", Attribute::Ints(vec![1, 0]))]))
    }

    /// The number of tokens in a row: `[1]`.
    fn length(&mut self, module: &str) -> Name {
        match self.shape {
            Shape::Dynamic => {
                let last = self.b.ints(&[self.program.axes.len() as i64 - 1]);
                let shape = self.b.node(module, "Shape", &[&self.inputs[0]]);
                self.b.node(module, "Gather", &[&shape, &last])
            }
            // It is one of the table's rows at most, and so no larger than a tensor may be.
            Shape::Static { sequence, .. } | Shape::StaticChoices { sequence, .. } => {
                self.b.ints(&[sequence as i64])
            }
        }
    }

    /// The sizes of the first input's axes before the last, as `Reshape` takes them.
    fn leading(&mut self, module: &str) -> Name {
        let count = self.program.axes.len() - 1;
        if let Some(sizes) = self.shape.sizes() {
            // No larger than tensors may be: the inputs have these sizes.
            let sizes: Vec<i64> = sizes[..count].iter().map(|&size| size as i64).collect();
            return self.b.ints(&sizes);
        }
        let (zero, count) = (self.b.ints(&[0]), self.b.ints(&[count as i64]));
        let shape = self.b.node(module, "Shape", &[&self.inputs[0]]);
        self.b.node(module, "Slice", &[&shape, &zero, &count, &zero])
    }
}

/// `[batch, 1, 1, sequence]`: what is added to the scores, 0 for a token and [`lowest`] for
/// padding.
fn additive_mask(b: &mut Builder, module: &str, mask: &Name) -> Name {
    let (one, two) = (b.ints(&[1]), b.ints(&[2]));
    // One axis at a time: given both, candle-onnx adds the second in the wrong place.
    let mask = b.node(module, "Unsqueeze", &[mask, &one]);
    let mask = b.node(module, "Unsqueeze", &[&mask, &two]);
    let mask = b.cast(module, &mask, b.dtype);
    let (one, lowest) = (b.scalar("one", 1.0), b.scalar("lowest", lowest(b.dtype)));
    let padding = b.node(module, "Sub", &[&one, &mask]);
    b.node(module, "Mul", &[&padding, &lowest])
}

/// What is added to the scores of padding. It is finite, since in a row without any real token −∞
/// would make NaN.
///
/// A score disappears beside the lowest f32: in such a row all are equal then, and attention is
/// uniform. f16 has numbers so few apart from its lowest that a score of −16 would be −∞ beside it;
/// half of it is as good, as exp(−32752) is 0 in f64, too, and leaves scores room.
fn lowest(dtype: FloatType) -> f64 {
    match dtype {
        FloatType::F32 => f32::MIN.into(),
        FloatType::F16 => f64::from(f16::MIN) / 2.0,
    }
}

/// Concat(head₁, …, head_A), headₙ = softmax(Q Kᵀ / √d + mask) V
fn attention(
    b: &mut Builder,
    module: &str,
    [query, key, value]: [&Name; 3],
    mask: &Name,
    (heads, width): (usize, usize),
) -> Name {
    let head_size = width / heads.max(1);
    // 0 stands for the size that is there: batch and sequence.
    let apart = b.ints(&[0, 0, heads as i64, head_size as i64]);
    let together = b.ints(&[0, 0, width as i64]);
    let mut split = |x: &Name, perm: [i64; 4]| {
        let x = b.node(module, "Reshape", &[x, &apart]);
        transpose(b, module, &x, perm)
    };
    let query = split(query, [0, 2, 1, 3]);
    let key = split(key, [0, 2, 3, 1]);
    let value = split(value, [0, 2, 1, 3]);
    let root = b.scalar(&format!("sqrt_{head_size}"), (head_size as f64).sqrt());
    let scores = b.node(module, "MatMul", &[&query, &key]);
    let scores = b.node(module, "Div", &[&scores, &root]);
    let scores = b.node(module, "Add", &[&scores, mask]);
    let probabilities = b.node_with(module, "Softmax", &[&scores], [("axis", Attribute::Int(-1))]);
    let context = b.node(module, "MatMul", &[&probabilities, &value]);
    let context = transpose(b, module, &context, [0, 2, 1, 3]);
    b.node(module, "Reshape", &[&context, &together])
}

fn transpose(b: &mut Builder, module: &str, x: &Name, perm: [i64; 4]) -> Name {
    b.node_with(module, "Transpose", &[x], [("perm", Attribute::Ints(perm.into()))])
}
