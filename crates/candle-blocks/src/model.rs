use std::collections::HashMap;
use std::sync::Arc;

use architecture::{Op, Program, Step, TensorId, Wire};
use candle_core::{D, DType, Device, IndexOp, Result, Tensor};
use candle_nn::{Embedding, Init, Module as _, VarBuilder};

use crate::attention::{AttentionMask, attention, bucket};
use crate::inputs;
use crate::linear::Linear;
use crate::pool;
use crate::rotary;
use crate::{Activate, LayerNorm, ModelError};

/// Is shown a module's path and its output.
pub type Visitor<'a> = dyn FnMut(&str, &Tensor) -> Result<()> + 'a;

/// A program with its weights. Cloning shares them.
///
/// It is not generic over its dtype: that is decided when it is loaded.
#[derive(Debug, Clone)]
pub struct Model(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: Program,
    /// One for each step.
    blocks: Vec<Block>,
    /// For each step, the modules whose output it gives, the innermost first.
    ends: Vec<Vec<usize>>,
    /// For each step, the steps whose values nobody takes after it.
    spent: Vec<Vec<usize>>,
    dtype: DType,
    device: Device,
}

/// What a step has of the checkpoint.
#[derive(Debug, Clone)]
enum Block {
    Embedding(Embedding),
    Positions(Tensor),
    RelativeBias(Tensor),
    Linear(Linear),
    LayerNorm(LayerNorm),
    /// Nothing: a formula without weights.
    Formula,
}

/// A value on the way.
enum Value {
    Tensor(Tensor),
    /// Nothing is masked where there is none.
    Mask(Option<AttentionMask>),
    /// An input that was left out, or a value that nobody takes any more.
    None,
}

