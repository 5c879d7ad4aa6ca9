//! From a program to a graph: what each building block is in ONNX's operators.

use architecture::{Op, Program, Rotation, Shape as ValueShape, Step, TensorId, Wire};
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
            (&Op::Mask { window }, [mask]) => {
                let mask = additive_mask(b, module, mask);
                match window {
                    Some(window) => Ok(self.window(module, &mask, window)),
                    None => Ok(mask),
                }
            }
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
                let product = self.b.node(module, "MatMul", &[x, &weight]);
                let Some(bias) = bias else { return Ok(product) };
                let bias = self.b.weight(&program.tensors[bias].name)?;
                Ok(self.b.node(module, "Add", &[&product, &bias]))
            }
            (&Op::LayerNorm { weight, bias, eps }, [x]) => {
                let size = program.tensors[weight].shape.iter().product();
                let weight = b.weight(&program.tensors[weight].name)?;
                let bias = bias.map(|bias| b.weight(&program.tensors[bias].name)).transpose()?;
                let axis = if self.shapes[at].per_token { 2 } else { 1 };
                Ok(layer_norm(b, module, x, (&weight, bias.as_ref()), (size, axis, eps)))
            }
            (Op::Angles { rotation, sines }, []) => Ok(self.angles(module, rotation, *sines)),
            (&Op::Rotate { heads, neighbours }, [x, cosines, sines]) => {
                let width = self.shapes[at].width.unwrap_or_default();
                let size = step.inputs[1].step().and_then(|angles| self.shapes[angles].width);
                Ok(rotate(
                    b,
                    module,
                    x,
                    [cosines, sines],
                    [heads, width, size.unwrap_or_default()],
                    neighbours,
                ))
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
            (Op::Product, [first, others @ ..]) => {
                Ok(others.iter().fold(first.clone(), |all, factor| b.node(module, "Mul", &[&all, factor])))
            }
            (&Op::Part { at: part, of: _ }, [x]) => {
                let width = self.shapes[at].width.unwrap_or_default();
                let axis = if self.shapes[at].per_token { 2 } else { 1 };
                Ok(features(b, module, x, axis, [part * width, (part + 1) * width]))
            }
            (Op::Mean, [x, mask]) => Ok(mean_shown(b, module, x, mask)),
            (Op::FirstShown, [x, mask]) => {
                let places = self.places(module);
                Ok(first_shown(self.b, module, x, [mask, &places]))
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
        let longest = self.longest();
        let table = self.b.weight(&self.program.tensors[table].name)?;
        let distances = self.distances(module);
        let rows: Vec<i64> = (1 - longest..longest).map(|at| bucket(at, buckets, farthest)).collect();
        let b = &mut *self.b;
        let rows = b.list("buckets", rows);
        let middle = b.index(longest - 1);
        let distances = b.node(module, "Add", &[&distances, &middle]);
        let rows = b.node(module, "Gather", &[&rows, &distances]);
        Ok(b.node(module, "Gather", &[&table, &rows]))
    }

    /// The longest text that lists are made for.
    fn longest(&self) -> i64 {
        self.program.limits().positions.min(LONGEST_OF_ALL) as i64
    }

    /// The places of a text's tokens: `[sequence]`.
    fn places(&mut self, module: &str) -> Name {
        let places: Vec<i64> = (0..self.longest()).collect();
        let (zero, length) = (self.b.ints(&[0]), self.length(module));
        let places = self.b.list("places", places);
        self.b.node(module, "Slice", &[&places, &zero, &length, &zero])
    }

    /// `[sequence, sequence]`: how far each token stands behind the one that asks, which is first.
    fn distances(&mut self, module: &str) -> Name {
        let (zero, one, places) = (self.b.ints(&[0]), self.b.ints(&[1]), self.places(module));
        let asks = self.b.node(module, "Unsqueeze", &[&places, &one]);
        let asked = self.b.node(module, "Unsqueeze", &[&places, &zero]);
        self.b.node(module, "Sub", &[&asked, &asks])
    }

    /// `[batch, 1, sequence, sequence]`: an additive mask, where each token sees no further than a
    /// window.
    fn window(&mut self, module: &str, mask: &Name, window: usize) -> Name {
        let distances = self.distances(module);
        let b = &mut *self.b;
        let lengths = b.node(module, "Abs", &[&distances]);
        let (window, lowest) = (b.index(window as i64), b.scalar("lowest", lowest(b.dtype)));
        let is_far = b.node(module, "Greater", &[&lengths, &window]);
        b.node(module, "Where", &[&is_far, &lowest, mask])
    }

    /// `[1, sequence, size]`: see [`Op::Angles`]. Angles are f32, also where the model is not.
    fn angles(&mut self, module: &str, rotation: &Rotation, sines: bool) -> Name {
        let (zero, two) = (self.b.ints(&[0]), self.b.ints(&[2]));
        let places = self.places(module);
        let b = &mut *self.b;
        let places = b.cast(module, &places, FloatType::F32);
        // [sequence] to [1, sequence, 1], one axis at a time.
        let places = b.node(module, "Unsqueeze", &[&places, &zero]);
        let places = b.node(module, "Unsqueeze", &[&places, &two]);
        // Layers may turn by different ones.
        let name = format!("frequencies_{}_{:e}_{:e}", rotation.size, rotation.base, rotation.slower);
        let frequencies: Vec<f64> = rotation.frequencies().collect();
        let frequencies = b.singles(&name, &frequencies);
        let angles = b.node(module, "Mul", &[&places, &frequencies]);
        let half = b.node(module, if sines { "Sin" } else { "Cos" }, &[&angles]);
        let all = if rotation.neighbours {
            let three = b.ints(&[3]);
            let half = b.node(module, "Unsqueeze", &[&half, &three]);
            let twice = b.node_with(module, "Concat", &[&half, &half], [("axis", Attribute::Int(3))]);
            let together = b.ints(&[0, 0, rotation.size as i64]);
            b.node(module, "Reshape", &[&twice, &together])
        } else {
            b.node_with(module, "Concat", &[&half, &half], [("axis", Attribute::Int(2))])
        };
        if b.dtype == FloatType::F32 { all } else { b.cast(module, &all, b.dtype) }
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

/// The longest text that lists are made for, where a model has no limit of its own.
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

/// Turns the first `size` features of each head; see [`Op::Rotate`]. Of f16, products are f16.
fn rotate(
    b: &mut Builder,
    module: &str,
    x: &Name,
    angles: [&Name; 2],
    [heads, width, size]: [usize; 3],
    neighbours: bool,
) -> Name {
    let head_size = width / heads.max(1);
    // 0 stands for the size that is there: batch and sequence.
    let apart = b.ints(&[0, 0, heads as i64, head_size as i64]);
    let (together, two) = (b.ints(&[0, 0, width as i64]), b.ints(&[2]));
    let [cosines, sines] = angles.map(|angles| b.node(module, "Unsqueeze", &[angles, &two]));
    let apart = b.node(module, "Reshape", &[x, &apart]);
    let turned = match size < head_size {
        true => features(b, module, &apart, 3, [0, size]),
        false => apart.clone(),
    };
    let last = || [("axis", Attribute::Int(3))];
    let rotated = if neighbours {
        let pairs = b.ints(&[0, 0, heads as i64, (size / 2) as i64, 2]);
        let all = b.ints(&[0, 0, heads as i64, size as i64]);
        let pairs = b.node(module, "Reshape", &[&turned, &pairs]);
        let [first, second] = [0, 1].map(|at| features(b, module, &pairs, 4, [at, at + 1]));
        let second = b.node(module, "Neg", &[&second]);
        let pairs = b.node_with(module, "Concat", &[&second, &first], [("axis", Attribute::Int(4))]);
        b.node(module, "Reshape", &[&pairs, &all])
    } else {
        let [first, second] =
            [0, 1].map(|at| features(b, module, &turned, 3, [at * size / 2, (at + 1) * size / 2]));
        let second = b.node(module, "Neg", &[&second]);
        b.node_with(module, "Concat", &[&second, &first], last())
    };
    let along = b.node(module, "Mul", &[&turned, &cosines]);
    let across = b.node(module, "Mul", &[&rotated, &sines]);
    let mut all = b.node(module, "Add", &[&along, &across]);
    if size < head_size {
        let others = features(b, module, &apart, 3, [size, head_size]);
        all = b.node_with(module, "Concat", &[&all, &others], last());
    }
    b.node(module, "Reshape", &[&all, &together])
}

/// Some of the features, which are the last axis, of that number.
fn features(b: &mut Builder, module: &str, x: &Name, axis: i64, [from, until]: [usize; 2]) -> Name {
    let [from, until, axis] = [from as i64, until as i64, axis].map(|number| b.ints(&[number]));
    b.node(module, "Slice", &[x, &from, &until, &axis])
}

/// The mean of `x` `[batch, sequence, width]` over the tokens that a mask shows.
fn mean_shown(b: &mut Builder, module: &str, x: &Name, mask: &Name) -> Name {
    let two = b.ints(&[2]);
    let mask = b.cast(module, mask, b.dtype);
    let mask = b.node(module, "Unsqueeze", &[&mask, &two]);
    let shown = b.node(module, "Mul", &[x, &mask]);
    let [sum, count] = [&shown, &mask].map(|x| sum_of_tokens(b, module, x));
    b.node(module, "Div", &[&sum, &count])
}

/// The first token of `x` `[batch, sequence, width]` that a mask shows.
fn first_shown(b: &mut Builder, module: &str, x: &Name, [mask, places]: [&Name; 2]) -> Name {
    let at = b.node_with(module, "ArgMax", &[mask], [("axis", Attribute::Int(1))]);
    let is_first = b.node(module, "Equal", &[places, &at]);
    let two = b.ints(&[2]);
    let is_first = b.cast(module, &is_first, b.dtype);
    let is_first = b.node(module, "Unsqueeze", &[&is_first, &two]);
    let shown = b.node(module, "Mul", &[x, &is_first]);
    sum_of_tokens(b, module, &shown)
}

/// The sum of `x` `[batch, sequence, features]` over the tokens.
fn sum_of_tokens(b: &mut Builder, module: &str, x: &Name) -> Name {
    let axes = b.ints(&[1]);
    b.node_with(module, "ReduceSum", &[x, &axes], [("keepdims", Attribute::Int(0))])
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
