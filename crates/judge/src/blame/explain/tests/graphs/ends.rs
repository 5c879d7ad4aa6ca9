//! Embeddings and pooler.

use super::*;

#[test]
fn lookups() {
    let export = Export::new();
    let add = |edit: &mut Edit, before: &str, input: &str, by: i64| {
        edit.constant("by", Value::scalar(by));
        edit.before(before, "Add", &[input, "by"], "wrong", &[]);
        edit.input(before, 1, "wrong");
    };
    let gather = "/embeddings/position_embeddings/Gather";
    let positions = "/embeddings/Slice_output_0";
    let module = "embeddings.position_embeddings";
    let value = "/model/embeddings/position_embeddings/Gather_output_0";
    for (by, text) in [(2, "positions shifted by +2, as RoBERTa has them"), (1, "positions shifted by +1")] {
        let change = |edit: &mut Edit| add(edit, gather, positions, by);
        export.check(module, value, change, text, None);
        export.check("embeddings", EMBEDDED, change, text, Some(module));
    }
    let frozen = |edit: &mut Edit| {
        edit.constant("zero", Value::scalar(0i64));
        edit.before(gather, "Mul", &[positions, "zero"], "wrong", &[]);
        edit.input(gather, 1, "wrong");
    };
    export.check(module, value, frozen, "all positions take row 0", None);
    let counted = |edit: &mut Edit| {
        edit.constant("axis", Value::scalar(1i64));
        edit.constant("one", Value::scalar(1i64));
        edit.constant("floor", Value::scalar(0i64));
        edit.before(gather, "CumSum", &["attention_mask", "axis"], "count", &[]);
        edit.before(gather, "Sub", &["count", "one"], "less", &[]);
        edit.before(gather, "Max", &["less", "floor"], "wrong", &[]);
        edit.input(gather, 1, "wrong");
    };
    export.check(module, value, counted, "positions counted over real tokens only", None);

    let (gather, module) = ("/embeddings/token_type_embeddings/Gather", "embeddings.token_type_embeddings");
    let value = "/model/embeddings/token_type_embeddings/Gather_output_0";
    let ignored = |edit: &mut Edit| {
        edit.constant("zero", Value::scalar(0i64));
        edit.before(gather, "Mul", &["token_type_ids", "zero"], "wrong", &[]);
        edit.input(gather, 1, "wrong");
    };
    export.check(module, value, ignored, "token types ignored: all take row 0", None);
    export.check(
        "embeddings.LayerNorm",
        EMBEDDED,
        |edit| edit.input("/embeddings/Add_1", 0, "/embeddings/word_embeddings/Gather_output_0"),
        "left out of the sum",
        Some(module),
    );
    let mask = |edit: &mut Edit| edit.input(gather, 1, "attention_mask");
    export.check(module, value, mask, "takes attention_mask for token_type_ids", None);

    let (gather, module) = ("/embeddings/word_embeddings/Gather", "embeddings.word_embeddings");
    let value = "/model/embeddings/word_embeddings/Gather_output_0";
    export.check(module, value, |edit| add(edit, gather, "input_ids", 1), "token ids shifted by +1", None);
    let padding = |edit: &mut Edit| {
        edit.constant("zero", Value::scalar(0i64));
        edit.ints("last", &[-1]);
        let after = "/embeddings/Add";
        edit.before(after, "Equal", &["input_ids", "zero"], "is", &[]);
        edit.before(after, "Not", &["is"], "not", &[]);
        edit.before(after, "Cast", &["not"], "bit", &[("to", Attribute::Int(1))]);
        edit.before(after, "Unsqueeze", &["bit", "last"], "bits", &[]);
        edit.before(after, "Mul", &["/embeddings/word_embeddings/Gather_output_0", "bits"], "padded", &[]);
    };
    export.check(module, "padded", padding, "the row of padding, token 0, is 0", None);
}

