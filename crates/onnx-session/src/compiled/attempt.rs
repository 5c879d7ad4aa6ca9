//! A run of the compiled engine: inputs are bound, the batch is shared out, and what the shares give is put together.

use std::sync::{Mutex, PoisonError};

use ::engine::{EngineError, NamedValues, Value, check_inputs};
use kernels::Kernels;

use super::arena::{Arena, Largest};
use super::engine::CompiledEngine;
use super::ir::Guard;
use super::plan::{Place, Plan, Rows};
use super::run::{Failure, Run, sizes};
use super::share::{Batch, is_binary, prefixes};
use super::step::{Source, StepKind};

/// So many inputs are looked at without allocating.
const FEW: usize = 16;

/// The memory of a run.
#[derive(Default)]
pub struct State {
    symbols: Vec<usize>,
    keys: Vec<usize>,
    arenas: Vec<Mutex<Arena>>,
    outputs: Vec<Mutex<Vec<f32>>>,
}

impl CompiledEngine {
    /// Runs a plan. `false` if what it takes to hold does not hold of these inputs.
    pub(super) fn attempt(
        &self,
        plan: &Plan,
        inputs: &NamedValues,
        show: &mut Show<'_>,
    ) -> Result<bool, EngineError> {
        let mut few = [&self.nothing; FEW];
        let mut many = Vec::new();
        let given = match few.get_mut(..plan.inputs.len()) {
            Some(given) => given,
            None => {
                many.resize(plan.inputs.len(), &self.nothing);
                &mut many[..]
            }
        };
        let mut state = self.states.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let result = if bind(plan, inputs, given, &mut state) {
            self.shared(plan, given, &mut state, show)
        } else {
            check_inputs(&self.inputs, inputs)?;
            Err(Failure::Assumption)
        };
        self.states.lock().unwrap_or_else(PoisonError::into_inner).push(state);
        match result {
            Ok(()) => Ok(true),
            Err(Failure::Assumption) => Ok(false),
            Err(Failure::Error(error)) => Err(error),
        }
    }

    fn shared(
        &self,
        plan: &Plan,
        given: &[&Value],
        state: &mut State,
        show: &mut Show<'_>,
    ) -> Result<(), Failure> {
        let State { symbols, keys, arenas, outputs } = state;
        let [sequences, stride] = match &plan.batch {
            Some([batch, sequence]) => [batch, sequence].map(|dim| dim.size(symbols).unwrap_or(0)),
            None => [0, 0],
        };
        let counted = plan.mask_hides && plan.mask.is_some_and(|mask| prefixes(given[mask], stride, keys));
        let packed = counted && plan.packable && self.options.skip_padding;
        let batch = Batch { sequences, stride, keys: counted.then_some(&keys[..]), packed };
        let threads = self.kernels.pool().threads();
        let shares = if plan.separable && batch.is_balanced(threads) { threads } else { 1 };
        arenas.resize_with(arenas.len().max(threads), Mutex::default);
        outputs.resize_with(outputs.len().max(plan.outputs.len()), Mutex::default);
        if plan.separable {
            for (index, buffer) in outputs.iter_mut().enumerate().take(plan.outputs.len()) {
                let size = plan.size(index, &batch).ok_or(Failure::Assumption)?;
                let buffer = buffer.get_mut().unwrap_or_else(PoisonError::into_inner);
                if buffer.len() < size {
                    buffer.resize(size, 0.0);
                }
            }
        }
        let kernels = if shares == 1 { &self.kernels } else { &self.serial };
        let largest = largest(plan, &batch, shares, kernels);
        for arena in arenas.iter_mut().take(shares) {
            let arena = arena.get_mut().unwrap_or_else(PoisonError::into_inner);
            arena.prepare(plan, symbols, &largest).ok_or_else(too_large)?;
        }
        let sized = plan.sized.values(symbols)?;
        let run = Run { plan, inputs: given, symbols, sized: &sized, stride, kernels };
        let compute = |arena: &Mutex<Arena>, share: usize| -> Result<(), Failure> {
            let mut arena = arena.lock().unwrap_or_else(PoisonError::into_inner);
            let sequences = batch.share(share, shares);
            let keys = batch.keys.and_then(|keys| keys.get(sequences.clone()));
            arena.share.set(sequences.start, sequences.map(|sequence| batch.rows(sequence)), keys, packed);
            run.steps(&mut arena)?;
            if plan.separable {
                for (index, output) in outputs.iter().enumerate().take(plan.outputs.len()) {
                    let mut whole = output.lock().unwrap_or_else(PoisonError::into_inner);
                    run.collect(index, &arena, &mut whole);
                }
            }
            Ok(())
        };
        if shares == 1 {
            compute(&arenas[0], 0)?;
        } else {
            let failed = Mutex::new(None);
            self.kernels.pool().run_on_lanes(shares, &|lane, share| {
                if let Err(failure) = compute(&arenas[lane], share) {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
                }
            });
            if let Some(failure) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
                return Err(failure);
            }
        }
        let mut sound = true;
        hand_out(&run, &batch, arenas, outputs, &mut |_, given| {
            sound &= given.is_sound();
            Ok(())
        })?;
        if !sound {
            // What has overflowed here may not have in the order of the nodes.
            return Err(Failure::Assumption);
        }
        hand_out(&run, &batch, arenas, outputs, show)?;
        arenas[0].lock().unwrap_or_else(PoisonError::into_inner).slots.clear();
        Ok(())
    }
}

