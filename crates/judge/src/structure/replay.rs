//! Both sides in f64 on parts of the model: with free values in the place of what comes before, and
//! with every row of every table.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use architecture::{Op, Program};
use candle_core::Tensor;
use engine::{Dim, Engine as _, NamedValues, Value};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::Held;
use super::between::between;
use super::kind::{Atom, Source};
use super::walk::{Runs, Taken};
use crate::compare::{compare, deciding};
use crate::inputs::{common_inputs, fit_inputs};

/// The seed of the free values. ChaCha8 gives the same numbers everywhere.
const SEED: u64 = 0xF4EE;

/// Free values are between one of these and its negative: where functions bend, where they are
/// straight, and beyond whatever a stair might begin at. The larger ones are not for attention,
/// whose masks need not hide anything from scores that no model has.
const FREE: [f64; 3] = [3.0, 40.0, 300.0];

/// Texts and tokens of the runs with free values, where the graph leaves them open: small ones,
/// every mask of four tokens but the one without any, and sizes that nobody counts with.
const SHAPES: [[usize; 2]; 5] = [[1, 1], [2, 3], [15, 4], [3, 11], [1, 23]];

/// The longest text on which tables and masks are run: of a model that takes more, places beyond
/// are not looked at, and so nothing is said of every input.
const LONGEST: usize = 8192;

/// How many texts tables and masks are run on at once: one would not tell texts from places.
const ROWS: usize = 2;

/// What runs.
pub(super) struct Replay<'a> {
    held: &'a Held<'a>,
    /// What was found by each of [`Runs`].
    placeless: RefCell<HashMap<String, bool>>,
    real: RefCell<HashMap<String, Option<bool>>>,
    windows: RefCell<HashMap<String, Option<usize>>>,
    angles: RefCell<HashMap<String, Option<usize>>>,
}

/// Inputs as each side takes them.
struct Inputs {
    common: NamedValues,
    graph: NamedValues,
    given: Vec<(String, Tensor)>,
}

/// What a side has where free values stand.
struct Forced {
    inputs: Inputs,
    /// The values themselves.
    free: HashMap<usize, Tensor>,
    /// What the graph computes at each of them, and at its outputs.
    found: NamedValues,
}

impl Forced {
    /// The free values of these steps.
    fn of(&self, steps: &BTreeSet<usize>) -> Option<HashMap<usize, Tensor>> {
        steps.iter().map(|step| Some((*step, self.free.get(step)?.clone()))).collect()
    }
}

impl Runs for Replay<'_> {
    fn is_placeless(&self, value: &str, atoms: &[Atom]) -> bool {
        if let Some(&known) = self.placeless.borrow().get(value) {
            return known;
        }
        let is = self.places_say_nothing(value, atoms).unwrap_or(false);
        self.placeless.borrow_mut().insert(value.into(), is);
        is
    }

    fn window(&self, value: &str, atoms: &[Atom]) -> Option<usize> {
        if let Some(&known) = self.windows.borrow().get(value) {
            return known;
        }
        let window = self.hides_beyond(value, atoms);
        self.windows.borrow_mut().insert(value.into(), window);
        window
    }

    fn angles(&self, value: &str) -> Option<usize> {
        if let Some(&known) = self.angles.borrow().get(value) {
            return known;
        }
        let step = self.turns_by(value);
        self.angles.borrow_mut().insert(value.into(), step);
        step
    }

    fn is_real(&self, value: &str) -> Option<bool> {
        if let Some(&known) = self.real.borrow().get(value) {
            return known;
        }
        let is = self.tells_padding(value);
        self.real.borrow_mut().insert(value.into(), is);
        is
    }
}

impl<'a> Replay<'a> {
    pub fn new(held: &'a Held<'a>) -> Self {
        Self {
            held,
            placeless: RefCell::default(),
            real: RefCell::default(),
            windows: RefCell::default(),
            angles: RefCell::default(),
        }
    }

