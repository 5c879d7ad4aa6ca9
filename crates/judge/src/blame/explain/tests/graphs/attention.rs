//! `attention.self`.

use super::*;

#[test]
fn masks() {
    let export = Export::new();
    let check = |change: &dyn Fn(&mut Edit), text: &str| export.check(SELF, CONTEXT, change, text, None);
    check(&|edit| edit.input(&s("Softmax"), 0, &s("Div_output_0")), "mask ignored: padding is attended to");
    check(&|edit| edit.input("/Mul", 0, "/Cast_output_0"), "mask inverted: only padding is attended to");
    let old = |edit: &mut Edit| {
        edit.input("/Mul", 0, "/Cast_output_0");
        edit.float("old", -1e4);
        edit.input("/Mul", 1, "old");
    };
    check(&old, "mask inverted: only padding is attended to");
    let transposed = |edit: &mut Edit| {
        edit.before(&s("Add"), "Transpose", &["/Mul_output_0"], "wrong", &[("perm", ints(&[0, 1, 3, 2]))]);
        edit.input(&s("Add"), 1, "wrong");
    };
    check(&transposed, "mask on the wrong axis: it masks the queries, not the keys");
    let by_length = |edit: &mut Edit| {
        edit.ints("one", &[1]);
        edit.ints("positions", &(0..11).collect::<Vec<_>>());
        edit.before("/Unsqueeze", "ReduceSum", &["attention_mask", "one"], "length", &[]);
        edit.before("/Unsqueeze", "Less", &["positions", "length"], "within", &[]);
        edit.before("/Unsqueeze", "Cast", &["within"], "cut", &[("to", Attribute::Int(7))]);
        edit.input("/Unsqueeze", 0, "cut");
    };
    check(&by_length, "mask taken for a length: the first tokens are attended to (right padding assumed)");
    let causal = |edit: &mut Edit| {
        let bits: Vec<f32> = (0..121).map(|at| if at % 11 > at / 11 { f32::MIN } else { 0. }).collect();
        edit.constant("causal", Value::new([11, 11], bits).unwrap());
        edit.before(&s("Softmax"), "Add", &[&s("Add_output_0"), "causal"], "wrong", &[]);
        edit.input(&s("Softmax"), 0, "wrong");
    };
    check(&causal, "causal: only earlier tokens are attended to");
    check(&|edit| edit.input("/Unsqueeze", 0, "token_type_ids"), "token_type_ids taken for the mask");
    let after = |edit: &mut Edit| {
        edit.input(&s("Softmax"), 0, &s("Div_output_0"));
        edit.before(&s("MatMul_1"), "Mul", &[&s("Softmax_output_0"), "/Cast_output_0"], "wrong", &[]);
        edit.input(&s("MatMul_1"), 0, "wrong");
    };
    check(&after, "mask applied after the softmax");
    let raw = |edit: &mut Edit| edit.input(&s("Add"), 1, "/Cast_output_0");
    check(&raw, "masked scores are lowered by 1 only, as if the mask's 0 and 1 were added as they are");
    let first = |edit: &mut Edit| {
        edit.ints("zero", &[0]);
        edit.before(
            "/Unsqueeze",
            "Gather",
            &["attention_mask", "zero"],
            "first",
            &[("axis", Attribute::Int(0))],
        );
        edit.input("/Unsqueeze", 0, "first");
    };
    let mut rotated = Export::new();
    let mut bits = rotated.bench.inputs.get("attention_mask").unwrap().as_slice::<i64>().unwrap().to_vec();
    bits.rotate_left(11);
    rotated.mask(bits);
    rotated.check(SELF, CONTEXT, first, "the first text's mask is taken for every text", None);
    for (by, text) in [(-10f32, "10"), (-7.25, "7.25"), (-0.5, "0.5"), (-25., "25")] {
        let weak = |edit: &mut Edit| {
            edit.float("weak", by);
            edit.input("/Mul", 1, "weak");
        };
        check(&weak, &format!("masked scores are lowered by {text} only"));
    }
}

