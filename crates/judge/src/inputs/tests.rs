use engine::Value;

use super::*;
use crate::Subject;

const LIMITS: Limits = Limits { vocabulary: 30, token_types: 2, positions: 24, padding: None };

fn cases(fixed: FixedShape) -> Vec<Case> {
    default_cases(&LIMITS, fixed, None, None).unwrap()
}

fn shape(case: &Case) -> [usize; 2] {
    let &[batch, sequence] = case.inputs.get("input_ids").unwrap().shape() else { panic!("{case:?}") };
    assert!(case.inputs.iter().all(|(_, value)| value.shape() == [batch, sequence]));
    [batch, sequence]
}

/// The rows of one input of a case.
fn rows<'a>(case: &'a Case, input: &str) -> Vec<&'a [i64]> {
    let value: &Value = case.inputs.get(input).unwrap();
    value.as_slice::<i64>().unwrap().chunks(shape(case)[1]).collect()
}

fn named<'a>(cases: &'a [Case], name: &str) -> &'a Case {
    cases.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no '{name}'"))
}

fn patterns(case: &Case) -> Vec<String> {
    let pattern = |row: &[i64]| row.iter().map(ToString::to_string).collect();
    rows(case, "attention_mask").into_iter().map(pattern).collect()
}

#[test]
fn a_dynamic_graph_gets_many_shapes() {
    let cases = cases(FixedShape::default());
    let shapes: Vec<(&str, [usize; 2])> =
        cases.iter().map(|case| (case.name.as_str(), shape(case))).collect();
    let expected = [
        ("one token", [1, 1]),
        ("two tokens", [1, 2]),
        ("odd sizes", [3, 7]),
        ("two of eight", [2, 8]),
        ("one of nine", [1, 9]),
        ("three of fifteen", [3, 15]),
        ("two of seventeen", [2, 17]),
        ("longest", [1, 24]),
        ("masks", [6, 16]),
        ("first and last id", [1, 4]),
        ("one id repeated", [1, 12]),
        ("two segments", [1, 10]),
        ("token types of one", [1, 11]),
    ];
    assert_eq!(shapes, expected);
}

#[test]
fn names_are_unique_and_ids_in_range_whatever_is_fixed() {
    for batch in [None, Some(1), Some(2), Some(5), Some(7), Some(40)] {
        for sequence in [None, Some(1), Some(2), Some(8), Some(24)] {
            let fixed = FixedShape { batch, sequence };
            let cases = cases(fixed);
            for (index, case) in cases.iter().enumerate() {
                let [rows_of, length] = shape(case);
                assert!(batch.is_none_or(|batch| batch == rows_of), "{fixed:?}: {}", case.name);
                assert!(sequence.is_none_or(|sequence| sequence == length), "{fixed:?}: {}", case.name);
                assert!(cases[..index].iter().all(|other| other.name != case.name), "{}", case.name);
                assert!(rows(case, "input_ids").concat().iter().all(|id| (0..30).contains(id)));
                assert!(rows(case, "token_type_ids").concat().iter().all(|kind| (0..2).contains(kind)));
                // Something decides in every case.
                assert!(rows(case, "attention_mask").concat().contains(&1), "{fixed:?}: {}", case.name);
            }
        }
    }
}

#[test]
fn a_static_graph_gets_every_mask_whatever_its_batch() {
    for batch in 1..=7 {
        let cases = cases(FixedShape { batch: Some(batch), sequence: Some(6) });
        let patterns: Vec<String> = cases.iter().flat_map(patterns).collect();
        let empty: &[&str] = if batch > 1 { &["000000"] } else { &[] };
        for wanted in ["111111", "111000", "001111", "101101", "000100"].iter().chain(empty) {
            assert!(patterns.iter().any(|pattern| pattern == wanted), "{batch}: no {wanted}");
        }
    }
}

#[test]
fn two_runs_get_the_same_numbers() {
    let all = || cases(FixedShape::default());
    for (a, b) in all().iter().zip(all()) {
        assert_eq!(a.inputs, b.inputs);
    }
    // And another seed would not: the numbers are drawn.
    let [a, b] = ["three of fifteen", "two of seventeen"].map(|name| named(&all(), name).clone());
    assert_ne!(rows(&a, "input_ids")[0], &rows(&b, "input_ids")[0][..15]);
}

#[test]
fn masks_have_every_pattern() {
    let cases = cases(FixedShape::default());
    let expected = [
        "1111111111111111",
        "1111111100000000",
        "0000011111111111",
        "1011011011011011",
        "0000000010000000",
        "0000000000000000",
    ];
    assert_eq!(patterns(named(&cases, "masks")), expected);
}

#[test]
fn masks_leave_something_out_even_of_two_tokens() {
    let bits = |mask: Mask, sequence| (0..sequence).map(|at| mask.keeps(at, sequence)).collect::<Vec<_>>();
    assert_eq!(bits(Mask::Left, 2), [false, true]);
    assert_eq!(bits(Mask::Right, 2), [true, false]);
    for mask in [Mask::Left, Mask::Right, Mask::Holes, Mask::Single] {
        assert_eq!(bits(mask, 1), [true]);
    }
}