    /// The sizes of an input of so many texts of so many tokens, where the graph fixes none.
    fn shape(&self, [rows, tokens]: [usize; 2]) -> Option<Vec<usize>> {
        let ids = self.held.oracle.inputs().iter().find(|spec| spec.name == "input_ids")?;
        let dims = ids.shape.as_deref()?;
        let size = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(size) => *size,
            _ if axis + 1 == dims.len() => tokens,
            _ if axis == 0 => rows,
            _ => 1,
        };
        Some(dims.iter().enumerate().map(size).collect())
    }

    /// Whether a run of another shape is another run.
    fn is_fixed(&self) -> bool {
        let [small, large] = [[1, 2], [2, 3]].map(|shape| self.shape(shape));
        small == large
    }

    /// Inputs of a shape, each element by its row and place.
    fn inputs(&self, shape: &[usize], element: impl Fn(&str, usize, usize) -> i64) -> Option<Inputs> {
        let tokens = *shape.last()?;
        let count: usize = shape.iter().product();
        let mut all = NamedValues::new();
        for spec in self.held.reference.inputs() {
            let elements = (0..count).map(|at| element(&spec.name, at / tokens, at % tokens));
            all.insert(&spec.name, Value::new(shape, elements.collect::<Vec<_>>()).ok()?);
        }
        let common = common_inputs(&all, self.held.reference.inputs(), self.held.oracle.inputs()).ok()?;
        let graph = fit_inputs(&common, self.held.oracle.inputs()).ok()?;
        let device = self.held.reference.model().device();
        let given = common.iter().map(|(name, value)| Some((name.into(), value.to_tensor(device).ok()?)));
        let given = given.collect::<Option<_>>()?;
        Some(Inputs { common, graph, given })
    }

    /// What steps give, made of these.
    fn steps(&self, inputs: &Inputs, free: &HashMap<usize, Tensor>, wanted: &[usize]) -> Option<Vec<Tensor>> {
        let given: Vec<(&str, &Tensor)> =
            inputs.given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        self.held.reference.model().steps(&given, free, wanted).ok()
    }

    fn places_say_nothing(&self, value: &str, atoms: &[Atom]) -> Option<bool> {
        if self.longest() < self.held.reference.program().limits().positions {
            return None;
        }
        let name = |source: Source| match source {
            Source::Input(input) => Some(self.held.oracle.inputs()[input].name.as_str()),
            Source::Place | Source::Padding | Source::Window(_) => None,
        };
        let masks: Vec<(&Atom, &str)> =
            atoms.iter().filter_map(|atom| Some((atom, name(atom.source)?))).collect();
        if masks.iter().any(|(_, name)| *name != "attention_mask") {
            return Some(false);
        }
        let shape = self.shape([ROWS, self.longest()])?;
        let mut seen: HashMap<Vec<bool>, f64> = HashMap::new();
        // Each place with a mask of 1 and of 0, beside others of both.
        for pattern in [[true, true], [false, false], [true, false], [false, true]] {
            let bit = |place: usize| pattern[place % 2];
            let inputs = self.inputs(&shape, |name, _, place| match name {
                "attention_mask" => bit(place).into(),
                _ => 0,
            })?;
            let found = self.held.oracle.run_for(&inputs.graph, &[value]).ok()?.remove(value)?;
            let dims = found.shape().to_vec();
            for (flat, element) in found.to_f64().into_iter().enumerate() {
                let at = |axis: usize| flat / dims[axis + 1..].iter().product::<usize>() % dims[axis];
                let bits = masks.iter().map(|(atom, _)| bit(atom.token.map_or(0, at))).collect();
                if seen.insert(bits, element).is_some_and(|other| other.to_bits() != element.to_bits()) {
                    return Some(false);
                }
            }
        }
        Some(true)
    }

    /// See [`Runs::window`]: every pair of places is run, with a mask of 1 and of 0.
    fn hides_beyond(&self, value: &str, atoms: &[Atom]) -> Option<usize> {
        let (longest, program) = (self.longest(), self.held.reference.program());
        if longest < program.limits().positions {
            return None;
        }
        // Of one text: pairs of places are many.
        let shape = self.shape([1, longest])?;
        // What stands where a token is seen, and where it is hidden.
        let mut windows: HashMap<usize, [Option<u64>; 2]> = HashMap::new();
        windows.extend(program.steps.iter().filter_map(|step| match step.op {
            Op::Mask { window } => Some((window?, [None; 2])),
            _ => None,
        }));
        for turn in 0..2 {
            // That a text has its own mask shows where values are free.
            let bit = |place: usize| !(place + turn).is_multiple_of(2);
            let inputs = self.inputs(&shape, |name, _, place| match name {
                "attention_mask" => bit(place).into(),
                _ => 0,
            })?;
            let found = self.held.oracle.run_for(&inputs.graph, &[value]).ok()?.remove(value)?;
            let dims = found.shape().to_vec();
            let (asks, asked) = (dims.len().checked_sub(2)?, dims.len().checked_sub(1)?);
            let is_mask = |atom: &&Atom| matches!(atom.source, Source::Input(_));
            let mask = atoms.iter().find(is_mask);
            // The mask is of the token that is asked, and the places are of both.
            if atoms.iter().any(|atom| atom.token.is_some_and(|axis| axis < asks))
                || mask.is_some_and(|mask| mask.token.is_some_and(|axis| axis != asked))
            {
                return None;
            }
            let elements = found.to_f64();
            windows.retain(|&window, numbers| {
                let mut is_it = true;
                for (flat, element) in elements.iter().enumerate() {
                    let (i, j) = (flat / dims[asked] % dims[asks], flat % dims[asked]);
                    let is_shown = mask.is_none() || bit(j);
                    let is_hidden = !is_shown || i.abs_diff(j) > window;
                    let number = &mut numbers[usize::from(is_hidden)];
                    is_it &= *number.get_or_insert(element.to_bits()) == element.to_bits();
                }
                is_it
            });
        }
        let is_told = |numbers: &[Option<u64>; 2]| {
            numbers[0].is_some() && numbers[1].is_some() && numbers[0] != numbers[1]
        };
        windows.into_iter().find(|(_, numbers)| is_told(numbers)).map(|(window, _)| window)
    }

    /// See [`Runs::angles`]: every place is run.
    fn turns_by(&self, value: &str) -> Option<usize> {
        let inputs = self.inputs(&self.shape([1, self.longest()])?, |_, _, _| 0)?;
        let found = self.held.oracle.run_for(&inputs.graph, &[value]).ok()?.remove(value)?.to_f64();
        let steps = self.held.reference.program().steps.iter().enumerate();
        let angles = steps.filter(|(_, step)| matches!(step.op, Op::Angles { .. })).map(|(at, _)| at);
        let is_it = |step: &usize| {
            let meant = self.steps(&inputs, &HashMap::new(), &[*step]).and_then(|meant| elements(&meant[0]));
            meant.is_some_and(|meant| is_same(&meant, &found, self.held.tol))
        };
        angles.into_iter().find(is_it)
    }

    /// See [`Runs::is_real`]: every id is run.
    fn tells_padding(&self, value: &str) -> Option<bool> {
        let padding = self.held.reference.program().limits().padding?;
        let mut is = None;
        for inputs in self.texts_of_all_ids()? {
            let found = self.held.oracle.run_for(&inputs.graph, &[value]).ok()?.remove(value)?.to_f64();
            let ids = inputs.common.get("input_ids")?.to_f64();
            if found.len() != ids.len() {
                return None;
            }
            for (id, found) in ids.into_iter().zip(found) {
                let tells = found == f64::from(u8::from(id != padding as f64));
                if *is.get_or_insert(tells) != tells || (found != 0.0 && found != 1.0) {
                    return None;
                }
            }
        }
        is
    }

    /// Texts in which every id, every type and every place occurs.
    fn texts_of_all_ids(&self) -> Option<Vec<Inputs>> {
        let limits = self.held.reference.program().limits();
        let shape = self.shape([ROWS, self.longest()])?;
        let (tokens, length): (usize, usize) = (shape.iter().product(), *shape.last()?);
        let of = |chunk: usize| {
            self.inputs(&shape, |name, row, place| {
                let at = chunk * tokens + row * length + place;
                (match name {
                    "input_ids" => at % limits.vocabulary,
                    "attention_mask" => 1,
                    // The same type is not always at the same place.
                    _ => (at + chunk) % limits.token_types.max(1),
                }) as i64
            })
        };
        (0..limits.vocabulary.div_ceil(tokens)).map(of).collect()
    }

    /// Texts in which every number of tokens stands before one that pads and before one that does
    /// not: each begins with as many that do not as half of what the one before it left, and goes
    /// on with both in turn.
    fn padded_texts(&self, padding: usize) -> Option<Vec<Inputs>> {
        let limits = self.held.reference.program().limits();
        let other = usize::from(padding == 0);
        let shape = self.shape([ROWS, self.longest()])?;
        let length = *shape.last()?;
        let (mut texts, mut head) = (Vec::new(), 0);
        loop {
            let pads = |place: usize| place >= head && (place - head).is_multiple_of(2);
            texts.push(self.inputs(&shape, |name, row, place| match name {
                // In the next text it is the other way round, so that rows are told apart.
                "input_ids" if pads(place + row % 2) => padding as i64,
                "input_ids" => other as i64,
                "attention_mask" => 1,
                _ => ((row + place) % limits.token_types.max(1)) as i64,
            })?);
            if head >= length {
                return Some(texts);
            }
            head += (length - head).div_ceil(2);
        }
    }

    /// The least number that a mask comes to where a token is masked.
    pub fn least(&self, value: &str) -> Option<f64> {
        let shape = self.shape([1, 2])?;
        let inputs = self.inputs(&shape, |name, _, place| match name {
            "attention_mask" => i64::from(place == 0),
            _ => 0,
        })?;
        let found = self.held.oracle.run_for(&inputs.graph, &[value]).ok()?.remove(value)?;
        found.to_f64().into_iter().reduce(f64::min)
    }

    fn longest(&self) -> usize {
        self.held.reference.program().limits().positions.min(LONGEST)
    }

    /// Those values made of the inputs alone that are not what their steps give, for some row of
    /// some table, with the ids of the texts on which that shows.
    pub fn of_inputs(&self, taken: &[&Taken]) -> Option<Vec<(usize, NamedValues)>> {
        let limits = self.held.reference.program().limits();
        if self.longest() < limits.positions {
            return None;
        }
        let steps: Vec<usize> = taken.iter().map(|taken| taken.step).collect();
        let values: Vec<&str> = taken.iter().map(|taken| taken.value.as_str()).collect();
        let mut wrong: Vec<(usize, NamedValues)> = Vec::new();
        let mut texts = self.texts_of_all_ids()?;
        if let Some(padding) = limits.padding {
            texts.extend(self.padded_texts(padding)?);
        }
        for inputs in texts {
            let found = self.held.oracle.run_for(&inputs.graph, &values).ok()?;
            let meant = self.steps(&inputs, &HashMap::new(), &steps)?;
            for ((at, value), meant) in values.iter().enumerate().zip(&meant) {
                let found = found.get(value)?.to_f64();
                if wrong.iter().all(|(other, _)| *other != at)
                    && !is_same(&elements(meant)?, &found, self.held.tol)
                {
                    wrong.push((at, inputs.common.clone()));
                }
            }
        }
        Some(wrong)
    }

    /// The shapes that are run with free values.
    fn shapes(&self) -> Vec<Vec<usize>> {
        let count = if self.is_fixed() { 1 } else { SHAPES.len() };
        let longest = self.longest();
        let fitting = |&[rows, tokens]: &[usize; 2]| self.shape([rows, tokens.min(longest)]);
        SHAPES.iter().take(count).filter_map(fitting).collect()
    }

    /// Runs the graph with free values at all that was taken.
    fn forced(
        &self,
        shape: &[usize],
        turn: usize,
        free: f64,
        taken: &[Taken],
        idle: &[String],
    ) -> Option<Forced> {
        let limits = self.held.reference.program().limits();
        let mut rng = ChaCha8Rng::seed_from_u64(SEED + turn as u64);
        let tokens = *shape.last()?;
        let inputs = self.inputs(shape, |name, row, place| match name {
            "input_ids" => (17 * row + 5 * place + turn) as i64 % limits.vocabulary as i64,
            "attention_mask" => i64::from(is_real(row + turn, place, tokens)),
            _ => (row + place) as i64 % limits.token_types.max(1) as i64,
        })?;
        let names: Vec<&str> = taken.iter().map(|taken| taken.value.as_str()).collect();
        let idle: Vec<&str> = idle.iter().map(String::as_str).collect();
        let plain = self.held.oracle.run_for(&inputs.graph, &[&names[..], &idle].concat()).ok()?;
        let mut steps: Vec<usize> = taken.iter().map(|taken| taken.step).collect();
        steps.sort_unstable();
        steps.dedup();
        let mut random =
            |count: usize| -> Vec<f64> { (0..count).map(|_| rng.random_range(-free..free)).collect() };
        let mut values = HashMap::new();
        for (&step, tensor) in steps.iter().zip(self.steps(&inputs, &HashMap::new(), &steps)?) {
            let numbers = random(tensor.elem_count());
            values.insert(step, Tensor::from_vec(numbers, tensor.dims(), tensor.device()).ok()?);
        }
        let mut substitutes = NamedValues::new();
        for Taken { value, step, .. } in taken {
            let shape = plain.get(value)?.shape();
            let numbers = elements(values.get(step)?)?;
            let count: usize = shape.iter().product();
            // Positions are the same for all rows.
            let times = count.checked_div(numbers.len()).filter(|times| times * numbers.len() == count)?;
            substitutes.insert(value, Value::new(shape, numbers.repeat(times)).ok()?);
        }
        for value in idle {
            let shape = plain.get(value)?.shape();
            substitutes.insert(value, Value::new(shape, random(shape.iter().product())).ok()?);
        }
        let outputs: Vec<&str> = self.held.oracle.outputs().iter().map(|spec| spec.name.as_str()).collect();
        let (mut found, computed) = self
            .held
            .oracle
            .run_forced(&inputs.graph, &[&names[..], &outputs].concat(), &substitutes)
            .ok()?;
        for (name, value) in computed.iter() {
            found.insert(name, value.clone());
        }
        Some(Forced { inputs, free: values, found })
    }

    /// Runs with free values: those taken values that are not what their steps make of them, and
    /// the outputs that are what the reference makes of theirs. `from` says of an output which
    /// steps' values it is made of.
    pub fn forced_runs(
        &self,
        taken: &[Taken],
        idle: &[String],
        from: &HashMap<&str, BTreeSet<usize>>,
    ) -> Option<(BTreeSet<usize>, BTreeSet<String>)> {
        let mut wrong = BTreeSet::new();
        let mut right: BTreeSet<String> = from.keys().map(|name| name.to_string()).collect();
        // A fixed shape has but one, with other masks in each turn.
        let turns = if self.is_fixed() { 3 } else { 1 };
        for turn in 0..turns {
            for (size, shape) in self.shapes().into_iter().enumerate() {
                // For where functions are straight a few tokens are enough.
                let count = if self.is_fixed() || size == 1 { FREE.len() } else { 1 };
                for (at, free) in FREE.into_iter().take(count).enumerate() {
                    let run = self.forced(&shape, turn, free, taken, idle)?;
                    for (number, of) in taken.iter().enumerate() {
                        let Some(from) = &of.from else { continue };
                        let is_asked = at == 0 || !self.attends(&[of.step], from);
                        if is_asked && !self.is_step(&run, of).unwrap_or(false) {
                            wrong.insert(number);
                        }
                    }
                    right.retain(|name| {
                        let from = &from[name.as_str()];
                        at > 0 && self.attends(&ends_of(self.held.reference.program(), name), from)
                            || self.is_output(&run, name, from).unwrap_or(false)
                    });
                }
            }
        }
        Some((wrong, right))
    }

    /// Those taken values that have another number of elements than what their steps give;
    /// positions may be there once for each text.
    pub fn misfits(&self, taken: &[Taken]) -> Option<Vec<String>> {
        let mut misfits = Vec::new();
        // One of one token, where everything fits, and one of several texts, where it does not.
        for shape in self.shapes().into_iter().take(2) {
            let inputs = self.inputs(&shape, |name, _, _| i64::from(name == "attention_mask"))?;
            let names: Vec<&str> = taken.iter().map(|taken| taken.value.as_str()).collect();
            let steps: Vec<usize> = taken.iter().map(|taken| taken.step).collect();
            let plain = self.held.oracle.run_for(&inputs.graph, &names).ok()?;
            for (of, meant) in taken.iter().zip(self.steps(&inputs, &HashMap::new(), &steps)?) {
                let (found, meant) = (plain.get(&of.value)?.len(), meant.elem_count());
                let op = &self.held.reference.program().steps[of.step].op;
                let may_repeat = matches!(op, Op::Positions { .. } | Op::Angles { .. })
                    && found.is_multiple_of(meant.max(1));
                if found != meant && !may_repeat {
                    misfits.push(of.value.clone());
                }
            }
        }
        Some(misfits)
    }

    /// Whether there is an attention among the steps that these are made by, up to those.
    fn attends(&self, steps: &[usize], from: &BTreeSet<usize>) -> bool {
        let program = self.held.reference.program();
        let mut between = between(program, steps, from).into_iter();
        between.any(|step| matches!(program.steps[step].op, Op::Attention { .. }))
    }

    fn is_step(&self, run: &Forced, Taken { value, step, from }: &Taken) -> Option<bool> {
        let free = run.of(from.as_ref()?)?;
        let meant = elements(&self.steps(&run.inputs, &free, &[*step])?.pop()?)?;
        let found = run.found.get(value)?.to_f64();
        Some(is_same(&meant, &found, self.held.tol))
    }

    fn is_output(&self, run: &Forced, name: &str, from: &BTreeSet<usize>) -> Option<bool> {
        let program = self.held.reference.program();
        let free = run.of(from)?;
        let value = |tensor: &Tensor| Value::from_tensor(tensor).ok();
        let of = |named: &[(&str, usize)]| -> Option<NamedValues> {
            let steps: Vec<usize> = named.iter().map(|(_, step)| *step).collect();
            let tensors = self.steps(&run.inputs, &free, &steps)?;
            named.iter().zip(&tensors).map(|((name, _), tensor)| Some((*name, value(tensor)?))).collect()
        };
        let outputs: Vec<(&str, usize)> =
            program.outputs.iter().map(|output| (output.name, output.step)).collect();
        let meant = match (outputs.iter().find(|(own, _)| *own == name), self.held.further) {
            (None, Some(further)) => {
                let tap = |tap: &'a str| Some((tap, program.module(tap)?.output));
                let taps = further.taps().into_iter().map(tap).collect::<Option<Vec<_>>>()?;
                further.outputs(&run.inputs.common, &of(&outputs)?, &of(&taps)?)
            }
            (own, _) => of(&[*own?])?,
        };
        let (meant, found) = (meant.get(name)?, run.found.get(name)?);
        let spec = self.held.specs.iter().find(|spec| spec.name == name)?;
        let found = Value::new(found.shape(), found.to_f64()).ok()?;
        let off = compare(meant, &found, &deciding(spec, &run.inputs.common), 0.0).ok()?.deciding;
        Some(off.max_abs().is_some_and(|max| max <= self.held.tol * off.largest_reference().max(1.0)))
    }
}