#[test]
fn masks_by_position() {
    let export = Export::new();
    let check = |change: &dyn Fn(&mut Edit), text: &str| export.check(SELF, CONTEXT, change, text, None);
    // `cut` is 1 where `bits` is true, in place of the mask.
    let bits = |edit: &mut Edit, op: &str, a: &str, b: &str| {
        edit.before("/Unsqueeze", op, &[a, b], "bits", &[]);
        edit.before("/Unsqueeze", "Cast", &["bits"], "cut", &[("to", Attribute::Int(7))]);
        edit.input("/Unsqueeze", 0, "cut");
    };
    let left = |edit: &mut Edit| {
        edit.ints("one", &[1]);
        edit.ints("from the end", &(0..11).rev().collect::<Vec<_>>());
        edit.before("/Unsqueeze", "ReduceSum", &["attention_mask", "one"], "length", &[]);
        bits(edit, "Less", "from the end", "length");
    };
    check(&left, "mask taken for a length: the last tokens are attended to (left padding assumed)");
    let up_to_last = |edit: &mut Edit| {
        edit.ints("from one", &(1..12).collect::<Vec<_>>());
        edit.before("/Unsqueeze", "Mul", &["attention_mask", "from one"], "real", &[]);
        edit.before("/Unsqueeze", "ReduceMax", &["real"], "last", &[("axes", ints(&[1]))]);
        bits(edit, "LessOrEqual", "from one", "last");
    };
    check(&up_to_last, "mask taken for a length: all up to the last real token are attended to");
    let types = |edit: &mut Edit| {
        edit.ints("one", &[1]);
        edit.before("/Unsqueeze", "Sub", &["one", "token_type_ids"], "inverted", &[]);
        edit.input("/Unsqueeze", 0, "inverted");
    };
    check(&types, "token_type_ids taken for the mask, inverted");
    let times = |edit: &mut Edit| {
        edit.before(&s("Softmax"), "Mul", &[&s("Div_output_0"), "/Cast_output_0"], "wrong", &[]);
        edit.input(&s("Softmax"), 0, "wrong");
    };
    check(&times, "scores are multiplied by the mask: padding has the score 0");
    let causal = |edit: &mut Edit| {
        let bits: Vec<f32> = (0..121).map(|at| if at % 11 > at / 11 { f32::MIN } else { 0. }).collect();
        edit.constant("causal", Value::new([11, 11], bits).unwrap());
        edit.input(&s("Add"), 1, "causal");
    };
    check(&causal, "causal: only earlier tokens are attended to, and the mask is ignored");
}

#[test]
fn a_mask_constant_shows_only_in_rows_that_do_not_decide() {
    let mut export = Export::new();
    let mut bits = export.bench.inputs.get("attention_mask").unwrap().as_slice::<i64>().unwrap().to_vec();
    bits[33..].fill(0);
    export.mask(bits);
    for by in [-1e4, -1e9] {
        let found = export.found(CONTEXT, |edit| {
            edit.float("old", by);
            edit.input("/Mul", 1, "old");
        });
        assert_eq!(explain(&export.bench.evidence(), SELF, &found).unwrap(), None);
    }
}

#[test]
fn scales() {
    let export = Export::new();
    for (divisor, text) in [
        (1., "scores not scaled by 1/√d: 1 instead of 0.35355"),
        (8., "scores scaled by 1/√d twice: 0.125 instead of 0.35355"),
        (4., "scores scaled by 1/√hidden_size, not by 1/√d: 0.25 instead of 0.35355"),
        (16., "scores scaled by 1/hidden_size, not by 1/√d: 0.0625 instead of 0.35355"),
        (8f32.powf(0.25), "scores scaled by 1/√d on one side only: d^-¼: 0.5946 instead of 0.35355"),
        (2.5, "scores scaled by 0.4 instead of 0.35355"),
        (0.2, "scores scaled by 5 instead of 0.35355"),
        (100., "scores scaled by 0.01 instead of 0.35355"),
        (1. / 8f32.sqrt(), "scores scaled by √d, not by 1/√d: 2.8284 instead of 0.35355"),
        (-(8f32.sqrt()), "scores negated"),
    ] {
        let scale = |edit: &mut Edit| {
            edit.float("divisor", divisor);
            edit.input(&s("Div"), 1, "divisor");
        };
        export.check(SELF, CONTEXT, scale, text, None);
    }
}

