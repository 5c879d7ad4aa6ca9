//! What the reference gives on the way: the modules' outputs, and two things between them that tell parts of a module apart.

use architecture::{Op, Program, Step};
use candle_blocks::ReferenceEngine;
use engine::{Engine as _, NamedValues, Value};

use crate::ParityError;
use crate::inputs::fit_inputs;

/// A value of the reference that a graph should have, too.
#[derive(Debug, Clone)]
pub(crate) struct Tap {
    /// The step of the program whose output it is.
    pub step: usize,
    /// The module to blame if everything before is right and this is not.
    pub module: String,
    /// What of it this is.
    pub kind: Kind,
    /// Taps of one stage end in one value that everything later depends on.
    pub stage: usize,
    /// The place in the stage; taps of one place do not depend on each other.
    pub place: usize,
    /// `[batch, sequence, width]` or `[batch, width]`.
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
    /// For each position, whether it decides.
    pub decides: Vec<bool>,
    /// The largest |element| that decides, at least 1.
    pub scale: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What it gives.
    Output,
    /// The sum that its LayerNorm is given.
    Sum,
    /// The one token that it is given.
    Token,
}

impl Tap {
    /// The largest and the mean square distance from other elements in the same order, where it decides; infinite if one is not finite.
    pub fn distance(&self, found: &[f64]) -> (f64, f64) {
        let width = self.data.len().checked_div(self.decides.len()).unwrap_or(1).max(1);
        let (mut largest, mut sum, mut count) = (0f64, 0f64, 0usize);
        for (flat, (a, b)) in self.data.iter().zip(found).enumerate() {
            if !self.decides.get(flat / width).copied().unwrap_or(true) {
                continue;
            }
            let difference = (a - b).abs();
            if !difference.is_finite() {
                return (f64::INFINITY, f64::INFINITY);
            }
            largest = largest.max(difference);
            sum += difference * difference;
            count += 1;
        }
        if count == 0 || found.len() != self.data.len() {
            return (f64::INFINITY, f64::INFINITY);
        }
        (largest, sum / count as f64)
    }

    /// Whether these are its elements in the same order, to within `tolerance` where it decides.
    pub fn is(&self, found: impl Iterator<Item = f64>, tolerance: f64) -> bool {
        let width = self.data.len().checked_div(self.decides.len()).unwrap_or(1).max(1);
        let mut decided = false;
        for (flat, (a, b)) in self.data.iter().zip(found).enumerate() {
            if self.decides.get(flat / width).copied().unwrap_or(true) {
                // Also what is not finite is different.
                if (a - b).abs().partial_cmp(&tolerance).is_none_or(std::cmp::Ordering::is_gt) {
                    return false;
                }
                decided = true;
            }
        }
        decided
    }

    /// The mean square of the elements that decide.
    pub fn mean_square(&self) -> f64 {
        self.distance(&vec![0.0; self.data.len()]).1
    }

    /// Whether the stage's later taps depend on it.
    pub fn is_before(&self, other: &Tap) -> bool {
        (self.stage, self.place) < (other.stage, other.place)
    }
}

/// Runs the reference, and gives all modules' outputs by path, and the taps in the order of
/// execution. An output of the reference beside its first one counts only if `has` says so.
pub(crate) fn taps(
    reference: &ReferenceEngine,
    inputs: &NamedValues,
    has: impl Fn(&str) -> bool,
) -> Result<(NamedValues, Vec<Tap>), ParityError> {
    let inputs = fit_inputs(inputs, reference.inputs())?;
    let program = reference.program();
    let names: Vec<&str> = program.module_paths().collect();
    let values = reference.run_for(&inputs, &names)?;
    let outputs = program.outputs.iter().enumerate();
    let outputs = outputs.filter(|(at, output)| *at == 0 || has(output.name)).map(|(_, output)| output.step);
    let order = Order::of(program, &outputs.collect::<Vec<_>>());
    let maker = Maker { program, values: &values, inputs: &inputs };
    let taps = order.0.iter().filter_map(|placed| maker.tap(placed)).collect();
    Ok((values, taps))
}

/// Where a step stands: its stage, and its place there.
struct Placed {
    step: usize,
    stage: usize,
    place: usize,
}

/// The steps that are looked for in a graph, in the order of execution.
struct Order(Vec<Placed>);

