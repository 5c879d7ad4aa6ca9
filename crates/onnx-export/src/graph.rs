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
            (&Op::Positions { table, padding: Some(padding) }, [ids]) => {
                let table = b.weight(&program.tensors[table].name)?;
                let places = places(b, module, ids, padding);
                Ok(b.node(module, "Gather", &[&table, &places]))
            }
            (&Op::Positions { table, padding: None }, []) => {
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
            (&Op::RelativeBias { table, buckets, farthest }, []) => {
                self.relative_bias(module, table, (buckets, farthest))
            }
            (&Op::Attention { heads }, [query, key, value, mask, bias @ ..]) if bias.len() < 2 => {
                let width = self.shapes[at].width.unwrap_or_default();
                Ok(attention(b, module, [query, key, value], (mask, bias.first()), (heads, width)))
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
        let is_table = |step: &Step| matches!(step.op, Op::Embedding { table } | Op::Positions { table, .. } if table == weight);
        if self.b.transposes() && !self.program.steps.iter().any(is_table) {
            return self.b.transposed_weight(name);
        }
        let stored = self.b.weight(name)?;
        Ok(self.b.node_with(module, "Transpose", &[&stored], [("perm", Attribute::Ints(vec![1, 0]))]))
    }

    /// `[sequence, sequence, heads]`. Which bucket a distance is in stands in the graph as a list
    /// of all distances that there are.
    fn relative_bias(
        &mut self,
        module: &str,
        table: TensorId,
        (buckets, farthest): (usize, usize),
    ) -> Result<Name, ExportError> {
        let longest = self.program.limits().positions.min(LONGEST_OF_ALL) as i64;
        let table = self.b.weight(&self.program.tensors[table].name)?;
        let (zero, one, length) = (self.b.ints(&[0]), self.b.ints(&[1]), self.length(module));
        let places: Vec<i64> = (0..longest).collect();
        let rows: Vec<i64> = (1 - longest..longest).map(|at| bucket(at, buckets, farthest)).collect();
        let b = &mut *self.b;
        let (places, rows) = (b.list("places", places), b.list("buckets", rows));
        let places = b.node(module, "Slice", &[&places, &zero, &length, &zero]);
        let asks = b.node(module, "Unsqueeze", &[&places, &one]);
        let asked = b.node(module, "Unsqueeze", &[&places, &zero]);
        let distances = b.node(module, "Sub", &[&asked, &asks]);
        let middle = b.index(longest - 1);
        let distances = b.node(module, "Add", &[&distances, &middle]);
        let rows = b.node(module, "Gather", &[&rows, &distances]);
        Ok(b.node(module, "Gather", &[&table, &rows]))
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

/// The longest text that distances are listed for, where a model has no limit of its own.
const LONGEST_OF_ALL: usize = 4096;

/// The bucket of a distance; see [`Op::RelativeBias`]. The logarithm is one of f32, as transformers
/// has it.
fn bucket(distance: i64, buckets: usize, farthest: usize) -> i64 {
    let (half, exact) = (buckets as i64 / 2, buckets as i64 / 4);
    let later = if distance > 0 { half } else { 0 };
    let within = match distance.abs() {
        length if length < exact => length,
        length => {
            let ratio = (length as f32 / exact as f32).ln() / (farthest as f64 / exact as f64).ln() as f32;
            (exact + (ratio * (half - exact) as f32) as i64).min(half - 1)
        }
    };
    later + within
}

/// `[batch, sequence]`: the positions of tokens, where those whose id is `padding` have its number
/// and the others are counted from the next one on.
fn places(b: &mut Builder, module: &str, ids: &Name, padding: usize) -> Name {
    let (axis, padding) = (b.index(1), b.index(padding as i64));
    let is_padding = b.node(module, "Equal", &[ids, &padding]);
    let counts = b.node(module, "Not", &[&is_padding]);
    // candle-onnx has no sum of integers. Floats count as well: a table has fewer than 2²⁴ rows.
    let counts = b.cast(module, &counts, FloatType::F32);
    let sums = b.node(module, "CumSum", &[&counts, &axis]);
    let places = b.node(module, "Mul", &[&sums, &counts]);
    let places = b.cast_to_i64(module, &places);
    b.node(module, "Add", &[&places, &padding])
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
    (mask, bias): (&Name, Option<&Name>),
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
    let mut scores = b.node(module, "Div", &[&scores, &root]);
    if let Some(bias) = bias {
        // From a number for each pair and head to one for each head and pair.
        let bias = transpose(b, module, bias, [2, 0, 1]);
        scores = b.node(module, "Add", &[&scores, &bias]);
    }
    let scores = b.node(module, "Add", &[&scores, mask]);
    let probabilities = b.node_with(module, "Softmax", &[&scores], [("axis", Attribute::Int(-1))]);
    let context = b.node(module, "MatMul", &[&probabilities, &value]);
    let context = transpose(b, module, &context, [0, 2, 1, 3]);
    b.node(module, "Reshape", &[&context, &together])
}

fn transpose<const N: usize>(b: &mut Builder, module: &str, x: &Name, perm: [i64; N]) -> Name {
    b.node_with(module, "Transpose", &[x], [("perm", Attribute::Ints(perm.into()))])
}