impl Model {
    /// Loads a program. `base` stands where the names of the model without its head begin, `head`
    /// where those of the head do.
    ///
    /// # Errors
    /// If `base` is not of a float dtype, or a tensor is missing or of another shape.
    pub fn load(
        program: Program,
        base: &VarBuilder,
        head: &VarBuilder,
    ) -> std::result::Result<Self, ModelError> {
        let dtype = base.dtype();
        if !matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
            return Err(ModelError::ModelDType { found: dtype });
        }
        let mut reader =
            Reader { program: &program, base, head, tables: HashMap::new(), read: HashMap::new() };
        let blocks = program.steps.iter().map(|step| reader.block(&step.op)).collect::<Result<_>>()?;
        Ok(Self::of(program, blocks, dtype, base.device().clone()))
    }

    fn of(program: Program, blocks: Vec<Block>, dtype: DType, device: Device) -> Self {
        let mut ends = vec![Vec::new(); program.steps.len()];
        for (number, module) in program.modules.iter().enumerate() {
            ends[module.output].push(number);
        }
        let mut last: Vec<usize> = (0..program.steps.len()).collect();
        for (at, step) in program.steps.iter().enumerate() {
            step.inputs.iter().filter_map(|wire| wire.step()).for_each(|before| last[before] = at);
        }
        let mut spent = vec![Vec::new(); program.steps.len()];
        for (step, &at) in last.iter().enumerate() {
            if program.outputs.iter().all(|output| output.step != step) {
                spent[at].push(step);
            }
        }
        Self(Arc::new(Inner { program, blocks, ends, spent, dtype, device }))
    }

    /// A model of a smaller program, with the weights of this one; nothing if it lacks some.
    pub fn part(&self, program: Program) -> Option<Self> {
        let Inner { program: whole, blocks, dtype, device, .. } = &*self.0;
        let names = |program: &Program, step: &Step| -> Vec<String> {
            step.op.tensors().iter().map(|&(_, id)| program.tensors[id].name.clone()).collect()
        };
        let same = |step: &Step, other: &Step| {
            std::mem::discriminant(&step.op) == std::mem::discriminant(&other.op)
                && step.module == other.module
                && names(&program, step) == names(whole, other)
        };
        // What comes earlier there comes earlier here.
        let mut steps = whole.steps.iter().zip(blocks);
        let mut block = |step: &Step| {
            let (_, block) = steps.find(|(other, _)| same(step, other))?;
            Some(block.clone())
        };
        let blocks = program.steps.iter().map(&mut block).collect::<Option<_>>()?;
        Some(Self::of(program, blocks, *dtype, device.clone()))
    }

    /// What it is made of.
    pub fn program(&self) -> &Program {
        &self.0.program
    }

    /// The dtype of its weights and outputs: `f16`, `bf16`, `f32` or `f64`.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Runs the model on inputs by name: integers of any dtype, on any device, with the axes of
    /// [`Program::axes`]. All but the first may be left out: then nothing is masked, and every
    /// other id is 0. Values are checked, which reads them back from a device that is not the CPU.
    ///
    /// A `visitor` is shown the output of every module, in the order of [`Program::module_paths`]:
    /// the tensors that a PyTorch forward hook on the module of that name is given (the first one,
    /// where a module gives several).
    ///
    /// In a row whose mask is 0 throughout, every token attends to all of them equally, as in
    /// `transformers`.
    ///
    /// # Errors
    /// If an input has the wrong rank, shape, dtype, or a value outside its range, the sequence is
    /// longer than the model has positions for, or the device fails; and whatever `visitor`
    /// returns, which ends the pass.
    pub fn run(
        &self,
        given: &[(&str, &Tensor)],
        mut visitor: Option<&mut Visitor<'_>>,
    ) -> std::result::Result<Vec<(&'static str, Tensor)>, ModelError> {
        let Inner { program, blocks, ends, spent, device, .. } = &*self.0;
        let inputs = inputs::check(program, device, given)?;
        let mut values: Vec<Value> = Vec::with_capacity(blocks.len());
        for (at, (step, block)) in program.steps.iter().zip(blocks).enumerate() {
            let pass = Pass { step, inputs: &inputs, values: &values, dtype: self.0.dtype };
            let value = pass.compute(block)?;
            if let (Some(visitor), Value::Tensor(tensor)) = (&mut visitor, &value) {
                for &module in &ends[at] {
                    visitor(&program.modules[module].path, tensor)?;
                }
            }
            values.push(value);
            spent[at].iter().for_each(|&step| values[step] = Value::None);
        }
        let outputs = program.outputs.iter().filter_map(|output| match &values[output.step] {
            Value::Tensor(tensor) => Some((output.name, tensor.clone())),
            _ => None,
        });
        Ok(outputs.collect())
    }

    /// The `weight` or `bias` of a step: `[out, in]` and `[out]` of a linear one, `[width]` of a
    /// layer norm, the table of a relative bias. Nothing of other steps, and by other names.
    pub fn parameter(&self, step: usize, name: &str) -> Option<&Tensor> {
        match (self.0.blocks.get(step)?, name) {
            (Block::Linear(linear), "weight") => Some(linear.weight()),
            (Block::Linear(linear), "bias") => linear.bias(),
            (Block::LayerNorm(norm), "weight") => Some(norm.weight()),
            (Block::LayerNorm(norm), "bias") if self.program().parameter(step, name).is_some() => {
                Some(norm.bias())
            }
            (Block::RelativeBias(table), "weight") => Some(table),
            _ => None,
        }
    }

    /// What some steps of the program give, by their numbers, where others give what is said here:
    /// nothing that only those depend on is computed. Inputs are as in [`Model::run`].
    ///
    /// # Errors
    /// As [`Model::run`]; and if there is no such step, or it gives no tensor, as a mask does.
    pub fn steps(
        &self,
        given: &[(&str, &Tensor)],
        instead: &HashMap<usize, Tensor>,
        wanted: &[usize],
    ) -> std::result::Result<Vec<Tensor>, ModelError> {
        let Inner { program, blocks, device, .. } = &*self.0;
        let inputs = inputs::check(program, device, given)?;
        let mut needed = vec![false; blocks.len()];
        for &step in wanted {
            match needed.get_mut(step) {
                Some(needed) => *needed = true,
                None => Err(candle_core::Error::msg(format!("the program has no step {step}")))?,
            }
        }
        for (at, step) in program.steps.iter().enumerate().rev() {
            if needed[at] && !instead.contains_key(&at) {
                step.inputs.iter().filter_map(|wire| wire.step()).for_each(|before| needed[before] = true);
            }
        }
        let mut values: Vec<Value> = Vec::with_capacity(blocks.len());
        for (at, (step, block)) in program.steps.iter().zip(blocks).enumerate() {
            let pass = Pass { step, inputs: &inputs, values: &values, dtype: self.0.dtype };
            let value = match instead.get(&at) {
                Some(tensor) => Value::Tensor(tensor.clone()),
                None if needed[at] => pass.compute(block)?,
                None => Value::None,
            };
            values.push(value);
        }
        let tensor = |&step: &usize| match &values[step] {
            Value::Tensor(tensor) => Ok(tensor.clone()),
            _ => candle_core::bail!("step {step} of the program gives no tensor"),
        };
        Ok(wanted.iter().map(tensor).collect::<Result<_>>()?)
    }
}

