//! From the graph that passes have made to steps with resolved places: what each step reads, where it writes, and which buffers share memory.

use std::collections::HashMap;

use engine::{DType, Value};
use kernels::{KernelError, Kernels};
use onnx_eval::Operation;
use onnx_graph::shape::{Size, volume};

use super::dim::Dim;
use super::ir::{Guard, Ir, Node, Table, ValueId};
use super::ops::{Attention, Embed, Index, Op};
use super::passes::MASKED;
use super::sized::{Sized, SizedInput, SizedStep, SizedWork};
use super::step::{
    AttentionStep, EmbedStep, LinearStep, Lookup, OnnxStep, Source, Step, StepKind, TableRows,
};

/// How many rows a buffer has.
#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    /// One for each token that is computed.
    Tokens,
    /// One for each sequence.
    Sequences,
    /// As the shape says.
    Fixed(Dim),
}

/// A buffer of f32 that values share, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Register {
    pub rows: Rows,
    pub width: usize,
}

/// Where a value is in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// What was given.
    Input(usize),
    Constant(usize),
    Register(usize),
    /// What an operator without a kernel has computed.
    Slot(usize),
    /// What has been computed once for these sizes.
    Sized(usize),
}

/// A value that is handed out.
#[derive(Debug)]
pub struct Output {
    pub name: String,
    pub place: Place,
    /// Known for what is in a register.
    pub shape: Option<Vec<Dim>>,
    pub rows: Option<Rows>,
    pub width: usize,
}

/// A graph ready to run.
pub struct Plan {
    pub steps: Vec<Step>,
    /// What depends on the inputs' sizes alone.
    pub sized: Sized,
    pub registers: Vec<Register>,
    pub slots: usize,
    pub constants: Vec<Value>,
    pub outputs: Vec<Output>,
    pub guards: Vec<(Guard, usize)>,
    /// For each input: its name, and its dimensions.
    pub inputs: Vec<(String, DType, Option<Vec<Dim>>)>,
    pub symbols: usize,
    /// How many sequences there are, and how long each is, if there are embeddings.
    pub batch: Option<[Dim; 2]>,
    /// The input that is the mask of every attention that has one.
    pub mask: Option<usize>,
    /// Whether a key whose mask is 0 has no part in any softmax with one whose mask is 1.
    pub mask_hides: bool,
    /// Whether each sequence can be computed without the others.
    pub separable: bool,
    /// Whether, on top of that, what is padding has no effect on what is not.
    pub packable: bool,
}

/// Makes the plan of a graph. Matrices are packed for the kernels. The other result is why there is
/// none: a node that a pass has made does not fit its kernel, which is a fault of the pass.
pub fn plan(ir: &Ir, kernels: &Kernels) -> Result<Result<Plan, String>, KernelError> {
    let mut planner = Planner::new(ir, kernels);
    let ids = ir.ids();
    let last_reads = last_reads(ir, &ids);
    for &id in &ids {
        let Some(node) = ir.node(id) else { continue };
        if planner.node(node)?.is_none() {
            return Ok(Err(format!("node '{}' fits no kernel as {}", node.label, node.op.name())));
        }
        planner.free(&last_reads, id);
    }
    Ok(Ok(planner.finish()))
}

/// For each value, the last node that reads it. Views are read as long as what they are a view of.
fn last_reads(ir: &Ir, ids: &[usize]) -> HashMap<ValueId, usize> {
    let mut last = HashMap::new();
    for &output in &ir.outputs {
        last.insert(origin(ir, output), usize::MAX);
    }
    for &id in ids {
        for &input in ir.node(id).into_iter().flat_map(|node| node.inputs.iter().flatten()) {
            let entry = last.entry(origin(ir, input)).or_insert(id);
            *entry = (*entry).max(id);
        }
    }
    last
}