#[test]
fn softmaxes_roles_and_heads() {
    let export = Export::new();
    let check = |change: &dyn Fn(&mut Edit), text: &str| export.check(SELF, CONTEXT, change, text, None);
    for (axis, text) in
        [(2, "softmax over the queries, not over the keys"), (1, "softmax over the heads, not over the keys")]
    {
        check(&|edit| edit.attribute(&s("Softmax"), "axis", Attribute::Int(axis)), text);
    }
    let [query, key, value] = ["query", "key", "value"].map(|role| s(&format!("{role}/Add_output_0")));
    let order = |edit: &mut Edit, parts: [&str; 3]| {
        for (node, part) in ["Reshape", "Reshape_1", "Reshape_2"].iter().zip(parts) {
            edit.input(&s(node), 0, part);
        }
    };
    check(&|edit| order(edit, [&key, &query, &value]), "query and key exchanged");
    check(&|edit| order(edit, [&query, &value, &key]), "key and value exchanged");
    check(&|edit| order(edit, [&query, &key, &key]), "key taken as the value");
    let heads = |edit: &mut Edit| {
        edit.ints("four", &[4]);
        for concat in ["Concat", "Concat_1", "Concat_2"] {
            edit.input(&s(concat), 2, "four");
            edit.input(&s(concat), 3, "four");
        }
    };
    check(&heads, "4 heads, config.json says 2; scaled as if for 2");
    let both = |edit: &mut Edit| {
        heads(edit);
        edit.float("two", 2.);
        edit.input(&s("Div"), 1, "two");
    };
    check(&both, "4 heads, config.json says 2");
    let interleaved = |edit: &mut Edit| {
        edit.ints("size", &[8]);
        edit.ints("heads", &[2]);
        for concat in ["Concat", "Concat_1", "Concat_2"] {
            edit.input(&s(concat), 2, "size");
            edit.input(&s(concat), 3, "heads");
        }
        for (node, perm) in
            [("Transpose", [0, 3, 1, 2]), ("Transpose_1", [0, 3, 1, 2]), ("Transpose_2", [0, 3, 2, 1])]
        {
            edit.attribute(&s(node), "perm", ints(&perm));
        }
    };
    check(&interleaved, "hidden size split as [head size, heads], not as [heads, head size]");
    check(
        &|edit| edit.input(&s("Reshape_3"), 0, &s("MatMul_1_output_0")),
        "heads not transposed back before they are joined",
    );
}

#[test]
fn heads_joined() {
    let export = Export::new();
    let check = |change: &dyn Fn(&mut Edit), text: &str| export.check(SELF, CONTEXT, change, text, None);
    let reversed = |edit: &mut Edit| {
        edit.ints("reversed", &[1, 0]);
        let context = s("MatMul_1_output_0");
        edit.before(
            &s("Transpose_3"),
            "Gather",
            &[&context, "reversed"],
            "wrong",
            &[("axis", Attribute::Int(1))],
        );
        edit.input(&s("Transpose_3"), 0, "wrong");
    };
    check(&reversed, "heads joined in reverse order");
    let interleaved = |edit: &mut Edit| {
        edit.ints("size", &[8]);
        edit.ints("heads", &[2]);
        for concat in ["Concat", "Concat_1", "Concat_2"] {
            edit.input(&s(concat), 2, "size");
            edit.input(&s(concat), 3, "heads");
        }
        let perms = [
            ("Transpose", [0, 3, 1, 2]),
            ("Transpose_1", [0, 3, 1, 2]),
            ("Transpose_2", [0, 3, 2, 1]),
            ("Transpose_3", [0, 2, 3, 1]),
        ];
        for (node, perm) in perms {
            edit.attribute(&s(node), "perm", ints(&perm));
        }
    };
    check(&interleaved, "hidden size split and joined as [head size, heads], not as [heads, head size]");
}