#[test]
fn tokens_are_what_the_names_say() {
    let cases = cases(FixedShape::default());
    assert_eq!(rows(named(&cases, "first and last id"), "input_ids"), [[0, 29, 0, 29]]);
    let repeated = rows(named(&cases, "one id repeated"), "input_ids")[0];
    assert!(repeated.iter().all(|id| *id == repeated[0]));
    assert_eq!(rows(named(&cases, "one id repeated"), "token_type_ids"), [[0; 12]]);
    assert_eq!(rows(named(&cases, "two segments"), "token_type_ids"), [[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]]);
    assert_eq!(rows(named(&cases, "token types of one"), "token_type_ids"), [[1; 11]]);
    let random = rows(named(&cases, "longest"), "token_type_ids")[0];
    assert!(random.contains(&0) && random.contains(&1));
}

#[test]
fn one_token_type_leaves_no_pairs() {
    let limits = Limits { token_types: 1, ..LIMITS };
    for batch in [None, Some(2)] {
        let cases = default_cases(&limits, FixedShape { batch, sequence: Some(6) }, None, None).unwrap();
        assert!(cases.iter().all(|case| rows(case, "token_type_ids").concat().iter().all(|&kind| kind == 0)));
        assert!(!cases.iter().any(|case| case.name.contains("segments")));
    }
}

fn of_the_default_model(fixed: FixedShape) -> Vec<Case> {
    let subject = Subject::open(None).unwrap();
    let tables = EmbeddingTables::of(&subject.files().checkpoint().unwrap(), subject.family()).unwrap();
    let tokenizer = subject.tokenizer().unwrap();
    default_cases(&subject.limits(), fixed, tokenizer.as_ref(), Some(&tables)).unwrap()
}

/// What the f64 proof of a six-layer model can run through in a minute on two cores.
const MOST_TOKENS: usize = 1500;

#[test]
fn a_model_with_everything_gets_texts_and_low_variance_and_not_too_many_tokens() {
    let cases = of_the_default_model(FixedShape::default());
    for name in ["low variance", "sentences", "pairs", "longest"] {
        named(&cases, name);
    }
    let tokens: usize = cases.iter().map(|case| shape(case).iter().product::<usize>()).sum();
    assert!((512..=MOST_TOKENS).contains(&tokens), "{tokens}");
}

/// The lowest variance of `word + token_type + position` over the positions of some rows.
fn lowest_variance(cases: &[&Case]) -> f64 {
    let subject = Subject::open(None).unwrap();
    let checkpoint = subject.files().checkpoint().unwrap();
    let table = |name: &str| {
        let entry = checkpoint.get(&format!("embeddings.{name}_embeddings.weight")).unwrap();
        (entry.to_value().unwrap().to_f64(), entry.shape[1])
    };
    let [word, types, positions] = ["word", "token_type", "position"].map(table);
    let hidden = word.1;
    let row = |table: &[f64], row: i64| table[row as usize * hidden..][..hidden].to_vec();
    let mut lowest = f64::INFINITY;
    for case in cases {
        for (ids, kinds) in rows(case, "input_ids").iter().zip(rows(case, "token_type_ids")) {
            for (position, (&id, &kind)) in ids.iter().zip(kinds).enumerate() {
                let parts = [row(&word.0, id), row(&types.0, kind), row(&positions.0, position as i64)];
                let sum: Vec<f64> = (0..hidden).map(|at| parts.iter().map(|part| part[at]).sum()).collect();
                let mean = sum.iter().sum::<f64>() / hidden as f64;
                let variance = sum.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / hidden as f64;
                lowest = lowest.min(variance);
            }
        }
    }
    lowest
}

#[test]
fn low_variance_is_lower_than_in_all_other_inputs() {
    let cases = of_the_default_model(FixedShape::default());
    let (low, others): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.name == "low variance");
    let [low, others] = [low, others].map(|cases| lowest_variance(&cases));
    assert!(low < others, "{low:e} against {others:e}");
}

#[test]
fn texts_are_padded_to_a_static_shape() {
    let cases = of_the_default_model(FixedShape { batch: Some(3), sequence: Some(32) });
    let sentences = named(&cases, "sentences");
    assert_eq!(shape(sentences), [3, 32]);
    for (mask, ids) in patterns(sentences).iter().zip(rows(sentences, "input_ids")) {
        assert!(mask.starts_with("111") && mask.ends_with("000"), "{mask}");
        // BERT's [CLS] … [SEP] [PAD].
        assert_eq!(ids[31], 0);
    }
    // A graph that is too short for them goes without.
    let cases = of_the_default_model(FixedShape { batch: None, sequence: Some(5) });
    assert!(cases.iter().all(|case| case.name != "sentences"));
}