/// The positions of tokens `[rows, sequence]` where those whose id is `padding` are not counted:
/// these have its number, and the others are counted from the next one on, row by row.
fn places(ids: &Tensor, padding: usize) -> Result<Tensor> {
    // Numbers of tokens are exact in f32 up to 2²⁴; a table has fewer rows.
    let counts = ids.ne(padding as u32)?.to_dtype(DType::F32)?;
    let places = (counts.cumsum(D::Minus1)? * &counts)?;
    (places + padding as f64)?.to_dtype(DType::U32)
}

/// Reads tensors.
struct Reader<'a, 'b> {
    program: &'a Program,
    base: &'a VarBuilder<'b>,
    head: &'a VarBuilder<'b>,
    /// The tables that ids are looked up in. Any other tensor is one block's alone, and that of its
    /// other runs.
    tables: HashMap<TensorId, Tensor>,
    /// The blocks that were read, by their tensors.
    read: HashMap<Vec<TensorId>, (Op, Block)>,
}

impl Reader<'_, '_> {
    fn block(&mut self, op: &Op) -> Result<Block> {
        let tensors: Vec<TensorId> = op.tensors().into_iter().map(|(_, id)| id).collect();
        if let Some((_, block)) = self.read.get(&tensors).filter(|(other, _)| other == op) {
            return Ok(block.clone());
        }
        let block = self.new_block(op)?;
        if !tensors.is_empty() {
            self.read.insert(tensors, (op.clone(), block.clone()));
        }
        Ok(block)
    }

    fn new_block(&mut self, op: &Op) -> Result<Block> {
        /// As candle-nn begins a table that is to be trained.
        const TABLE: Init = Init::Randn { mean: 0., stdev: 1. };
        Ok(match *op {
            Op::Embedding { table } => {
                let rows = self.tensor(table, TABLE)?;
                let width = rows.dim(1)?;
                // What decodes may be tied to it.
                self.tables.insert(table, rows.clone());
                Block::Embedding(Embedding::new(rows, width))
            }
            Op::Positions { table, .. } => Block::Positions(self.tensor(table, TABLE)?),
            Op::RelativeBias { table, .. } => Block::RelativeBias(self.tensor(table, TABLE)?),
            Op::Linear { weight, bias } => {
                let is_tied = self.tables.contains_key(&weight);
                let weight = self.tensor(weight, candle_nn::init::DEFAULT_KAIMING_NORMAL)?;
                // In memory it lies as the product reads it, `[in, out]`: for few rows that takes a
                // seventh off the product.
                let weight = if is_tied { weight } else { weight.t()?.contiguous()?.t()? };
                let bias = bias.map(|bias| self.tensor(bias, Init::Const(0.))).transpose()?;
                Block::Linear(Linear::new(&weight, bias.as_ref())?)
            }
            Op::LayerNorm { weight, bias, eps } => {
                let weight = self.tensor(weight, Init::Const(1.))?;
                let bias = match bias {
                    Some(bias) => self.tensor(bias, Init::Const(0.))?,
                    None => weight.zeros_like()?,
                };
                Block::LayerNorm(LayerNorm::new(&weight, &bias, eps)?)
            }
            _ => Block::Formula,
        })
    }

    fn tensor(&mut self, id: TensorId, init: Init) -> Result<Tensor> {
        if let Some(table) = self.tables.get(&id) {
            return Ok(table.clone());
        }
        let tensor = &self.program.tensors[id];
        let vb = if tensor.in_base { self.base } else { self.head };
        let old = tensor
            .old_name
            .as_ref()
            .filter(|old| !vb.contains_tensor(&tensor.name) && vb.contains_tensor(old));
        vb.get_with_hints(tensor.shape.as_slice(), old.unwrap_or(&tensor.name), init)
    }
}

/// A step of one run.
struct Pass<'a> {
    step: &'a Step,
    inputs: &'a [Option<Tensor>],
    values: &'a [Value],
    dtype: DType,
}

