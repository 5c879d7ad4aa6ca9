//! How large the scores of a model's attention can be, whatever the model is given.
//!
//! A score is q·k / √d, at most ‖q‖ ‖k‖ / √d, and what is added to it. Query and key are W x + b
//! with x = γ z + β behind a layer norm, where ‖z‖ ≤ √n over n features. So ‖q‖ ≤ ‖W‖ (max |γ| √n +
//! ‖β‖) + ‖b‖, head by head, and ‖W‖ is at most the root of the sum of squares, and that of the
//! product of the largest sums of |W| over rows and over columns.

use architecture::Op;
use candle_blocks::{Model, ReferenceEngine};

use super::replay::elements;

/// A score that is so much less than another has no part beside it: e to this power is 0 in f64.
pub(super) const NOTHING: f64 = 746.0;

/// The largest |score| of any attention, by the weights alone; nothing where a query or key is not
/// made of what a layer norm gives.
pub(super) fn largest(reference: &ReferenceEngine) -> Option<f64> {
    let (model, program) = (reference.model(), reference.program());
    let mut largest = 0f64;
    for step in &program.steps {
        let Op::Attention { heads } = step.op else { continue };
        let sides = [step.inputs.first()?.step()?, step.inputs.get(1)?.step()?];
        let [query, key] = sides.map(|side| norms(model, side, heads));
        let (query, key) = (query?, key?);
        let size = (program.head_size()? as f64).sqrt();
        let bias = match step.inputs.get(4).and_then(|wire| wire.step()) {
            Some(bias) => elements(model.parameter(bias, "weight")?)?,
            None => Vec::new(),
        };
        let bias = bias.into_iter().fold(0f64, |most, x| most.max(x.abs()));
        let scores = query.iter().zip(&key).map(|(query, key)| query * key / size + bias);
        largest = scores.fold(largest, f64::max);
    }
    Some(largest)
}

/// The largest norm of each head of what a linear step gives, or a part of it. A turn changes none.
fn norms(model: &Model, step: usize, heads: usize) -> Option<Vec<f64>> {
    let program = model.program();
    let given = program.steps[step].inputs.first()?.step()?;
    match program.steps[step].op {
        Op::Rotate { .. } => return norms(model, given, heads),
        Op::Part { at, of } => {
            let all = norms(model, given, heads * of)?;
            return Some(all.get(at * heads..(at + 1) * heads)?.to_vec());
        }
        _ => {}
    }
    let is_normed = matches!(program.steps[given].op, Op::LayerNorm { .. });
    if !is_normed || !matches!(program.steps[step].op, Op::Linear { .. }) {
        return None;
    }
    let bias = |step: usize, length: usize| match program.parameter(step, "bias") {
        Some(_) => elements(model.parameter(step, "bias")?),
        None => Some(vec![0.0; length]),
    };
    let gain = elements(model.parameter(given, "weight")?)?;
    let shift = bias(given, gain.len())?;
    let size =
        gain.iter().fold(0f64, |most, x| most.max(x.abs())) * (gain.len() as f64).sqrt() + norm(&shift);
    let weight = elements(model.parameter(step, "weight")?)?;
    let bias = bias(step, weight.len() / gain.len().max(1))?;
    let rows = bias.len() / heads.max(1);
    let of_head = |(weight, bias): (&[f64], &[f64])| bound(weight, gain.len()) * size + norm(bias);
    Some(weight.chunks((rows * gain.len()).max(1)).zip(bias.chunks(rows.max(1))).map(of_head).collect())
}

/// What the spectral norm of a matrix of rows of this width is at most.
fn bound(matrix: &[f64], width: usize) -> f64 {
    let rows = matrix.chunks(width.max(1));
    let row = rows.clone().map(|row| row.iter().map(|x| x.abs()).sum::<f64>()).fold(0.0, f64::max);
    let column = |at: usize| rows.clone().filter_map(|row| row.get(at)).map(|x| x.abs()).sum::<f64>();
    let column = (0..width).map(column).fold(0.0, f64::max);
    norm(matrix).min((row * column).sqrt())
}

fn norm(elements: &[f64]) -> f64 {
    elements.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_norm_is_bounded_by_the_smaller_of_both() {
        // Of the identity it is 1; the root of the sum of squares is 2.
        let identity: Vec<f64> = (0..16).map(|at| if at % 5 == 0 { 1.0 } else { 0.0 }).collect();
        assert_eq!(bound(&identity, 4), 1.0);
        // Of one row it is the row's own.
        assert!((bound(&[3.0, 4.0], 2) - 5.0).abs() < 1e-12);
    }
}