#[test]
fn poolers() {
    let export = Export::new();
    let check = |change: &dyn Fn(&mut Edit), text: &str, blamed| {
        export.check("pooler", "pooler_output", change, text, blamed);
    };
    let (tanh, gather) = ("/pooler/activation/Tanh", "/pooler/Gather");
    let projected = "/pooler/dense/Gemm_output_0";
    check(&|edit| edit.op(tanh, "Identity", &[projected], &[]), "pooler without tanh", None);
    check(&|edit| edit.op(tanh, "Relu", &[projected], &[]), "activation is relu instead of tanh", None);
    check(
        &|edit| edit.op(tanh, "Tanh", &["/pooler/Gather_output_0"], &[]),
        "weight left out: the input goes through as it is",
        Some("pooler.dense"),
    );
    check(
        &|edit| edit.op(tanh, "Identity", &["/pooler/Gather_output_0"], &[]),
        "pooler missing: the first token goes out as it is",
        None,
    );
    for (at, text) in
        [(-1i64, "takes the last token, not the first"), (1, "takes the second token, not the first")]
    {
        let token = |edit: &mut Edit| {
            edit.constant("at", Value::scalar(at));
            edit.input(gather, 1, "at");
        };
        check(&token, text, Some("pooler.dense"));
        export.check("pooler.dense", "/model/pooler/dense/Gemm_output_0", token, text, None);
    }
    let reduce = |edit: &mut Edit, op: &str| {
        edit.op(gather, op, &["last_hidden_state"], &[("axes", ints(&[1])), ("keepdims", Attribute::Int(0))]);
    };
    check(
        &|edit| reduce(edit, "ReduceMean"),
        "takes the mean of all tokens, padding included",
        Some("pooler.dense"),
    );
    check(&|edit| reduce(edit, "ReduceMax"), "takes the largest value of all tokens", Some("pooler.dense"));
}

#[test]
fn sums_and_tables_of_another_kind() {
    let export = Export::new();
    let check = |part: &str, change: &dyn Fn(&mut Edit), text: &str| {
        let value = format!("/model/embeddings/{part}/Gather_output_0");
        export.check(&format!("embeddings.{part}"), &value, change, text, None);
    };
    let gather = "/embeddings/token_type_embeddings/Gather";
    let minus = |edit: &mut Edit, ids: &str, before: &str, from: i64| {
        edit.constant("from", Value::scalar(from));
        edit.before(before, "Sub", &["from", ids], "wrong", &[]);
        edit.input(before, 1, "wrong");
    };
    check("token_type_embeddings", &|edit| minus(edit, "token_type_ids", gather, 1), "token types inverted");
    let text = "takes attention_mask, inverted, for token_type_ids";
    check("token_type_embeddings", &|edit| minus(edit, "attention_mask", gather, 1), text);
    let gather = "/embeddings/position_embeddings/Gather";
    let positions = "/embeddings/Slice_output_0";
    check("position_embeddings", &|edit| minus(edit, positions, gather, 10), "positions reversed");
    // Σ of the mask, times the mask, from `first`.
    let roberta = |edit: &mut Edit, first: i64| {
        edit.constant("axis", Value::scalar(1i64));
        edit.constant("first", Value::scalar(first));
        edit.before(gather, "CumSum", &["attention_mask", "axis"], "count", &[]);
        edit.before(gather, "Mul", &["count", "attention_mask"], "real", &[]);
        edit.before(gather, "Add", &["real", "first"], "wrong", &[]);
        edit.input(gather, 1, "wrong");
    };
    let text = "positions counted over real tokens only, from 2, as RoBERTa has them";
    check("position_embeddings", &|edit| roberta(edit, 1), text);
    let text = "positions counted over real tokens only, padding at 0";
    check("position_embeddings", &|edit| roberta(edit, 0), text);

    let (first, last) = ("/embeddings/Add_1", "/embeddings/LayerNorm/LayerNormalization");
    let (word, position) =
        ("/embeddings/word_embeddings/Gather_output_0", "/embeddings/position_embeddings/Gather_output_0");
    let module = Some("embeddings.position_embeddings");
    let without = |edit: &mut Edit| edit.input(last, 0, "/embeddings/Add_output_0");
    export.check("embeddings", EMBEDDED, without, "left out of the sum", module);
    let twice = |edit: &mut Edit| {
        edit.before(last, "Add", &["/embeddings/Add_1_output_0", position], "twice", &[]);
        edit.input(last, 0, "twice");
    };
    export.check("embeddings", EMBEDDED, twice, "added twice", module);
    let only = |edit: &mut Edit| edit.op(first, "Identity", &[word], &[]);
    export.check("embeddings", EMBEDDED, only, "only word_embeddings are left", None);
}

