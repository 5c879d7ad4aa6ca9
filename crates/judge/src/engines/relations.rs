//! What must not change a model's answer, whatever the answer is: padding, the neighbours in a batch, their order, what stands under a mask, how
//! many threads there are.
//!
//! These relations need no reference. They are judged on one engine alone, so that they also tell which of two sides is at fault.

use engine::{Dim, Engine, EngineError, NamedValues, Value, ValueError, ValueSpec};
pub use report::Relation;

use crate::ParityError;
use crate::compare::{Distance, compare_within};
use crate::inputs::grid::Grid;
use crate::inputs::{Case, FixedShape, fit_inputs};
use crate::proof::Budget;

/// How many tokens of padding are added: not a divisor of usual lengths, so that no size stays round.
const PADDING: usize = 3;

/// How many threads are tried in the place of as many as there are: one, and so many that work is not shared out evenly.
const THREADS: [usize; 2] = [1, 3];

/// Outputs of rank 2 that have a value for each row, where a shape cannot tell.
const BY_ROW: [&str; 2] = ["pooler_output", "sentence_embedding"];

/// Two outputs of rank 2 that have a value for each token and not for each row, where a static shape cannot tell.
const BY_TOKEN: [&str; 2] = ["start_logits", "end_logits"];

const NO_MASK: &str = "the graph takes no attention_mask";
const ONE_ROW: &str = "there is one row";

/// How far an output may be from what it was.
#[derive(Clone, Copy)]
pub enum Bound<'a> {
    /// So many times the larger of 1 and the largest |value| of the unchanged output.
    Relative(f64),
    /// What rounding explains, for each output; one that has no budget is not judged.
    Budget(&'a Budget),
}

/// [`judge`] by what rounding explains, for a graph that may have been converted on purpose: what
/// only the conversion explains is told, and is no violation.
///
/// # Errors
/// As [`judge`].
pub fn judge_converted(
    engine: &dyn Engine,
    side: &str,
    case: &Case,
    budget: &Budget,
) -> Result<Vec<Relation>, ParityError> {
    let Some(unconverted) = budget.unconverted() else {
        return judge(engine, side, case, Bound::Budget(budget));
    };
    let mut relations = judge(engine, side, case, Bound::Budget(&unconverted))?;
    if relations.iter().any(Relation::is_violated) {
        let explained = judge(engine, side, case, Bound::Budget(budget))?;
        for (relation, explained) in relations.iter_mut().zip(explained) {
            relation.converted = relation.is_violated() && explained.holds;
        }
    }
    Ok(relations)
}

impl Bound<'_> {
    /// For each of so many features, or one for all.
    fn of(self, output: &str, largest: f64, features: usize) -> Option<Vec<f64>> {
        match self {
            Bound::Relative(factor) => Some(vec![factor * largest.max(1.0)]),
            Bound::Budget(budget) => match budget.of(output)? {
                each if each.len() == features => Some(each.to_vec()),
                _ => Some(vec![budget.largest(output)?]),
            },
        }
    }
}

/// Judges all relations on one input: each changed input's outputs must be within `bound` of the unchanged one's, output by output, at the
/// positions that decide. Of two runs alike every bit must be the same. `side` is what the engine is called in the result.
///
/// Relations that the input or the graph's declared shapes leave no room for come out as skipped.
///
/// # Errors
/// If the input does not fit the engine, or the engine fails on it as it is.
pub fn judge(
    engine: &dyn Engine,
    side: &str,
    case: &Case,
    bound: Bound,
) -> Result<Vec<Relation>, ParityError> {
    let Some(grid) = Grid::of(&with_mask(&case.inputs)?).filter(|grid| grid.input("input_ids").is_some())
    else {
        let reason = "its inputs are not all int64 of one shape [batch, sequence]";
        return Ok(NAMES.map(|name| Outcome::Skipped(reason.into()).relation(name, side, case)).into());
    };
    let judge = Judge { engine, grid: &grid, before: run(engine, &grid, None)?, bound };
    let relations = NAMES.map(|name| {
        let outcome = match name {
            RUN_TWICE => judge.run_twice(),
            THREAD_COUNT => judge.threads(),
            PADDED => judge.padding(),
            CONTENT => judge.content_of_padding(),
            NEIGHBOURS => judge.neighbours(),
            _ => judge.order(),
        };
        outcome.map(|outcome| outcome.relation(name, side, case))
    });
    relations.into_iter().collect()
}

