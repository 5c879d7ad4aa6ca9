//! What was recorded elsewhere, by PyTorch for example, against all that is computed here on the same inputs.
//!
//! This is another judge than the proof: it also sees a fault that the checkpoint's reference and the graph have in common.

use engine::{Engine, EngineError, NamedValues, ValueSpec};
pub use report::Recorded;
use report::{OutputReport, Verdict};

use crate::ParityError;
use crate::compare::{Answers, Tally};
use crate::inputs::{Case, fit_inputs};

/// Something that is held against a record.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// What it runs.
    pub name: &'a str,
    /// What runs it.
    pub engine: &'a dyn Engine,
}

/// Holds one side against what was recorded for a case. An output beyond `atol` fails if it is beyond its budget too, or has none. `specs` say which
/// positions of an output decide.
///
/// # Errors
/// If the input does not fit the engine.
pub fn judge<'a>(
    case: &Case,
    recorded: &NamedValues,
    side: Side,
    specs: &[ValueSpec],
    atol: f64,
    budget: impl Fn(&str) -> Option<&'a [f64]>,
) -> Result<Recorded, ParityError> {
    let Side { name, engine } = side;
    let has = |name: &&str| engine.outputs().iter().any(|spec| spec.name == *name);
    let shared: Vec<&str> = recorded.names().filter(has).collect();
    let missing = recorded.names().filter(|name| !has(name));
    let not_compared = missing.map(|output| format!("{name} has no output '{output}'")).collect();
    let (found, failure) = match engine.run_for(&fit_inputs(&case.inputs, engine.inputs())?, &shared) {
        Ok(found) => (found, None),
        Err(error @ EngineError::Node { .. }) => (NamedValues::new(), Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let answers = Answers::recorded(case, &found);
    let recorded = Answers::recorded(case, recorded);
    let output = |(name, _): (&str, _)| {
        let spec = specs.iter().chain(engine.outputs()).find(|spec| spec.name == name)?;
        Some(Tally::in_f64(spec, &recorded, &answers, atol).report(name, budget(name), None))
    };
    let outputs: Vec<OutputReport> = found.iter().filter_map(output).collect();
    let verdict = match failure {
        Some(_) => Verdict::Fail,
        None => Verdict::worst(outputs.iter().map(|output| output.verdict)),
    };
    let dtype = found.iter().next().map_or_else(String::new, |(_, value)| value.dtype().to_string());
    Ok(Recorded {
        side: name.into(),
        engine: engine.name().into(),
        dtype,
        verdict,
        failure,
        not_compared,
        outputs,
    })
}