#[test]
fn poolers_of_real_tokens() {
    let export = Export::new();
    let gather = "/pooler/Gather";
    // Takes the place of the first token's values; `bits` is 1 for real tokens.
    let check = |change: &dyn Fn(&mut Edit), text: &str| {
        let change = |edit: &mut Edit| {
            edit.ints("minus one", &[-1]);
            edit.ints("one", &[1]);
            edit.before(gather, "Unsqueeze", &["attention_mask", "minus one"], "whole", &[]);
            edit.before(gather, "Cast", &["whole"], "bits", &[("to", Attribute::Int(1))]);
            change(edit);
        };
        export.check("pooler", "pooler_output", change, text, Some("pooler.dense"));
    };
    let flat = [("keepdims", Attribute::Int(0))];
    let sum = |edit: &mut Edit, output: &str, bits: &str| {
        edit.before(gather, "Mul", &["last_hidden_state", bits], "masked", &[]);
        edit.before(gather, "ReduceSum", &["masked", "one"], output, &flat);
    };
    let the_sum = |edit: &mut Edit| {
        sum(edit, "sum", "bits");
        edit.op(gather, "Identity", &["sum"], &[]);
    };
    check(&the_sum, "takes the sum of all real tokens");
    let mean = |edit: &mut Edit| {
        sum(edit, "sum", "bits");
        edit.before(gather, "ReduceSum", &["bits", "one"], "count", &flat);
        edit.op(gather, "Div", &["sum", "count"], &[]);
    };
    check(&mean, "takes the mean of all real tokens");
    let largest = |edit: &mut Edit| {
        edit.float("lowest", f32::MIN);
        edit.before(gather, "Cast", &["whole"], "real", &[("to", Attribute::Int(9))]);
        edit.before(gather, "Where", &["real", "last_hidden_state", "lowest"], "masked", &[]);
        edit.op(gather, "ReduceMax", &["masked"], &[("axes", ints(&[1])), ("keepdims", Attribute::Int(0))]);
    };
    check(&largest, "takes the largest value of all real tokens");
    // The real token at which `weights`, which differ, are largest.
    let token = |edit: &mut Edit, weights: Vec<i64>| {
        edit.ints("weights", &weights);
        edit.before(gather, "Mul", &["attention_mask", "weights"], "ranks", &[]);
        edit.before(gather, "ReduceMax", &["ranks"], "best", &[("axes", ints(&[1]))]);
        edit.before(gather, "Equal", &["ranks", "best"], "is", &[]);
        edit.before(gather, "Cast", &["is"], "picked", &[("to", Attribute::Int(1))]);
        edit.before(gather, "Unsqueeze", &["picked", "minus one"], "pick", &[]);
        sum(edit, "sum", "pick");
        edit.op(gather, "Identity", &["sum"], &[]);
    };
    check(&|edit| token(edit, (1..12).collect()), "takes the last real token, not the first");
    let text = "takes the first real token, where the padding is on the left";
    check(&|edit| token(edit, (1..12).rev().collect()), text);
}
