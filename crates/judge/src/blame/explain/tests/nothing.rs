//! What must not be explained, and what is no fault.

use super::*;

/// The formulas are sums in another order than the reference's, and nothing else.
const SAME: f64 = 1e-12;

/// A number in −1..1 that looks random.
fn noise(at: usize) -> f64 {
    (at as f64 * at as f64 * 0.731 + at as f64).sin()
}

#[test]
fn a_correct_module_needs_no_explanation() {
    for fixture in ["baseline", "odd"] {
        let bench = Bench::new(fixture);
        for (module, value) in bench.taps.iter() {
            let found = changed(value, |at, x| x + noise(at) * 1e-14);
            assert_eq!(explain(&bench.evidence(), module, &found).unwrap(), None, "{module}");
        }
    }
}

#[test]
fn random_differences_have_no_explanation() {
    let bench = Bench::new("baseline");
    for (module, value) in bench.taps.iter() {
        for size in [1e-11, 1e-8, 1e-3, 1.] {
            let found = changed(value, |at, x| x + noise(at) * size);
            let explanation = explain(&bench.evidence(), module, &found).unwrap();
            assert_eq!(explanation, None, "{module} at {size:e}");
        }
    }
}

#[test]
fn what_is_only_at_padding_is_no_fault() {
    let bench = Bench::new("baseline");
    let mask = bench.inputs.get("attention_mask").unwrap().to_f64();
    let value = bench.taps.get("encoder.layer.0.attention.self").unwrap();
    let found = changed(value, |at, x| if mask[at / 16] == 0. { x + 1. } else { x });
    assert_eq!(explain(&bench.evidence(), "encoder.layer.0.attention.self", &found).unwrap(), None);
}

#[test]
fn what_cannot_be_compared_is_not_explained() {
    let bench = Bench::new("baseline");
    let value = bench.taps.get("encoder.layer.0.intermediate").unwrap();
    let nan = changed(value, |at, x| if at == 3 { f64::NAN } else { 2. * x });
    let other = bench.taps.get("encoder.layer.0.attention").unwrap();
    for found in [&nan, other] {
        assert_eq!(explain(&bench.evidence(), "encoder.layer.0.intermediate", found).unwrap(), None);
    }
    // No text has a real token, so nothing decides.
    let mut inputs = bench.inputs.clone();
    inputs.insert("attention_mask", Value::new([4, 11], vec![0i64; 44]).unwrap());
    let evidence = Evidence { inputs: &inputs, ..bench.evidence() };
    let doubled = changed(value, |_, x| 2. * x);
    assert_eq!(explain(&evidence, "encoder.layer.0.intermediate", &doubled).unwrap(), None);
}

#[test]
fn what_can_befall_any_module() {
    let bench = Bench::new("odd");
    let module = "encoder.layer.1.attention.self.key";
    let value = bench.taps.get(module).unwrap();
    let text = |found: &Value| bench.explain(module, found).text;
    assert_eq!(text(&changed(value, |_, _| 0.)), "all values are 0");
    let other = "encoder.layer.0.output.dense";
    assert_eq!(text(bench.taps.get(other).unwrap()), format!("gives the values of {other}"));
    let elements = value.to_f64();
    assert_eq!(
        text(&changed(value, |at, _| elements[at % (11 * 21)])),
        "the first text's values for every text"
    );
    let some = changed(value, |at, x| if [2, 9].contains(&(at % 21)) { x + noise(at) * 0.25 } else { x });
    let some = text(&some);
    assert!(some.starts_with("only 2 of 21 output features differ (2, 9), by up to 0.2"), "{some}");
    let exported = bench.taps.get("encoder.layer.1.intermediate").unwrap();
    let twice = bench.explain("encoder.layer.1.intermediate", &changed(exported, |_, x| 2. * x));
    assert_eq!(twice.text, "scaled by 2");
}

#[test]
fn evidence_that_is_missing_is_an_error() {
    let bench = Bench::new("baseline");
    let found = changed(bench.taps.get("encoder.layer.0.intermediate").unwrap(), |_, x| 2. * x);
    let error = explain(&bench.evidence(), "encoder.layer.7.intermediate", &found).unwrap_err();
    assert!(error.to_string().contains("encoder.layer.7.intermediate"), "{error}");

    let mut taps = bench.taps.clone();
    taps.remove("encoder.layer.0.intermediate.dense");
    let evidence = Evidence { taps: &taps, ..bench.evidence() };
    let error = explain(&evidence, "encoder.layer.0.intermediate", &found).unwrap_err();
    assert!(error.to_string().contains("encoder.layer.0.intermediate.dense are missing"), "{error}");
}

/// Every formula with nothing changed gives the reference's own values, so that a hypothesis is only the thing it changes.
#[test]
fn the_formulas_are_the_references() {
    let families = ["roberta/plain", "mpnet/plain", "albert/plain", "distilbert/plain", "modernbert/plain"];
    let families = families.map(|name| format!("families/{name}"));
    for fixture in ["baseline", "odd", "types1"].into_iter().chain(families.iter().map(String::as_str)) {
        let bench = if fixture == "types1" { small() } else { Bench::new(fixture) };
        let evidence = bench.evidence();
        let same = |module: &str, value: &Tensor| {
            let reference = evidence.tap(module).unwrap();
            let distance =
                (value.broadcast_as(reference.shape()).unwrap() - reference).unwrap().abs().unwrap();
            let distance = distance.flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
            assert!(distance <= SAME, "{fixture}, {module}: {distance:e}");
        };
        let mut compared = 0;
        for module in &bench.program.modules {
            let step = module.output;
            let value = match bench.program.steps[step].op {
                Op::Attention { .. } => attention::unchanged(&evidence, step),
                Op::LayerNorm { .. } => sum::unchanged(&evidence, step),
                Op::Linear { .. } => dense::unchanged(&evidence, step),
                Op::Embedding { .. } | Op::Positions { .. } => embeddings::unchanged(&evidence, step),
                Op::RelativeBias { .. } => distances::unchanged(&evidence, step),
                Op::Angles { .. } | Op::Rotate { .. } => rotary::unchanged(&evidence, step),
                Op::Product => gate::unchanged(&evidence, step),
                _ => continue,
            };
            same(&module.path, &value.unwrap());
            compared += 1;
        }
        assert!(compared >= 3 + 1 + 10, "{fixture}: {compared}");
    }
}

/// One layer, four heads of size 4, one token type.
fn small() -> Bench {
    let folder = format!("{}/../../tests/fixtures/types1", env!("CARGO_MANIFEST_DIR"));
    let ids: Vec<i64> = (0..15).map(|at| at * 7 % 40).collect();
    let mask: Vec<i64> = (0..15).map(|at| i64::from(at % 4 != 1)).collect();
    let inputs = [("input_ids", ids), ("attention_mask", mask)];
    let inputs = inputs.into_iter().map(|(name, x)| (name, Value::new([3, 5], x).unwrap())).collect();
    Bench::on(&folder, inputs)
}

#[test]
fn a_number_is_shown_short() {
    let cases = [
        (0.25, "0.25"),
        (1. / 3., "0.33333"),
        (-2., "-2"),
        (1e-12, "1e-12"),
        (0., "0"),
        (1.5e-4, "1.5e-4"),
        (1e4, "10000"),
    ];
    for (x, expected) in cases {
        assert_eq!(shown(x), expected);
    }
}
