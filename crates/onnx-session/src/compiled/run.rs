//! The loop over the steps.

use std::error::Error;

use engine::{EngineError, Value};
use kernels::{Attention, Epilogue, KernelError, Kernels, KeyMask, Rows as Matrix, RowsMut};
use onnx_eval::Limits;

use super::arena::Arena;
use super::dim::Dim;
use super::ops::{Bias, Index};
use super::plan::{Place, Plan, Rows};
use super::reach;
use super::sized::SizedValues;
use super::step::{AttentionStep, EmbedStep, LinearStep, OnnxStep, Source, Step, StepKind};

/// What is the same for all shares of a run.
pub struct Run<'a> {
    pub plan: &'a Plan,
    /// In the plan's order.
    pub inputs: &'a [&'a Value],
    pub symbols: &'a [usize],
    pub sized: &'a SizedValues,
    /// How many rows a sequence has in the inputs.
    pub stride: usize,
    pub kernels: &'a Kernels,
}

/// Where a kernel writes: `rows × width` numbers.
struct Out<'a> {
    data: &'a mut [f32],
    rows: usize,
    width: usize,
}

impl Out<'_> {
    fn matrix(&mut self) -> Result<RowsMut<'_>, KernelError> {
        RowsMut::new(self.data, self.rows, self.width)
    }
}

/// Why a step failed.
pub enum Failure {
    /// It is the run's fault.
    Error(EngineError),
    /// What was taken to hold of the graph does not hold in this run: it has to be run in the general way.
    Assumption,
}

/// Padding was left out that the mask may not hide.
#[derive(Debug, thiserror::Error)]
#[error("the mask does not hide the padding")]
struct Unmasked;

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Failure::Error(error)
    }
}