const RUN_TWICE: &str = "run twice";
const THREAD_COUNT: &str = "threads";
const PADDED: &str = "padding";
const CONTENT: &str = "content of padding";
const NEIGHBOURS: &str = "batch neighbours";
const ORDER: &str = "order of rows";
const NAMES: [&str; 6] = [RUN_TWICE, THREAD_COUNT, PADDED, CONTENT, NEIGHBOURS, ORDER];

/// What a relation comes to.
enum Outcome {
    Skipped(String),
    Failed(String),
    Judged(Distance),
}

impl Outcome {
    fn relation(self, name: &'static str, side: &str, case: &Case) -> Relation {
        let mut relation = Relation {
            name: name.into(),
            side: side.into(),
            input: case.name.clone(),
            max_abs: None,
            holds: false,
            converted: false,
            skipped: None,
            failure: None,
        };
        match self {
            Outcome::Skipped(reason) => relation.skipped = Some(reason),
            Outcome::Failed(reason) => relation.failure = Some(reason),
            Outcome::Judged(distance) => {
                relation.max_abs = distance.max_abs();
                relation.holds = distance.max_abs().is_some() && distance.beyond() == 0;
            }
        }
        relation
    }
}

/// The inputs, with the mask of ones that an absent one stands for.
fn with_mask(inputs: &NamedValues) -> Result<NamedValues, ValueError> {
    let mut inputs = inputs.clone();
    if let (Some(ids), false) = (inputs.get("input_ids"), inputs.contains("attention_mask")) {
        let ones = Value::new(ids.shape(), vec![1i64; ids.len()])?;
        inputs.insert("attention_mask", ones);
    }
    Ok(inputs)
}

/// Runs the engine, with so many threads, or as many as there are.
fn run(engine: &dyn Engine, grid: &Grid, threads: Option<usize>) -> Result<NamedValues, ParityError> {
    let inputs = fit_inputs(&grid.to_inputs()?, engine.inputs())?;
    let Some(threads) = threads else { return Ok(engine.run(&inputs)?) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| EngineError::Backend(error.into()))?;
    Ok(pool.install(|| engine.run(&inputs))?)
}

/// An engine, an input, and what came of it.
struct Judge<'a> {
    engine: &'a dyn Engine,
    grid: &'a Grid,
    before: NamedValues,
    bound: Bound<'a>,
}

/// A changed input, and for each row of the unchanged one where it stands now.
struct Changed {
    grid: Grid,
    row_now: Vec<Option<usize>>,
    threads: Option<usize>,
}