/// Whether a token is real: row by row another pattern of four, which goes on in longer texts; all
/// are where none would be.
fn is_real(row: usize, place: usize, tokens: usize) -> bool {
    /// The first three are a mask of 1 and of 0 for every place.
    const PATTERNS: [u8; 15] = [15, 5, 10, 1, 2, 4, 8, 3, 6, 12, 9, 7, 11, 13, 14];
    let pattern = PATTERNS[row % PATTERNS.len()];
    let within = if tokens < 4 { pattern & ((1 << tokens) - 1) } else { pattern };
    within == 0 || pattern >> (place % 4) & 1 == 1
}

/// The steps that an output of a graph ends with: one, or where it is made of the model's outputs,
/// theirs.
pub(crate) fn ends_of(program: &Program, name: &str) -> Vec<usize> {
    let own = program.outputs.iter().find(|output| output.name == name);
    own.map_or_else(|| program.outputs.iter().map(|output| output.step).collect(), |own| vec![own.step])
}

/// The elements of a tensor in f64, row by row.
pub(super) fn elements(tensor: &Tensor) -> Option<Vec<f64>> {
    tensor.flatten_all().ok()?.to_dtype(candle_core::DType::F64).ok()?.to_vec1().ok()
}

/// Whether two lists of elements are the same; the second may be several times the first, for as
/// many rows.
fn is_same(meant: &[f64], found: &[f64], tol: f64) -> bool {
    if meant.is_empty() || !found.len().is_multiple_of(meant.len()) || found.is_empty() {
        return false;
    }
    let largest = meant.iter().fold(1f64, |largest, x| largest.max(x.abs()));
    let mut pairs = found.iter().enumerate();
    pairs.all(|(at, found)| (found - meant[at % meant.len()]).abs() <= tol * largest)
}
