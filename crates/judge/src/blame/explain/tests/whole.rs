//! Exchanged inputs and outputs.

use candle_core::DType;

use super::*;

struct Whole {
    bench: Bench,
    engine: ReferenceEngine,
    outputs: NamedValues,
}

impl Whole {
    fn new() -> Self {
        let bench = Bench::new("baseline");
        let engine = bench.subject.reference(DType::F64).unwrap().engine;
        let outputs = engine.run(&bench.inputs).unwrap();
        Self { bench, engine, outputs }
    }

    /// The graph is the reference with its inputs under other names, and its outputs changed.
    fn explain(&self, inputs: [&str; 3], change: impl Fn(NamedValues) -> NamedValues) -> Option<Explanation> {
        let names = ["input_ids", "attention_mask", "token_type_ids"];
        explain_whole(&self.bench.inputs, &self.outputs, &mut |given| {
            let taken =
                names.iter().zip(inputs).map(|(&name, from)| (name, given.get(from).unwrap().clone()));
            self.engine.run(&taken.collect()).ok().map(&change)
        })
    }
}

fn renamed(values: NamedValues, names: &[&str]) -> NamedValues {
    names.iter().zip(values).map(|(&name, (_, value))| (name, value)).collect()
}

#[test]
fn a_graph_that_agrees_needs_none() {
    let whole = Whole::new();
    assert_eq!(whole.explain(["input_ids", "attention_mask", "token_type_ids"], |outputs| outputs), None);
}

#[test]
fn mask_and_types_exchanged() {
    let explanation =
        Whole::new().explain(["input_ids", "token_type_ids", "attention_mask"], |outputs| outputs).unwrap();
    assert_eq!(explanation.text, "holds with attention_mask and token_type_ids exchanged");
    assert!(explanation.before > 1e-3 && explanation.after == 0., "{explanation}");
}

#[test]
fn inputs_that_a_graph_cannot_take_as_they_are() {
    // As they are, token ids would be types, and there are no types of these numbers.
    let whole = Whole::new();
    for (names, text) in [
        (
            ["token_type_ids", "attention_mask", "input_ids"],
            "holds with input_ids and token_type_ids exchanged",
        ),
        (
            ["attention_mask", "input_ids", "token_type_ids"],
            "holds with input_ids and attention_mask exchanged",
        ),
        (
            ["attention_mask", "token_type_ids", "input_ids"],
            "holds with token_type_ids given as input_ids, input_ids as attention_mask, attention_mask as token_type_ids",
        ),
    ] {
        let explanation = whole.explain(names, |outputs| outputs).unwrap();
        // Without a distance before, none is shown.
        assert_eq!(explanation.to_string(), text);
    }
}

#[test]
fn an_inverted_mask() {
    let whole = Whole::new();
    let explanation = explain_whole(&whole.bench.inputs, &whole.outputs, &mut |given| {
        let mut inputs = given.clone();
        let mask = given.get("attention_mask")?.as_slice::<i64>().ok()?.iter().map(|bit| 1 - bit);
        inputs.insert("attention_mask", Value::new([4, 11], mask.collect::<Vec<_>>()).ok()?);
        whole.engine.run(&inputs).ok()
    });
    assert_eq!(explanation.unwrap().text, "holds with attention_mask inverted, 1 for 0 and 0 for 1");
}

#[test]
fn outputs_under_other_names() {
    let whole = Whole::new();
    let same = ["input_ids", "attention_mask", "token_type_ids"];
    for (names, text) in [
        (
            &["pooler_output", "last_hidden_state"][..],
            "outputs last_hidden_state and pooler_output exchanged",
        ),
        (&["hidden", "pooler_output"], "output 'hidden' has the values of last_hidden_state"),
        // It has no pooler, which is no fault.
        (&["hidden"], "output 'hidden' has the values of last_hidden_state"),
    ] {
        let explanation = whole.explain(same, |outputs| renamed(outputs, names)).unwrap();
        assert_eq!(explanation.text, text);
        assert_eq!(explanation.after, 0.);
    }
    // Under another name, and wrong.
    let wrong = |outputs: NamedValues| {
        let outputs = outputs.into_iter().map(|(name, value)| (name, changed(&value, |_, x| x * 1.001)));
        renamed(outputs.collect(), &["hidden", "pooler_output"])
    };
    assert_eq!(whole.explain(same, wrong), None);
}

#[test]
fn only_texts_and_tokens_that_are_real_count() {
    let whole = Whole::new();
    let mask = whole.bench.inputs.get("attention_mask").unwrap().to_f64();
    let same = ["input_ids", "attention_mask", "token_type_ids"];
    let at_padding = |mut outputs: NamedValues| {
        let hidden = outputs.get("last_hidden_state").unwrap();
        let hidden = changed(hidden, |at, x| if mask[at / 16] == 0. { f64::NAN } else { x });
        outputs.insert("last_hidden_state", hidden);
        outputs
    };
    assert_eq!(whole.explain(same, at_padding), None);
    let everywhere = |mut outputs: NamedValues| {
        let hidden = changed(outputs.get("last_hidden_state").unwrap(), |_, _| f64::NAN);
        outputs.insert("last_hidden_state", hidden);
        outputs
    };
    assert_eq!(whole.explain(same, everywhere), None);
}