/// Shows what has been computed, output by output.
fn hand_out(
    run: &Run<'_>,
    batch: &Batch<'_>,
    arenas: &[Mutex<Arena>],
    outputs: &[Mutex<Vec<f32>>],
    show: &mut Show<'_>,
) -> Result<(), Failure> {
    /// No output of a BERT has more dimensions.
    const RANK: usize = 8;
    let arena = arenas[0].lock().unwrap_or_else(PoisonError::into_inner);
    for (index, output) in run.plan.outputs.iter().enumerate() {
        let dims = output.shape.as_deref().filter(|_| run.plan.separable);
        if let Some(dims) = dims
            .filter(|dims| dims.len() <= RANK && matches!(output.rows, Some(Rows::Tokens | Rows::Sequences)))
        {
            let mut shape = [0; RANK];
            for (size, dim) in shape.iter_mut().zip(dims) {
                *size = dim.size(run.symbols).ok_or(Failure::Assumption)?;
            }
            let size = run.plan.size(index, batch).ok_or(Failure::Assumption)?;
            let whole = outputs[index].lock().unwrap_or_else(PoisonError::into_inner);
            show(&output.name, Given::Floats(&shape[..dims.len()], &whole[..size]))?;
            continue;
        }
        if let (Place::Register(register), Some(shape)) = (output.place, &output.shape) {
            let shape = sizes(shape, run.symbols).ok_or(Failure::Assumption)?;
            let count = shape.iter().product::<usize>();
            let data = arena.registers[register].get(..count).ok_or(Failure::Assumption)?;
            show(&output.name, Given::Floats(&shape, data))?;
            continue;
        }
        let value = run.value(&arena, &Source { place: output.place, shape: output.shape.clone() })?;
        show(&output.name, Given::Value(&value))?;
    }
    Ok(())
}

/// An output, while the run's memory holds it.
pub enum Given<'a> {
    Floats(&'a [usize], &'a [f32]),
    Value(&'a Value),
}

impl Given<'_> {
    /// Whether nothing has overflowed on the way to this output, as far as it shows: no element is
    /// NaN, or, of what a kernel has computed, infinite. Masks, which no kernel computes, may be.
    fn is_sound(&self) -> bool {
        // Without a branch for each, so that it is done on vectors.
        match self {
            Given::Floats(_, floats) => floats.iter().fold(true, |sound, x| sound & x.is_finite()),
            Given::Value(value) => {
                let floats = value.as_slice::<f32>().unwrap_or_default();
                floats.iter().fold(true, |sound, x| sound & !x.is_nan())
            }
        }
    }
}

pub type Show<'a> = dyn FnMut(&str, Given<'_>) -> Result<(), EngineError> + 'a;

/// Puts the inputs in the plan's order and reads the symbols off them. `false` if anything about them is not as the plan takes it to be.
fn bind<'a>(plan: &Plan, inputs: &'a NamedValues, given: &mut [&'a Value], state: &mut State) -> bool {
    const OPEN: usize = usize::MAX;
    state.symbols.clear();
    state.symbols.resize(plan.symbols, OPEN);
    if inputs.len() != plan.inputs.len() {
        return false;
    }
    for ((name, dtype, dims), place) in plan.inputs.iter().zip(&mut *given) {
        let Some(value) = inputs.get(name) else { return false };
        if value.dtype() != *dtype || dims.as_ref().is_some_and(|dims| dims.len() != value.shape().len()) {
            return false;
        }
        for (dim, &size) in dims.iter().flatten().zip(value.shape()) {
            if let Some(symbol) = dim.as_symbol().filter(|&symbol| state.symbols[symbol] == OPEN) {
                state.symbols[symbol] = size;
            }
            if size == 0 || dim.size(&state.symbols) != Some(size) {
                return false;
            }
        }
        *place = value;
    }
    plan.guards.iter().all(|(guard, input)| match guard {
        Guard::AtMost(symbol, most) => state.symbols[*symbol] <= *most,
        Guard::Binary(_) => is_binary(given[*input]),
    })
}

/// The largest share of a batch, in each respect.
fn largest(plan: &Plan, batch: &Batch<'_>, shares: usize, kernels: &Kernels) -> Largest {
    let mut largest = Largest { tokens: 0, sequences: 0, scratch: 0 };
    let mut longest = 0;
    for share in 0..shares {
        let sequences = batch.share(share, shares);
        let rows = || sequences.clone().map(|sequence| batch.rows(sequence));
        largest.tokens = largest.tokens.max(rows().sum());
        largest.sequences = largest.sequences.max(sequences.len());
        longest = rows().fold(longest, usize::max);
    }
    for step in &plan.steps {
        if let StepKind::Attention(attention) = &step.kind {
            let needed = kernels.attention_scratch(attention.attention.head_size, longest);
            largest.scratch = largest.scratch.max(needed);
        }
    }
    largest
}

fn too_large() -> Failure {
    Failure::Error(EngineError::Backend(
        "this batch would take more than 16 GiB of buffers; give fewer texts at once".into(),
    ))
}