impl Run<'_> {
    /// Runs all steps for the sequences that the arena holds. What they give stays in its registers and slots.
    pub fn steps(&self, arena: &mut Arena) -> Result<(), Failure> {
        for step in &self.plan.steps {
            self.step(step, arena)?;
            for &slot in &step.dead {
                arena.slots[slot] = None;
            }
        }
        Ok(())
    }

    fn step(&self, step: &Step, arena: &mut Arena) -> Result<(), Failure> {
        let fail = |source: Box<dyn Error + Send + Sync>| match source.downcast_ref() {
            // What nodes give for such numbers depends on how they are cut.
            Some(KernelError::VarianceOverflow) => Failure::Assumption,
            _ if source.is::<Unmasked>() => Failure::Assumption,
            _ => Failure::Error(EngineError::Node { node: step.label.clone(), op: step.op.clone(), source }),
        };
        let out = match &step.kind {
            StepKind::Onnx(onnx) => return self.onnx(onnx, arena),
            StepKind::Attention(attention) => attention.out,
            StepKind::Add { out, .. }
            | StepKind::Unary { out, .. }
            | StepKind::LayerNorm { out, .. }
            | StepKind::Linear(LinearStep { out, .. })
            | StepKind::Embed(EmbedStep { out, .. })
            | StepKind::Gate { out, .. }
            | StepKind::Columns { out, .. }
            | StepKind::Token { out, .. } => *out,
        };
        let register = &self.plan.registers[out];
        let (rows, width) = (arena.share.rows(&register.rows, self.symbols), register.width);
        let rows = rows.ok_or(Failure::Assumption)?;
        let mut buffer = std::mem::take(&mut arena.registers[out]);
        let result = self.kernel(step, arena, Out { data: &mut buffer[..rows * width], rows, width });
        arena.registers[out] = buffer;
        result.map_err(fail)
    }

    fn kernel(
        &self,
        step: &Step,
        arena: &mut Arena,
        mut out: Out<'_>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (kernels, rows, width) = (self.kernels, out.rows, out.width);
        match &step.kind {
            StepKind::Add { a, b, .. } => {
                let (a, b) = (self.floats(arena, *a)?, self.floats(arena, *b)?);
                if b.len() == width && rows != 1 {
                    for (to, from) in out.data.chunks_exact_mut(width).zip(a.chunks_exact(width)) {
                        to.iter_mut().zip(from.iter().zip(b)).for_each(|(to, (a, b))| *to = a + b);
                    }
                } else {
                    out.data.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (a, b))| *to = a + b);
                }
            }
            StepKind::Unary { function, x, .. } => {
                let x = self.floats(arena, *x)?;
                out.data.copy_from_slice(x.get(..out.data.len()).ok_or("an input is too short")?);
                kernels.unary(*function, out.data);
            }
            StepKind::LayerNorm { norm, x, .. } => {
                let x = Matrix::new(self.floats(arena, *x)?, rows, width)?;
                let (gamma, beta) = (&norm.gamma, norm.beta.as_deref());
                kernels.layer_norm(x, None, gamma, beta, norm.eps, &mut out.matrix()?)?;
            }
            StepKind::Linear(linear) => {
                let x = Matrix::new(self.floats(arena, linear.x)?, rows, linear.packed.k())?;
                let residual = match linear.residual {
                    Some(place) => Some(Matrix::new(self.floats(arena, place)?, rows, width)?),
                    None => None,
                };
                let epilogue =
                    Epilogue { bias: linear.bias.as_deref(), activation: linear.activation, residual };
                kernels.gemm(x, &linear.packed, &epilogue, &mut out.matrix()?)?;
            }
            StepKind::Attention(attention) => self.attention(attention, arena, out)?,
            StepKind::Embed(embed) => self.embed(embed, arena, out)?,
            StepKind::Gate { gate, wide, x, .. } => {
                let x = self.floats(arena, *x)?;
                let columns =
                    |first: usize| Matrix::strided(x.get(first..).unwrap_or_default(), rows, width, *wide);
                let [a, b] = gate.columns;
                kernels.gate(gate.function, columns(a)?, columns(b)?, &mut out.matrix()?)?;
            }
            StepKind::Columns { first, wide, x, .. } => {
                let x = Matrix::strided(self.floats(arena, *x)?, rows, *wide, *wide)?;
                for (row, to) in out.data.chunks_exact_mut(width).enumerate() {
                    to.copy_from_slice(&x.row(row)[*first..first + width]);
                }
            }
            StepKind::Token { index, sequence, x, out: register } => {
                let x = self.floats(arena, *x)?;
                let length = sequence.size(self.symbols).ok_or("a size is not known")?;
                if *index >= length {
                    return Err(format!("index {index} is outside a sequence of {length}").into());
                }
                let by_sequence = self.plan.registers[*register].rows == Rows::Sequences;
                for (row, to) in out.data.chunks_exact_mut(width).enumerate() {
                    let start = if by_sequence { arena.share.offsets[row] } else { row * length } + index;
                    to.copy_from_slice(
                        x.get(start * width..(start + 1) * width).ok_or("an input is too short")?,
                    );
                }
            }
            StepKind::Onnx(_) => {}
        }
        Ok(())
    }

    fn attention(
        &self,
        step: &AttentionStep,
        arena: &mut Arena,
        mut out: Out<'_>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (rows, width) = (out.rows, out.width);
        let mut scratch = std::mem::take(&mut arena.scratch);
        let mut additive = std::mem::take(&mut arena.additive);
        let mut parts = [None; 3];
        for (index, (place, stride)) in step.sources.iter().enumerate() {
            let data = self.floats(arena, *place)?.get(step.attention.columns[index]..).unwrap_or_default();
            parts[index] = Some(Matrix::strided(data, rows, width, *stride)?);
        }
        let [Some(q), Some(k), Some(v)] = parts else { return Ok(()) };
        let share = &arena.share;
        let (heads, scale, offsets) = (step.attention.heads, step.attention.scale, &share.offsets[..]);
        let sequence = step.attention.sequence.size(self.symbols).ok_or("a size is not known")?;
        let bias = match step.bias {
            Some((place, Bias { by_head, meets })) => {
                let (values, head_stride) = (self.floats(arena, place)?, sequence * sequence);
                let head_stride = if by_head { head_stride } else { 0 };
                Some(kernels::Bias { values, head_stride, stride: sequence, meets })
            }
            None => None,
        };
        let angles = |place| {
            Matrix::new(self.floats(arena, place)?, sequence, step.attention.head_size)
                .map_err(Box::<dyn Error + Send + Sync>::from)
        };
        let rotary = match step.angles {
            Some([cos, sin]) => Some(kernels::Rotary { cos: angles(cos)?, sin: angles(sin)? }),
            None => None,
        };
        let mask = KeyMask::None;
        let mut given = Attention { q, k, v, heads, scale, offsets, mask, bias, rotary };
        if let Some((input, entries)) = &step.mask {
            let hidden = share.counted && reach::hides(&given, &share.lengths, entries[0], share.packed);
            given.mask = if hidden {
                KeyMask::Lengths(&share.lengths)
            } else if share.packed {
                return Err(Box::new(Unmasked));
            } else {
                self.additive(*input, entries, arena, &mut additive)?;
                KeyMask::Additive(additive.get(..rows).ok_or("the mask is too short")?)
            };
        }
        self.kernels.attention(&given, &mut scratch, &mut out.matrix()?)?;
        arena.scratch = scratch;
        arena.additive = additive;
        Ok(())
    }

    /// What the mask adds to each row's scores.
    fn additive(
        &self,
        input: usize,
        entries: &[f32; 2],
        arena: &Arena,
        additive: &mut [f32],
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let value = self.inputs[input];
        for (sequence, ends) in arena.share.offsets.windows(2).enumerate() {
            let start = (arena.share.first + sequence) * self.stride;
            for (place, to) in (start..).zip(&mut additive[ends[0]..ends[1]]) {
                *to = entries[usize::from(integer(value, place)? != 0)];
            }
        }
        Ok(())
    }

    fn embed(
        &self,
        step: &EmbedStep,
        arena: &Arena,
        mut out: Out<'_>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        for (sequence, ends) in arena.share.offsets.windows(2).enumerate() {
            let start = (arena.share.first + sequence) * self.stride;
            for (place, lookup) in step.lookups.iter().enumerate() {
                let mut count = 0;
                for row in ends[0]..ends[1] {
                    let to = &mut out.data[row * out.width..(row + 1) * out.width];
                    let at = row - ends[0];
                    let index = match &lookup.index {
                        Index::Input(input, casts) => casts.apply(integer(self.inputs[*input], start + at)?),
                        // Tokens that are left out stand behind those that are counted.
                        Index::Counted(input, counted) => {
                            let element = integer(self.inputs[*input], start + at)?;
                            count += i64::from(element != counted.padding);
                            counted.at(element, count)
                        }
                        Index::Position(list) => *list.get(at).ok_or("a position is not known")?,
                        Index::Same(index) => *index,
                    };
                    let back = if index < 0 && lookup.from_the_end { lookup.table.rows() as i64 } else { 0 };
                    let found = index.saturating_add(back);
                    let found = usize::try_from(found).ok().filter(|&found| found < lookup.table.rows());
                    let outside = || {
                        let (name, rows) = (&lookup.name, lookup.table.rows());
                        format!("index {index} is outside an axis of size {rows}, that of '{name}'")
                    };
                    lookup.table.read(found.ok_or_else(outside)?, place > 0, to);
                }
            }
        }
        let (norm, mut out) = (&step.norm, out.matrix()?);
        Ok(self.kernels.layer_norm_in_place(&mut out, None, &norm.gamma, norm.beta.as_deref(), norm.eps)?)
    }

    /// The elements at a place.
    fn floats<'b>(
        &'b self,
        arena: &'b Arena,
        place: Place,
    ) -> Result<&'b [f32], Box<dyn Error + Send + Sync>> {
        let value = match place {
            Place::Register(register) => return Ok(&arena.registers[register]),
            Place::Input(input) => self.inputs[input],
            Place::Constant(constant) => &self.plan.constants[constant],
            Place::Sized(slot) => self.sized.get(slot).ok_or("a value is missing")?,
            Place::Slot(slot) => arena.slots[slot].as_ref().ok_or("a value is missing")?,
        };
        Ok(value.as_slice::<f32>()?)
    }

    /// An operator that no kernel knows.
    fn onnx(&self, step: &OnnxStep, arena: &mut Arena) -> Result<(), Failure> {
        let mut values = Vec::with_capacity(step.inputs.len());
        for source in &step.inputs {
            values.push(match source {
                Some(source) => Some(self.value(arena, source)?),
                None => None,
            });
        }
        let given: Vec<Option<&Value>> = values.iter().map(Option::as_ref).collect();
        // What is alive leaves so much for this node.
        let alive =
            arena.slots.iter().flatten().fold(0usize, |sum, value| {
                sum.saturating_add(value.len().saturating_mul(value.dtype().size()))
            });
        let limits = Limits::default();
        let limits = Limits { max_bytes: limits.max_bytes.saturating_sub(alive), ..limits };
        let results = step.operation.run(&given, limits).map_err(EngineError::from)?;
        for (output, result) in step.outputs.iter().zip(results) {
            let (Some((slot, shape)), Some(value)) = (output, result) else { continue };
            if let Some(shape) = shape {
                let expected = sizes(shape, self.symbols).ok_or(Failure::Assumption)?;
                if expected != value.shape() {
                    return Err(Failure::Assumption);
                }
            }
            arena.slots[*slot] = Some(value);
        }
        Ok(())
    }

    /// What is at a place, under the shape it has for its reader.
    pub fn value(&self, arena: &Arena, source: &Source) -> Result<Value, Failure> {
        let found = match source.place {
            Place::Input(input) => self.inputs[input].clone(),
            Place::Constant(constant) => self.plan.constants[constant].clone(),
            Place::Sized(slot) => self.sized.get(slot).ok_or(Failure::Assumption)?.clone(),
            Place::Slot(slot) => arena.slots[slot].clone().ok_or(Failure::Assumption)?,
            Place::Register(register) => {
                let shape = source.shape.as_ref().and_then(|shape| sizes(shape, self.symbols));
                let shape = shape.ok_or(Failure::Assumption)?;
                let count = shape.iter().product::<usize>();
                let data = arena.registers[register].get(..count).ok_or(Failure::Assumption)?;
                return Value::new(shape, data).map_err(|_| Failure::Assumption);
            }
        };
        // A view of what is no register is the same elements under the view's shape.
        match source.shape.as_ref().map(|shape| sizes(shape, self.symbols).ok_or(Failure::Assumption)) {
            Some(Ok(shape)) if shape != found.shape() => {
                let data = found.as_slice::<f32>().map_err(|_| Failure::Assumption)?;
                Value::new(shape, data).map_err(|_| Failure::Assumption)
            }
            Some(Err(failure)) => Err(failure),
            _ => Ok(found),
        }
    }
}

/// A shape as numbers.
pub fn sizes(shape: &[Dim], symbols: &[usize]) -> Option<Vec<usize>> {
    shape.iter().map(|dim| dim.size(symbols)).collect()
}

/// An element of an integer or bool value.
pub fn integer(value: &Value, place: usize) -> Result<i64, Box<dyn Error + Send + Sync>> {
    if let Ok(elements) = value.as_slice::<i64>() {
        return Ok(*elements.get(place).ok_or("an index is missing")?);
    }
    if let Ok(elements) = value.as_slice::<i32>() {
        return Ok(i64::from(*elements.get(place).ok_or("an index is missing")?));
    }
    let elements = value.as_slice::<bool>()?;
    Ok(i64::from(*elements.get(place).ok_or("an index is missing")?))
}