/// What a view is a view of.
fn origin(ir: &Ir, value: ValueId) -> ValueId {
    match ir.producer(value) {
        Some((_, Node { op: Op::View, inputs, .. })) => {
            inputs.first().copied().flatten().map_or(value, |source| origin(ir, source))
        }
        _ => value,
    }
}

struct Planner<'a> {
    ir: &'a Ir,
    kernels: &'a Kernels,
    places: HashMap<ValueId, Place>,
    rows: HashMap<ValueId, Rows>,
    /// Registers that no value is in.
    free: Vec<usize>,
    /// Which registers and slots hold which values, views left out.
    held: Vec<(ValueId, Place)>,
    /// Whether some attention has no mask.
    unmasked: bool,
    token_is_first: bool,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(ir: &'a Ir, kernels: &'a Kernels) -> Self {
        let inputs = ir.inputs.iter().map(|&id| {
            let info = &ir.values[id];
            (info.name.clone(), info.dtype.unwrap_or(DType::F32), info.shape.clone())
        });
        let position = |value: ValueId| ir.inputs.iter().position(|&input| input == value).unwrap_or(0);
        let guards = ir.guards.iter().map(|&guard| match guard {
            Guard::AtMost(..) => (guard, 0),
            Guard::Binary(value) => (guard, position(value)),
        });
        let plan = Plan {
            steps: Vec::new(),
            sized: Sized::default(),
            registers: Vec::new(),
            slots: 0,
            constants: Vec::new(),
            outputs: Vec::new(),
            guards: guards.collect(),
            inputs: inputs.collect(),
            symbols: ir.symbols,
            batch: None,
            mask: None,
            mask_hides: true,
            separable: true,
            packable: false,
        };
        let places = ir.inputs.iter().enumerate().map(|(index, &id)| (id, Place::Input(index))).collect();
        Self {
            ir,
            kernels,
            places,
            rows: HashMap::new(),
            free: Vec::new(),
            held: Vec::new(),
            unmasked: false,
            token_is_first: true,
            plan,
        }
    }

    fn place(&mut self, value: ValueId) -> Option<Place> {
        if let Some(&place) = self.places.get(&value) {
            if let Place::Sized(slot) = place {
                self.plan.sized.wanted[slot] = true;
            }
            return Some(place);
        }
        let constant = self.ir.constant(value)?.value()?;
        self.plan.constants.push(constant);
        let place = Place::Constant(self.plan.constants.len() - 1);
        self.places.insert(value, place);
        Some(place)
    }

    fn source(&mut self, value: ValueId) -> Option<Source> {
        Some(Source { place: self.place(value)?, shape: self.ir.shape(value).map(<[Dim]>::to_vec) })
    }

    /// A register for a value of these rows.
    fn register(&mut self, value: ValueId, rows: Rows) -> usize {
        let width = self.ir.width(value).filter(|&width| width > 0).unwrap_or(1);
        let wanted = Register { rows: rows.clone(), width };
        let found = self.free.iter().position(|&free| self.plan.registers[free] == wanted);
        let register = match found {
            Some(place) => self.free.swap_remove(place),
            None => {
                self.plan.registers.push(wanted);
                self.plan.registers.len() - 1
            }
        };
        self.places.insert(value, Place::Register(register));
        self.rows.insert(value, rows);
        self.held.push((value, Place::Register(register)));
        register
    }

    /// Gives back what no node after this one reads.
    fn free(&mut self, last_reads: &HashMap<ValueId, usize>, id: usize) {
        let is_dead = |value: &ValueId| last_reads.get(value).is_none_or(|&last| last <= id);
        for (_, place) in self.held.extract_if(.., |(value, _)| is_dead(value)) {
            match (place, self.plan.steps.last_mut()) {
                (Place::Register(register), _) => self.free.push(register),
                (Place::Slot(slot), Some(step)) => step.dead.push(slot),
                _ => {}
            }
        }
    }

    /// The rows of a node's result: those of its first input, if what it does it does row by row.
    fn rows_like(&mut self, input: ValueId, output: ValueId) -> Rows {
        match self.rows.get(&input) {
            Some(rows @ (Rows::Tokens | Rows::Sequences)) => rows.clone(),
            _ => self.fixed(output),
        }
    }

    /// The rows that the shape says; with them no sequence can be told from the others.
    fn fixed(&mut self, output: ValueId) -> Rows {
        self.plan.separable = false;
        self.as_shaped(output)
    }

    fn as_shaped(&self, output: ValueId) -> Rows {
        let width = Dim::fixed(self.ir.width(output).filter(|&width| width > 0).unwrap_or(1));
        let rows = self.ir.shape(output).and_then(volume).and_then(|all| all.divided(&width));
        Rows::Fixed(rows.unwrap_or(Dim::fixed(0)))
    }

    fn node(&mut self, node: &Node) -> Result<Option<()>, KernelError> {
        if node.outputs.iter().flatten().all(|&output| self.ir.is_sized(output)) {
            return Ok(self.sized(node));
        }
        let kind = match (&node.op, node.input(0), node.outputs.first().copied().flatten()) {
            (Op::View, Some(x), Some(output)) => return Ok(self.view(x, output)),
            (Op::Onnx(operation), ..) => Some(self.onnx(node, operation)),
            (_, Some(x), Some(output)) => self.kernel(node, x, output)?,
            _ => None,
        };
        let step =
            |kind| Step { label: node.label.clone(), op: node.op.name().into(), kind, dead: Vec::new() };
        Ok(kind.map(|kind| self.plan.steps.push(step(kind))))
    }

    fn view(&mut self, x: ValueId, output: ValueId) -> Option<()> {
        let place = self.place(x)?;
        self.places.insert(output, place);
        if let Some(rows) = self.rows.get(&x).cloned() {
            // Other rows than the buffer's: what computes with them cannot tell sequences apart.
            let same = self.ir.width(x) == self.ir.width(output);
            self.rows.insert(output, if same { rows } else { self.as_shaped(output) });
        }
        Some(())
    }

    /// A node that is run once for each of the inputs' sizes.
    fn sized(&mut self, node: &Node) -> Option<()> {
        let inputs = node.inputs.iter().map(|input| match input {
            Some(value) => match self.places.get(value) {
                Some(Place::Sized(slot)) => Some(Some(SizedInput::Slot(*slot))),
                _ => Some(Some(SizedInput::Constant(self.ir.constant(*value)?.value()?))),
            },
            None => Some(None),
        });
        let inputs = inputs.collect::<Option<_>>()?;
        let work = match &node.op {
            Op::Onnx(operation) => SizedWork::Onnx(Box::new(operation.clone()), inputs),
            Op::Sizes(sizes) => {
                let rank = self.ir.shape(node.output()?)?.len();
                SizedWork::Sizes(sizes.clone(), rank)
            }
            _ => return None,
        };
        let outputs = node.outputs.iter().map(|output| {
            output.map(|value| {
                let slot = self.plan.sized.wanted.len();
                self.plan.sized.wanted.push(false);
                self.places.insert(value, Place::Sized(slot));
                (slot, self.ir.shape(value).map(<[Dim]>::to_vec))
            })
        });
        let outputs = outputs.collect();
        let (label, op) = (node.label.clone(), node.op.name().into());
        self.plan.sized.steps.push(SizedStep { label, op, work, outputs });
        Some(())
    }

    fn onnx(&mut self, node: &Node, operation: &Operation) -> StepKind {
        self.plan.separable = false;
        let inputs = node.inputs.iter().map(|input| input.and_then(|value| self.source(value))).collect();
        let mut outputs = Vec::with_capacity(node.outputs.len());
        for output in &node.outputs {
            outputs.push(output.map(|value| {
                let slot = self.plan.slots;
                self.plan.slots += 1;
                self.places.insert(value, Place::Slot(slot));
                self.held.push((value, Place::Slot(slot)));
                (slot, self.ir.shape(value).map(<[Dim]>::to_vec))
            }));
        }
        StepKind::Onnx(Box::new(OnnxStep { operation: operation.clone(), inputs, outputs }))
    }

    fn kernel(&mut self, node: &Node, x: ValueId, output: ValueId) -> Result<Option<StepKind>, KernelError> {
        let Some(place) = self.place(x) else { return Ok(None) };
        // A buffer needs a size, and nothing is gained from kernels over nothing.
        let size = self.ir.shape(output).and_then(volume);
        if size.is_none_or(|size| size.known() == Some(0)) {
            return Ok(None);
        }
        let second = node.input(1);
        if let (Op::Add | Op::Linear(_), Some(other)) = (&node.op, second) {
            let alike = self.rows.get(&other) == self.rows.get(&x) || self.ir.constant(other).is_some();
            self.plan.separable &= alike;
        }
        Ok(Some(match &node.op {
            Op::Add => {
                let Some(other) = second.and_then(|other| self.place(other)) else { return Ok(None) };
                let rows = self.rows_like(x, output);
                StepKind::Add { a: place, b: other, out: self.register(output, rows) }
            }
            Op::Unary(function) => {
                let rows = self.rows_like(x, output);
                StepKind::Unary { function: *function, x: place, out: self.register(output, rows) }
            }
            Op::LayerNorm(norm) => {
                let rows = self.rows_like(x, output);
                StepKind::LayerNorm { norm: norm.clone(), x: place, out: self.register(output, rows) }
            }
            Op::Linear(linear) => {
                let residual = match second {
                    Some(other) => self.place(other),
                    None => None,
                };
                let packed = LinearStep::pack(linear, self.kernels)?;
                let rows = self.rows_like(x, output);
                let out = self.register(output, rows);
                let (bias, activation) = (linear.bias.clone(), linear.activation);
                StepKind::Linear(LinearStep { packed, bias, activation, x: place, residual, out })
            }
            Op::Attention(attention) => return Ok(self.attention(node, attention, x, output)),
            Op::Embed(embed) => return Ok(self.embed(node, embed, output)),
            Op::Gate(gate) => {
                let Some(wide) = self.ir.width(x) else { return Ok(None) };
                let rows = self.rows_like(x, output);
                StepKind::Gate { gate: *gate, wide, x: place, out: self.register(output, rows) }
            }
            Op::Columns(first) => {
                let Some(wide) = self.ir.width(x) else { return Ok(None) };
                let rows = self.rows_like(x, output);
                StepKind::Columns { first: *first, wide, x: place, out: self.register(output, rows) }
            }
            Op::Token(index) => {
                let Some([batch, sequence, _]) = self.ir.shape(x) else { return Ok(None) };
                // A view of the same rows may count them in another way.
                let by_sequence = self.plan.batch == Some([batch.clone(), sequence.clone()]);
                let rows = match self.rows.get(&x) {
                    Some(Rows::Tokens) if by_sequence => Rows::Sequences,
                    _ => self.fixed(output),
                };
                self.token_is_first &= *index == 0;
                StepKind::Token {
                    index: *index,
                    sequence: sequence.clone(),
                    x: place,
                    out: self.register(output, rows),
                }
            }
            Op::Onnx(_) | Op::View | Op::Sizes(_) => return Ok(None),
        }))
    }

    fn attention(
        &mut self,
        node: &Node,
        attention: &Attention,
        x: ValueId,
        output: ValueId,
    ) -> Option<StepKind> {
        let rows = self.rows_like(x, output);
        self.share_batch(&attention.batch, &attention.sequence)?;
        let mask = match &attention.mask {
            Some(table) => Some(self.mask(table)?),
            None => None,
        };
        self.unmasked |= mask.is_none();
        let by_token = |i: usize| node.input(i).is_some_and(|i| self.rows.get(&i) == Some(&Rows::Tokens));
        self.plan.separable &= (0..3).all(by_token);
        let bias = match attention.bias {
            Some(bias) => Some((self.place(node.input(4)?)?, bias)),
            None => None,
        };
        let angles = match attention.is_rotary {
            true => Some([self.place(node.input(5)?)?, self.place(node.input(6)?)?]),
            false => None,
        };
        let places: Vec<Place> = (0..3).filter_map(|i| self.place(node.input(i)?)).collect();
        let widths: Vec<usize> = (0..3).filter_map(|i| self.ir.width(node.input(i)?)).collect();
        let ([pq, pk, pv], [q, k, v]) = (&places[..], &widths[..]) else { return None };
        let sources = [(*pq, *q), (*pk, *k), (*pv, *v)];
        let out = self.register(output, rows);
        let attention = attention.clone();
        let step = AttentionStep { attention, sources, mask, bias, angles, out };
        Some(StepKind::Attention(Box::new(step)))
    }

    fn embed(&mut self, node: &Node, embed: &Embed, output: ValueId) -> Option<StepKind> {
        self.share_batch(&embed.batch, &embed.sequence)?;
        let inputs: Vec<usize> = (0..node.inputs.len())
            .filter_map(|index| match self.places.get(&node.input(index)?) {
                Some(Place::Input(place)) => Some(*place),
                _ => None,
            })
            .collect();
        let lookups = embed.lookups.iter().map(|lookup| {
            let index = match &lookup.index {
                Index::Input(input, casts) => Index::Input(*inputs.get(*input)?, casts.clone()),
                Index::Counted(input, counted) => Index::Counted(*inputs.get(*input)?, *counted),
                other => other.clone(),
            };
            let table = TableRows::new(&lookup.table)?;
            Some(Lookup { name: lookup.name.clone(), table, index, from_the_end: lookup.from_the_end })
        });
        let lookups = lookups.collect::<Option<_>>()?;
        let out = self.register(output, Rows::Tokens);
        Some(StepKind::Embed(EmbedStep { lookups, norm: embed.norm.clone(), out }))
    }

    /// Takes this as the plan's batch; `None` if it has another.
    fn share_batch(&mut self, batch: &Dim, sequence: &Dim) -> Option<()> {
        let batch = [batch.clone(), sequence.clone()];
        (*self.plan.batch.get_or_insert_with(|| batch.clone()) == batch).then_some(())
    }

    /// Which input the mask is, and what it adds. `None` if other attentions have another mask.
    fn mask(&mut self, table: &Table) -> Option<(usize, [f32; 2])> {
        let Some(Place::Input(input)) = self.places.get(&table.mask?.input).copied() else { return None };
        if *self.plan.mask.get_or_insert(input) != input {
            return None;
        }
        let number = |index: usize| table.entries.get(index)?.as_slice::<f32>().ok()?.first().copied();
        let (masked, seen) = (number(0)?, number(1)?);
        self.plan.mask_hides &= masked <= MASKED && seen == 0.0;
        Some((input, [masked, seen]))
    }

    fn finish(mut self) -> Plan {
        for index in 0..self.ir.outputs.len() {
            let value = self.ir.outputs[index];
            let Some(place) = self.place(value) else { continue };
            // A view has the rows of its buffer, one after the other, whatever its own are.
            let own = origin(self.ir, value);
            let rows = self.rows.get(&own).cloned();
            self.plan.separable &= matches!(rows, Some(Rows::Tokens | Rows::Sequences));
            self.plan.outputs.push(Output {
                name: self.ir.values[value].name.clone(),
                place,
                shape: self.ir.shape(value).map(<[Dim]>::to_vec),
                rows,
                width: self.ir.width(own).filter(|&width| width > 0).unwrap_or(1),
            });
        }
        self.plan.separable &= self.plan.batch.is_some();
        self.plan.packable = self.plan.separable
            && self.token_is_first
            && self.plan.mask.is_some()
            && self.plan.mask_hides
            && !self.unmasked;
        self.plan
    }
}
