//! Activations.

use architecture::{Activation, Op};
use candle_core::{Result, Tensor};

use super::attempts::{Attempts, Emit};
use super::formulas::activated;
use super::{Evidence, dense};

/// What people call them, beside config.json's names.
const ALL: [(Activation, &str); 8] = [
    (Activation::Gelu, "erf"),
    (Activation::GeluTanh, "tanh approximation"),
    (Activation::QuickGelu, "quick_gelu"),
    (Activation::Relu, "relu"),
    (Activation::Silu, "silu"),
    (Activation::GeluFast, "gelu_fast"),
    (Activation::Tanh, "tanh"),
    (Activation::Sigmoid, "sigmoid"),
];

pub(super) fn explain(evidence: &Evidence<'_>, step: usize, attempts: &mut Attempts) -> Result<()> {
    let Op::Activation { function, configured } = evidence.program.steps[step].op else { return Ok(()) };
    let module = evidence.path(step);
    let x = evidence.given(step)?;
    let projection = evidence.fed(step, 0)?;
    let explained = if configured {
        others(function, &x, &mut |text, value| attempts.offer(module, text, value))?
    } else {
        not_as_built(evidence, (step, function), &x, attempts)?
    };
    if explained {
        return Ok(());
    }
    dense::blame(evidence, projection, attempts, |value| activated(function, value))
}

/// Where the architecture has the activation, and not config.json.
fn not_as_built(
    evidence: &Evidence<'_>,
    (step, function): (usize, Activation),
    x: &Tensor,
    attempts: &mut Attempts,
) -> Result<bool> {
    let module = evidence.path(step);
    // What stands between modules goes by the name of what it is in.
    let mut names = module.rsplit('.').filter(|name| !name.starts_with('('));
    let name = names.next().unwrap_or("the head");
    let mut explained = attempts.offer(module, &format!("{name} without {function}"), x)?;
    explained |= others(function, x, &mut |text, value| {
        let instead = format!(" instead of {function}");
        attempts.offer(module, &text.replace(&format!(", config.json says {function}"), &instead), value)
    })?;
    let projection = evidence.fed(step, 0)?;
    let Ok(before) = evidence.fed(projection, 0) else { return Ok(explained) };
    if let Op::Token { at: 0 } = evidence.program.steps[before].op {
        let text = format!("{name} missing: the first token goes out as it is");
        explained |= attempts.offer(module, &text, &evidence.value(before)?)?;
    }
    Ok(explained)
}

/// Every activation but `act`.
pub(super) fn others(act: Activation, x: &Tensor, emit: &mut Emit<'_>) -> Result<bool> {
    let mut explained = emit("activation left out", x)?;
    for (other, name) in ALL.into_iter().filter(|(other, _)| *other != act) {
        explained |= emit(&wording(act, other, name), &activated(other, x)?)?;
    }
    Ok(explained)
}

fn wording(act: Activation, other: Activation, name: &str) -> String {
    match (act, other) {
        (Activation::Gelu, Activation::GeluTanh) => format!("gelu = {name}"),
        (_, Activation::Gelu | Activation::GeluTanh) => {
            format!("activation is gelu ({name}), config.json says {act}")
        }
        _ => format!("activation is {name}, config.json says {act}"),
    }
}