impl Pass<'_> {
    fn compute(&self, block: &Block) -> Result<Value> {
        Ok(Value::Tensor(match block {
            Block::Embedding(table) => table.forward(self.tensor(0)?)?,
            Block::Positions(table) => match self.step.op {
                Op::Positions { padding: Some(padding), .. } => {
                    let places = places(self.tensor(0)?, padding)?;
                    let width = table.dim(1)?;
                    Embedding::new(table.clone(), width).forward(&places)?
                }
                // 0, 1, 2, …, the same for every row: [1, sequence, width].
                _ => table.narrow(0, 0, self.given()?.dim(D::Minus1)?)?.unsqueeze(0)?,
            },
            Block::RelativeBias(table) => self.relative_bias(table)?,
            Block::Linear(linear) => linear.forward(self.tensor(0)?)?,
            Block::LayerNorm(norm) => norm.forward(self.tensor(0)?)?,
            Block::Formula => return self.formula(),
        }))
    }

    fn formula(&self) -> Result<Value> {
        Ok(Value::Tensor(match self.step.op {
            Op::Rows => match self.optional(0) {
                Some(x) => x.reshape(((), x.dim(D::Minus1)?))?,
                None => return Ok(Value::None),
            },
            Op::Mask { window } => {
                let mask = self.optional(0).map(|mask| mask.to_dtype(DType::U8)).transpose()?;
                let ids = self.given()?;
                return Ok(Value::Mask(AttentionMask::new(mask.as_ref(), ids, window, self.dtype)?));
            }
            Op::Unrows => {
                let axes = self.given()?.dims();
                self.tensor(0)?.reshape(&axes[..axes.len().saturating_sub(1)])?
            }
            Op::Attention { heads } => {
                let parts = [self.tensor(0)?, self.tensor(1)?, self.tensor(2)?];
                attention(parts, self.mask(3), self.optional(4), heads)?
            }
            Op::Angles { rotation, sines } => {
                let ids = self.given()?;
                rotary::angles(&rotation, sines, ids.dim(D::Minus1)?, self.dtype, ids.device())?
            }
            Op::Rotate { heads, neighbours } => {
                let angles = [self.tensor(1)?, self.tensor(2)?];
                rotary::rotate(self.tensor(0)?, angles, (heads, neighbours))?
            }
            Op::Activation { function, .. } => function.forward(self.tensor(0)?)?,
            Op::Product => {
                let mut product = self.tensor(0)?.clone();
                for factor in 1..self.step.inputs.len() {
                    product = (product * self.tensor(factor)?)?;
                }
                product
            }
            Op::Part { at, of } => {
                let x = self.tensor(0)?;
                let width = x.dim(D::Minus1)? / of.max(1);
                x.narrow(D::Minus1, at * width, width)?.contiguous()?
            }
            Op::Mean => pool::mean(self.tensor(0)?, self.optional(1))?,
            Op::FirstShown => pool::first_shown(self.tensor(0)?, self.optional(1))?,
            Op::Sum => {
                let mut sum = self.tensor(0)?.clone();
                for part in 1..self.step.inputs.len() {
                    sum = sum.broadcast_add(self.tensor(part)?)?;
                }
                sum
            }
            Op::Token { at } => self.tensor(0)?.i((.., at))?,
            Op::Feature { at } => {
                self.tensor(0)?.narrow(D::Minus1, at, 1)?.squeeze(D::Minus1)?.contiguous()?
            }
            Op::Embedding { .. }
            | Op::Positions { .. }
            | Op::RelativeBias { .. }
            | Op::Linear { .. }
            | Op::LayerNorm { .. } => {
                candle_core::bail!("a block in '{}' has no weights", self.step.module)
            }
        }))
    }

    /// `[sequence, sequence, heads]`.
    fn relative_bias(&self, table: &Tensor) -> Result<Tensor> {
        let Op::RelativeBias { buckets, farthest, .. } = self.step.op else {
            candle_core::bail!("a block in '{}' has no buckets", self.step.module)
        };
        let length = self.given()?.dim(D::Minus1)?;
        let pairs = (0..length).flat_map(|asks| (0..length).map(move |asked| asked as i64 - asks as i64));
        let rows: Vec<u32> = pairs.map(|distance| bucket(distance, buckets, farthest) as u32).collect();
        let rows = Tensor::from_vec(rows, (length, length), table.device())?;
        Embedding::new(table.clone(), table.dim(1)?).forward(&rows)
    }

    fn optional(&self, input: usize) -> Option<&Tensor> {
        match self.step.inputs.get(input)? {
            Wire::Input(input) => self.inputs.get(*input)?.as_ref(),
            Wire::Step(step) => match self.values.get(*step)? {
                Value::Tensor(tensor) => Some(tensor),
                _ => None,
            },
        }
    }

    /// The first input of the model.
    fn given(&self) -> Result<&Tensor> {
        match self.inputs.first() {
            Some(Some(tensor)) => Ok(tensor),
            _ => candle_core::bail!("the model has no first input"),
        }
    }

    fn tensor(&self, input: usize) -> Result<&Tensor> {
        match self.optional(input) {
            Some(tensor) => Ok(tensor),
            None => candle_core::bail!("a block in '{}' is fed no tensor", self.step.module),
        }
    }

    fn mask(&self, input: usize) -> Option<&AttentionMask> {
        match self.values.get(self.step.inputs.get(input)?.step()?)? {
            Value::Mask(mask) => mask.as_ref(),
            _ => None,
        }
    }
}
