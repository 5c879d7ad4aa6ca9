//! Where in a text two sides differ.

use engine::{Dim, Engine, Value, ValueSpec};
use report::TokenErrors;

use crate::compare::{Answers, widened};
use crate::inputs::{Case, fit_inputs};

/// The errors of the first output that has a position for each token, on one of the cases: of the
/// graph in f64, and on an engine. A side that cannot run it has been judged already.
pub(crate) fn token_errors(
    case: &Case,
    truth: &Answers,
    exact: &dyn Engine,
    engine: Option<&dyn Engine>,
) -> Vec<TokenErrors> {
    let sides: Vec<(&str, &dyn Engine)> =
        [("f64", exact)].into_iter().chain(engine.map(|engine| (engine.name(), engine))).collect();
    let is_by_token = |spec: &&ValueSpec| {
        let second = spec.shape.as_ref().and_then(|dims| dims.get(1));
        let everywhere =
            |(_, side): &(&str, &dyn Engine)| side.outputs().iter().any(|output| output.name == spec.name);
        matches!(second, Some(Dim::Symbol(name)) if name == "sequence") && sides.iter().all(everywhere)
    };
    let reference = || {
        let spec = truth.specs().iter().find(is_by_token)?;
        Some((&spec.name, truth.on(case)?.get(&spec.name)?))
    };
    let Some((output, reference)) = reference() else { return Vec::new() };
    let errors = |(name, engine): &(&str, &dyn Engine)| {
        let inputs = fit_inputs(&case.inputs, engine.inputs()).ok()?;
        let found = engine.run_for(&inputs, &[output]).ok()?.remove(output)?;
        let mask = case.inputs.get("attention_mask");
        between(&case.name, output, name, reference, &widened(&found), mask)
    };
    sides.iter().filter_map(errors).collect()
}

/// Compares both sides position by position; nothing where the output has no positions: its shape
/// must be `[batch, sequence]` of the mask with whatever follows, or `[batch, sequence, features]`
/// where there is no mask.
fn between(
    input: &str,
    output: &str,
    side: &str,
    reference: &Value,
    candidate: &Value,
    attention_mask: Option<&Value>,
) -> Option<TokenErrors> {
    let &[batch, sequence, ref features @ ..] = reference.shape() else { return None };
    let of_mask = match attention_mask {
        Some(mask) => mask.shape() == [batch, sequence],
        None => !features.is_empty(),
    };
    let width: usize = features.iter().product();
    if !of_mask || candidate.shape() != reference.shape() || width == 0 || sequence == 0 {
        return None;
    }
    let mask = match attention_mask {
        Some(mask) => mask.to_f64().iter().map(|&bit| bit != 0.0).collect(),
        None => vec![true; batch * sequence],
    };
    let (reference, candidate) = (reference.to_f64(), candidate.to_f64());
    let mut not_finite = Vec::new();
    let positions = reference.chunks(width).zip(candidate.chunks(width)).zip(mask).enumerate();
    let errors = positions
        .map(|(at, ((reference, candidate), real))| {
            // `f64::max` folds a NaN away, and two infinities of one sign are at a distance of NaN.
            let far = |worst: f64, x: f64| if x.is_finite() { worst.max(x) } else { f64::INFINITY };
            let error = reference.iter().zip(candidate).map(|(a, b)| (a - b).abs()).fold(0.0, far);
            if real && error.is_infinite() {
                not_finite.push([at / sequence, at % sequence]);
            }
            (real && error.is_finite()).then_some(error)
        })
        .collect();
    Some(TokenErrors {
        input: input.into(),
        output: output.into(),
        side: side.into(),
        batch,
        sequence,
        errors,
        not_finite,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(shape: &[usize], data: &[f64]) -> Value {
        Value::new(shape.to_vec(), data.to_vec()).unwrap()
    }

    fn mask(shape: &[usize], data: &[i64]) -> Value {
        Value::new(shape.to_vec(), data.to_vec()).unwrap()
    }

    #[test]
    fn each_position_has_its_largest_error_and_padding_has_none() {
        let reference = value(&[2, 2, 2], &[0.0; 8]);
        let candidate = value(&[2, 2, 2], &[0.0, -1.0, 9.0, 9.0, 2.0, 1.0, 0.5, 0.0]);
        let mask = mask(&[2, 2], &[1, 0, 1, 1]);
        let errors = between("in", "out", "f64", &reference, &candidate, Some(&mask)).unwrap();
        assert_eq!(errors.errors, [Some(1.0), None, Some(2.0), Some(0.5)]);
        assert_eq!((errors.batch, errors.sequence), (2, 2));
        assert_eq!(errors.worst(), Some((1, 0, 2.0)));
        assert!(errors.not_finite.is_empty());
    }

    #[test]
    fn what_is_not_finite_is_told_from_padding_and_is_the_worst() {
        let inf = f64::INFINITY;
        let reference = value(&[1, 4, 1], &[0.0, inf, f64::NAN, f64::NAN]);
        let candidate = value(&[1, 4, 1], &[3.0, inf, 0.0, 0.0]);
        let mask = mask(&[1, 4], &[1, 1, 1, 0]);
        let errors = between("in", "out", "f64", &reference, &candidate, Some(&mask)).unwrap();
        assert_eq!(errors.errors, [Some(3.0), None, None, None]);
        assert_eq!(errors.not_finite, [[0, 1], [0, 2]]);
        assert_eq!(errors.worst(), Some((0, 1, inf)));
    }

    #[test]
    fn an_output_without_positions_has_no_token_errors() {
        let [rows, other] = [value(&[2, 3], &[0.0; 6]), value(&[2, 2, 1], &[0.0; 4])];
        let longer = mask(&[2, 4], &[1; 8]);
        assert_eq!(between("in", "out", "f64", &rows, &rows, Some(&longer)), None);
        assert_eq!(between("in", "out", "f64", &rows, &rows, None), None);
        assert_eq!(between("in", "out", "f64", &other, &rows, None), None);
        let logits = between("in", "out", "f64", &rows, &rows, Some(&mask(&[2, 3], &[1; 6])));
        assert_eq!(logits.unwrap().worst(), Some((1, 2, 0.0)));
    }
}