impl Judge<'_> {
    fn run_twice(&self) -> Result<Outcome, ParityError> {
        let same = Judge { bound: Bound::Relative(0.0), before: self.before.clone(), ..*self };
        same.compare([self.in_place(self.grid.clone())])
    }

    /// The engine's kernels share out their work among rayon's threads.
    fn threads(&self) -> Result<Outcome, ParityError> {
        self.compare(
            THREADS.map(|count| Changed { threads: Some(count), ..self.in_place(self.grid.clone()) }),
        )
    }

    fn padding(&self) -> Result<Outcome, ParityError> {
        if let Some(sequence) = FixedShape::of(self.engine.inputs()).sequence {
            return Ok(Outcome::Skipped(format!("the graph's sequence is fixed at {sequence}")));
        }
        if !self.takes_mask() {
            return Ok(Outcome::Skipped(NO_MASK.into()));
        }
        // Id 0, type 0, mask 0.
        Ok(match self.compare([self.in_place(self.grid.padded(PADDING, |_| 0))])? {
            // An engine does not say how many tokens it takes, so this need not be a fault. A length that was frozen shows on the default
            // inputs themselves.
            Outcome::Failed(reason) => {
                Outcome::Skipped(format!("{PADDING} more tokens are not taken: {reason}"))
            }
            outcome => outcome,
        })
    }

    fn content_of_padding(&self) -> Result<Outcome, ParityError> {
        let (Some(ids), Some(mask), true) =
            (self.grid.input("input_ids"), self.grid.input("attention_mask"), self.takes_mask())
        else {
            return Ok(Outcome::Skipped(NO_MASK.into()));
        };
        // Every vocabulary has 0; of others only those of the input are known.
        let largest = self.grid.rows.iter().flat_map(|row| row[ids].iter().copied()).max().unwrap_or(0);
        let mut changed = self.grid.clone();
        for row in &mut changed.rows {
            // Position 0 stays: the pooler reads it, masked or not.
            let masked: Vec<bool> = row[mask].iter().map(|&bit| bit == 0).collect();
            for (id, _) in row[ids].iter_mut().zip(masked).skip(1).filter(|(_, masked)| *masked) {
                *id = if *id == 0 { largest } else { 0 };
            }
        }
        if changed == *self.grid {
            return Ok(Outcome::Skipped("no masked position has an id that could be changed".into()));
        }
        self.compare([self.in_place(changed)])
    }

    /// Each row alone.
    fn neighbours(&self) -> Result<Outcome, ParityError> {
        if self.grid.batch() == 1 {
            return Ok(Outcome::Skipped(ONE_ROW.into()));
        }
        if let Some(batch) = FixedShape::of(self.engine.inputs()).batch {
            return Ok(Outcome::Skipped(format!("the graph's batch is fixed at {batch}")));
        }
        self.compare((0..self.grid.batch()).map(|alone| Changed {
            grid: self.grid.with_rows(vec![self.grid.rows[alone].clone()]),
            row_now: (0..self.grid.batch()).map(|row| (row == alone).then_some(0)).collect(),
            threads: None,
        }))
    }

    /// The rows moved on by one: none keeps its place.
    fn order(&self) -> Result<Outcome, ParityError> {
        let batch = self.grid.batch();
        if batch == 1 {
            return Ok(Outcome::Skipped(ONE_ROW.into()));
        }
        let mut rows = self.grid.rows.clone();
        rows.rotate_right(1);
        let row_now = (0..batch).map(|row| Some((row + 1) % batch)).collect();
        self.compare([Changed { grid: self.grid.with_rows(rows), row_now, threads: None }])
    }

    fn takes_mask(&self) -> bool {
        self.engine.inputs().iter().any(|spec| spec.name == "attention_mask")
    }

    /// Changed tokens in rows that stay where they are.
    fn in_place(&self, grid: Grid) -> Changed {
        Changed { row_now: (0..grid.batch()).map(Some).collect(), grid, threads: None }
    }

    /// Runs the changed inputs, and compares every deciding position with what it was.
    fn compare(&self, changes: impl IntoIterator<Item = Changed>) -> Result<Outcome, ParityError> {
        let mut total = Distance::default();
        for Changed { grid, row_now, threads } in changes {
            let after = match run(self.engine, &grid, threads) {
                Ok(after) => after,
                Err(ParityError::Engine(error @ (EngineError::Node { .. } | EngineError::BadInput(_)))) => {
                    return Ok(Outcome::Failed(error.to_string()));
                }
                Err(error) => return Err(error),
            };
            for spec in self.engine.outputs() {
                let (Some(before), Some(after)) = (self.before.get(&spec.name), after.get(&spec.name)) else {
                    continue;
                };
                let layout = match Layout::of(spec, before, self.grid) {
                    Some(layout) => layout,
                    // A value of the batch as a whole, of which these relations say nothing.
                    None => continue,
                };
                let expected = layout.shape(before.shape(), &grid);
                if after.shape() != expected {
                    return Ok(Outcome::Failed(format!(
                        "output '{}' has shape {:?} instead of {expected:?}",
                        spec.name,
                        after.shape()
                    )));
                }
                total.merge(self.distance(&spec.name, layout, [before, after], &grid, &row_now)?);
            }
        }
        if total.compared() == 0 {
            return Ok(Outcome::Skipped("no position decides".into()));
        }
        Ok(Outcome::Judged(total))
    }

    fn distance(
        &self,
        output: &str,
        layout: Layout,
        [before, after]: [&Value; 2],
        changed: &Grid,
        row_now: &[Option<usize>],
    ) -> Result<Distance, ParityError> {
        // How many tokens there are, how many values each has, and how often the tokens are
        // counted.
        let (tokens, tokens_now) = match layout {
            Layout::Rows => (1, 1),
            Layout::Tokens | Layout::Pairs => (self.grid.sequence(), changed.sequence()),
        };
        let times = if layout == Layout::Pairs { before.shape()[1] } else { 1 };
        let [width, width_now] =
            [(before, self.grid.batch() * tokens), (after, changed.batch() * tokens_now)]
                .map(|(value, positions)| value.len() / (positions * times).max(1));
        let (before, after) = (before.to_f64(), after.to_f64());
        let (mut was, mut is) = (Vec::new(), Vec::new());
        let mut largest: f64 = 0.0;
        for (row, now) in row_now.iter().enumerate() {
            let places = (0..times).flat_map(|time| (0..tokens).map(move |at| (time, at)));
            for (time, at) in places.filter(|&(_, at)| self.decides(layout, row, at)) {
                let unchanged = &before[((row * times + time) * tokens + at) * width..][..width];
                largest = unchanged.iter().fold(largest, |largest, x| largest.max(x.abs()));
                if let Some(now) = now {
                    let start = ((now * times + time) * tokens_now + at) * width_now;
                    was.extend_from_slice(unchanged);
                    // Of whom a token attends to, those that are new stand behind.
                    is.extend_from_slice(&after[start..][..width]);
                }
            }
        }
        let [was, is] =
            [was, is].map(|elements| Value::new([elements.len() / width.max(1), width], elements));
        let Some(bound) = self.bound.of(output, largest, width) else { return Ok(Distance::default()) };
        match compare_within(&was?, &is?, &[], &bound) {
            Ok(comparison) => Ok(comparison.deciding),
            // Both were made of as many f64.
            Err(_) => Ok(Distance::default()),
        }
    }

    /// Whether a position of an output decides: its token is real, or its row has one.
    fn decides(&self, layout: Layout, row: usize, at: usize) -> bool {
        let Some(mask) = self.grid.input("attention_mask") else { return true };
        let mask = &self.grid.rows[row][mask];
        match layout {
            Layout::Rows => mask.contains(&1),
            Layout::Tokens | Layout::Pairs => mask[at] != 0,
        }
    }
}

