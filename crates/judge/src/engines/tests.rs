use engine::{DType, Dim, EngineError, NamedValues, Value};

use super::*;

/// An engine that gives what it was told to, whatever the input.
struct Fixed {
    specs: Vec<ValueSpec>,
    outputs: NamedValues,
    error: bool,
}

impl Engine for Fixed {
    fn name(&self) -> &str {
        "fixed"
    }

    fn inputs(&self) -> &[ValueSpec] {
        &[]
    }

    fn outputs(&self) -> &[ValueSpec] {
        &self.specs
    }

    fn run_for(&self, _: &NamedValues, names: &[&str]) -> Result<NamedValues, EngineError> {
        if self.error {
            return Err(EngineError::Node { node: "n".into(), op: "Reshape".into(), source: "no".into() });
        }
        Ok(names.iter().map(|name| (*name, self.outputs.get(name).unwrap().clone())).collect())
    }
}

fn spec(name: &str) -> ValueSpec {
    let symbols = ["batch", "sequence", "hidden"].map(|symbol| Dim::Symbol(symbol.into()));
    ValueSpec { name: name.into(), dtype: DType::F32, shape: Some(symbols.to_vec()), optional: false }
}

fn fixed(outputs: &[(&str, Vec<f32>)]) -> Fixed {
    Fixed {
        specs: outputs.iter().map(|(name, _)| spec(name)).collect(),
        outputs: outputs
            .iter()
            .map(|(name, data)| (*name, Value::new([1, data.len(), 1], data.as_slice()).unwrap()))
            .collect(),
        error: false,
    }
}

fn case(mask: &[i64]) -> Case {
    let mask = Value::new([1, mask.len()], mask).unwrap();
    Case { name: "case".into(), inputs: NamedValues::from_iter([("attention_mask", mask)]) }
}

fn judge(reference: &Fixed, candidate: &Fixed, mask: &[i64], outputs: &[&str]) -> EngineCheck {
    let cases = [case(mask)];
    let expected = Answers::of(reference, &cases, |_| ()).unwrap();
    let bounds = Bounds { outputs: outputs.iter().map(ToString::to_string).collect(), ..Bounds::default() };
    check(&expected, candidate, "g", &bounds, None, |_| ()).unwrap()
}

#[test]
fn the_tolerance_is_absolute() {
    let reference = fixed(&[("h", vec![1000.0])]);
    assert_eq!(judge(&reference, &fixed(&[("h", vec![1000.0])]), &[1], &[]).verdict, Verdict::Pass);
    assert_eq!(judge(&reference, &fixed(&[("h", vec![1000.0001])]), &[1], &[]).verdict, Verdict::Fail);
}

#[test]
fn nan_fails_even_on_both_sides() {
    let nan = fixed(&[("h", vec![f32::NAN])]);
    let check = judge(&nan, &nan, &[1], &[]);
    assert_eq!(check.verdict, Verdict::Fail);
    assert_eq!(check.outputs[0].max_abs, None);
    assert!(check.outputs[0].sentence(1e-6).contains("not finite"));
}

#[test]
fn padding_never_decides() {
    let of = |padding: f32| {
        judge(&fixed(&[("h", vec![1.0, 2.0])]), &fixed(&[("h", vec![1.0, padding])]), &[1, 0], &[])
    };
    assert_eq!(of(9.0).verdict, Verdict::Pass);
    assert_eq!(of(9.0).outputs[0].padding.compared, 1);
    // But that it is a number: no pooling survives another.
    assert_eq!(of(f32::NAN).verdict, Verdict::Fail);
    // A row without a real token leaves nothing that decides.
    let check = judge(&fixed(&[("h", vec![1.0])]), &fixed(&[("h", vec![1.0])]), &[0], &[]);
    assert_eq!(check.verdict, Verdict::Inconclusive);
}

#[test]
fn a_missing_output_is_listed_and_inconclusive_only_if_asked_for() {
    let reference = fixed(&[("h", vec![1.0]), ("p", vec![1.0])]);
    let candidate = fixed(&[("h", vec![1.0]), ("extra", vec![1.0])]);
    let check = judge(&reference, &candidate, &[1], &[]);
    assert_eq!(check.verdict, Verdict::Pass);
    assert_eq!(check.not_compared, ["the graph has no output 'p'", "the reference has no output 'extra'"]);
    assert_eq!(judge(&reference, &candidate, &[1], &["h"]).verdict, Verdict::Pass);
    assert_eq!(judge(&reference, &candidate, &[1], &["h", "p"]).verdict, Verdict::Inconclusive);
    assert_eq!(judge(&reference, &candidate, &[1], &["nothing"]).verdict, Verdict::Inconclusive);
}

#[test]
fn no_common_output_is_inconclusive() {
    let check = judge(&fixed(&[("a", vec![1.0])]), &fixed(&[("b", vec![1.0])]), &[1], &[]);
    assert_eq!(check.verdict, Verdict::Inconclusive);
}

#[test]
fn another_shape_fails() {
    let check = judge(&fixed(&[("h", vec![1.0])]), &fixed(&[("h", vec![1.0, 1.0])]), &[1], &[]);
    assert_eq!(check.verdict, Verdict::Fail);
    assert!(check.outputs[0].mismatch.as_ref().unwrap().contains("shape [1, 1, 1] against [1, 2, 1]"));
}

#[test]
fn a_graph_that_breaks_on_an_input_it_declares_fails() {
    let mut candidate = fixed(&[("h", vec![1.0])]);
    candidate.error = true;
    let check = judge(&fixed(&[("h", vec![1.0])]), &candidate, &[1], &[]);
    assert_eq!(check.verdict, Verdict::Fail);
    assert!(check.failure.unwrap().contains("on input 'case': node 'n' (Reshape) failed"));
}

#[test]
fn assert_parity_says_what_differs() {
    let error =
        agree(&fixed(&[("h", vec![1.0])]), &fixed(&[("h", vec![1.5])]), &[case(&[1])], 1e-6).unwrap_err();
    assert!(
        error.contains("h: 5.00e-1 off, 1 of 1 values beyond 1e-6; at [0, 0, 0] of input 'case'"),
        "{error}"
    );
}