impl Order {
    /// A stage ends in a value on which alone all later ones depend, unless what takes it is only
    /// an activation or normalisation of it: exporters fuse those.
    fn of(program: &Program, outputs: &[usize]) -> Self {
        let needed = program.needed(outputs);
        let is_value =
            |step: &usize| !matches!(program.steps[*step].op, Op::Rows | Op::Unrows | Op::Mask { .. });
        let values: Vec<usize> = needed.into_iter().filter(is_value).collect();
        // Angles are made of places alone, for one layer or for all.
        let is_made = |step: &usize| is_value(step) && !matches!(program.steps[*step].op, Op::Angles { .. });
        let fed =
            |step: usize| program.steps[step].inputs.iter().filter_map(|wire| wire.step()).filter(is_made);
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); program.steps.len()];
        for &step in &values {
            fed(step).for_each(|before| users[before].push(step));
        }
        // The last step that depends on the inputs alone, and the last that takes any of the steps
        // so far.
        let sources = values.iter().copied().filter(|step| is_made(step) && fed(*step).next().is_none());
        let last_source = sources.max();
        let (mut last_user, mut stage, mut placed) = (0, 0, Vec::new());
        for &step in &values {
            let is_alone = last_user <= step && last_source.is_none_or(|source| source <= step);
            let is_fused = matches!(
                users[step].as_slice(),
                &[user] if matches!(program.steps[user].op, Op::Activation { .. } | Op::LayerNorm { .. })
            );
            let before = fed(step).filter_map(|before| place_of(program, &placed, stage, before));
            let place = before.max().map_or(0, |last| last + 1);
            if is_tapped(program, step) {
                placed.push(Placed { step, stage, place });
            }
            if is_made(&step) && is_alone && !is_fused && !matches!(program.steps[step].op, Op::Token { .. })
            {
                stage += 1;
            }
            last_user = users[step].iter().copied().fold(last_user, usize::max);
        }
        Self(placed)
    }
}

/// The place in a stage of a step, or of the last that it is made of, if they are in that stage.
fn place_of(program: &Program, placed: &[Placed], stage: usize, step: usize) -> Option<usize> {
    match placed.iter().find(|placed| placed.step == step) {
        Some(placed) => (placed.stage == stage).then_some(placed.place),
        None => {
            let before = program.steps[step].inputs.iter().filter_map(|wire| wire.step());
            before.filter_map(|before| place_of(program, placed, stage, before)).max()
        }
    }
}

/// Whether a block gives what is made of the places of tokens alone, once for all texts.
fn is_of_places(op: &Op) -> bool {
    matches!(op, Op::RelativeBias { .. } | Op::Angles { .. })
}

/// Whether a step's output is that of a module, or tells parts of one apart.
fn is_tapped(program: &Program, step: usize) -> bool {
    program.ending_at(step).next().is_some() || matches!(program.steps[step].op, Op::Sum | Op::Token { .. })
}

struct Maker<'a> {
    program: &'a Program,
    values: &'a NamedValues,
    inputs: &'a NamedValues,
}

impl Maker<'_> {
    fn tap(&self, &Placed { step, stage, place }: &Placed) -> Option<Tap> {
        let kind = match (self.program.ending_at(step).next(), &self.program.steps[step].op) {
            (Some(_), _) => Kind::Output,
            (None, Op::Sum) => Kind::Sum,
            (None, _) => Kind::Token,
        };
        let (shape, data) = self.value(step)?;
        // Places are the same in all texts, whatever is masked.
        let is_of_places = is_of_places(&self.program.steps[step].op);
        let mask = self.inputs.get("attention_mask").and_then(|mask| mask.as_slice::<i64>().ok());
        let positions: usize = shape.iter().take(shape.len().saturating_sub(1)).product();
        let decides: Vec<bool> = match mask.filter(|_| !is_of_places) {
            Some(mask) if shape.len() == 3 => mask.iter().map(|&bit| bit != 0).collect(),
            Some(mask) => {
                let sequence = mask.len().checked_div(positions).unwrap_or(0).max(1);
                mask.chunks(sequence).map(|row| row.contains(&1)).collect()
            }
            None => vec![true; positions],
        };
        let module = self.program.place(step).to_string();
        let mut tap = Tap { step, module, kind, stage, place, shape, data, decides, scale: 1.0 };
        let (largest, _) = tap.distance(&vec![0.0; tap.data.len()]);
        tap.scale = if largest.is_finite() { largest.max(1.0) } else { 1.0 };
        Some(tap)
    }

    /// What a step gives: a module's output, or what follows from others'.
    fn value(&self, step: usize) -> Option<(Vec<usize>, Vec<f64>)> {
        if let Some(module) = self.program.ending_at(step).next() {
            let is_of_places = is_of_places(&self.program.steps[step].op);
            return Some(self.per_row(self.values.get(&module.path)?, is_of_places));
        }
        let Step { op, inputs, .. } = &self.program.steps[step];
        let mut parts = inputs.iter().map(|wire| self.value(wire.step()?));
        let (shape, mut data) = parts.next()??;
        match *op {
            Op::Sum => {
                for part in parts {
                    data.iter_mut().zip(part?.1).for_each(|(sum, x)| *sum += x);
                }
                Some((shape, data))
            }
            Op::Token { at } => {
                let &[batch, sequence, width] = shape.as_slice() else { return None };
                let rows = data.chunks(sequence * width).filter_map(|row| row.chunks(width).nth(at));
                Some((vec![batch, width], rows.flatten().copied().collect()))
            }
            _ => None,
        }
    }

    /// The positions' embeddings are the same for all rows, and given once.
    fn per_row(&self, value: &Value, is_of_places: bool) -> (Vec<usize>, Vec<f64>) {
        let rows = self.inputs.get("input_ids").and_then(|ids| Some(ids.shape().split_last()?.1));
        let batch = rows.map_or(1, |rows| rows.iter().product());
        match value.shape() {
            &[1, sequence, width] if batch > 1 && !is_of_places => {
                (vec![batch, sequence, width], value.to_f64().repeat(batch))
            }
            shape => (shape.to_vec(), value.to_f64()),
        }
    }
}