/// What an output has values for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `[batch, …]`
    Rows,
    /// `[batch, sequence, …]`
    Tokens,
    /// `[batch, heads, sequence, sequence]`: who attends to whom.
    Pairs,
}

impl Layout {
    /// The layout of an output of this value for that input; nothing if it is not by rows at all.
    fn of(spec: &ValueSpec, value: &Value, grid: &Grid) -> Option<Self> {
        let (&batch, rest) = value.shape().split_first()?;
        if batch != grid.batch() {
            return None;
        }
        if let [_, from, to] = rest
            && [from, to] == [&grid.sequence(); 2]
        {
            return Some(Layout::Pairs);
        }
        let second = spec.shape.as_ref().and_then(|dims| dims.get(1));
        let by_token = match rest {
            // Of two sizes that are the same by chance the declared one tells them apart, or else the name.
            [_] if BY_ROW.contains(&spec.name.as_str()) => false,
            [size] if *size == grid.sequence() => match second {
                Some(Dim::Fixed(_)) => BY_TOKEN.contains(&spec.name.as_str()),
                _ => true,
            },
            [size, _, ..] => *size == grid.sequence(),
            _ => false,
        };
        Some(if by_token { Layout::Tokens } else { Layout::Rows })
    }

    /// The shape of an output on a changed input.
    fn shape(self, before: &[usize], changed: &Grid) -> Vec<usize> {
        let mut shape = before.to_vec();
        shape[0] = changed.batch();
        let tokens = match self {
            Layout::Rows => 0..0,
            Layout::Tokens => 1..2,
            Layout::Pairs => 2..4,
        };
        shape[tokens].fill(changed.sequence());
        shape
    }
}

#[cfg(test)]
mod tests;
