//! Activations, norms, residuals, and dense modules.

use engine::DType;

use super::*;

#[test]
fn activations() {
    let export = Export::new();
    let module = "encoder.layer.0.intermediate";
    let x = "/encoder/layer.0/intermediate/dense/Add_output_0";
    let last = "/encoder/layer.0/intermediate/intermediate_act_fn/Mul_1";
    let check = |change: &dyn Fn(&mut Edit), text: &str| export.check(module, ACTIVATED, change, text, None);
    check(&|edit| edit.op(last, "Relu", &[x], &[]), "activation is relu, config.json says gelu");
    check(&|edit| edit.op(last, "Tanh", &[x], &[]), "activation is tanh, config.json says gelu");
    check(&|edit| edit.op(last, "Identity", &[x], &[]), "activation left out");
    let sigmoid = |edit: &mut Edit, factor: f32| {
        edit.float("factor", factor);
        edit.before(last, "Mul", &[x, "factor"], "scaled", &[]);
        edit.before(last, "Sigmoid", &["scaled"], "sigmoid", &[]);
        edit.op(last, "Mul", &[x, "sigmoid"], &[]);
    };
    check(&|edit| sigmoid(edit, 1.), "activation is silu, config.json says gelu");
    check(&|edit| sigmoid(edit, 1.702), "activation is quick_gelu, config.json says gelu");
    let tanh = |edit: &mut Edit, factor: f32| {
        for (name, x) in [("cube", 3.), ("c", 0.044715), ("factor", factor), ("one", 1.), ("half", 0.5)] {
            edit.float(name, x);
        }
        for (op, inputs, output) in [
            ("Pow", [x, "cube"], "x3"),
            ("Mul", ["x3", "c"], "cx3"),
            ("Add", [x, "cx3"], "sum"),
            ("Mul", ["sum", "factor"], "inner"),
        ] {
            edit.before(last, op, &inputs, output, &[]);
        }
        edit.before(last, "Tanh", &["inner"], "tanh", &[]);
        edit.before(last, "Add", &["tanh", "one"], "above", &[]);
        edit.before(last, "Mul", &[x, "above"], "twice", &[]);
        edit.op(last, "Mul", &["twice", "half"], &[]);
    };
    check(&|edit| tanh(edit, (2f64 / std::f64::consts::PI).sqrt() as f32), "gelu = tanh approximation");
}

#[test]
fn an_activation_that_should_not_be_erf() {
    // As if config.json said another one than the checkpoint was exported with.
    let bench = Bench::new("baseline");
    let found = bench.taps.get("encoder.layer.0.intermediate").unwrap();
    let other = architecture::Activation::GeluTanh;
    let mut program = bench.program.clone();
    for step in &mut program.steps {
        if let Op::Activation { function, configured: true } = &mut step.op {
            *function = other;
        }
    }
    let dense = bench.evidence().tap("encoder.layer.0.intermediate.dense").unwrap();
    let mut taps = bench.taps.clone();
    let reference = Value::from_tensor(&formulas::activated(other, &dense).unwrap()).unwrap();
    taps.insert("encoder.layer.0.intermediate", reference);
    let evidence = Evidence { program: &program, taps: &taps, ..bench.evidence() };
    let explanation = explain(&evidence, "encoder.layer.0.intermediate", found).unwrap().unwrap();
    assert_eq!(explanation.text, "activation is gelu (erf), config.json says gelu_new");
}

#[test]
fn eps() {
    let export = Export::new();
    for (module, value, node) in [
        ("embeddings.LayerNorm", EMBEDDED, "/embeddings/LayerNorm/LayerNormalization"),
        (
            "encoder.layer.0.attention.output.LayerNorm",
            NORMED,
            "/encoder/layer.0/attention/output/LayerNorm/LayerNormalization",
        ),
    ] {
        for (eps, text) in
            [(1e-5, "1e-5"), (1e-3, "1e-3"), (1e-6, "1e-6"), (2.5e-3, "2.5e-3"), (0.125, "1.25e-1")]
        {
            let change = |edit: &mut Edit| edit.attribute(node, "epsilon", Attribute::Float(eps));
            let text = format!("eps {text} in the graph, 1e-12 in config.json");
            export.check(module, value, change, &text, None);
        }
    }
}

#[test]
fn norms() {
    let export = Export::new();
    let module = "encoder.layer.0.attention.output.LayerNorm";
    let node = "/encoder/layer.0/attention/output/LayerNorm/LayerNormalization";
    let x = "/encoder/layer.0/attention/output/Add_output_0";
    let gain = "model.encoder.layer.0.attention.output.LayerNorm.weight";
    let bias = "model.encoder.layer.0.attention.output.LayerNorm.bias";
    let check = |change: &dyn Fn(&mut Edit), text: &str| export.check(module, NORMED, change, text, None);
    check(&|edit| edit.op(node, "Identity", &[x], &[]), "LayerNorm left out");
    check(
        &|edit| {
            edit.input(node, 1, bias);
            edit.input(node, 2, gain);
        },
        "gain and bias exchanged",
    );
    check(
        &|edit| {
            edit.node(node).inputs.truncate(2);
        },
        "bias left out",
    );
    let rms = |edit: &mut Edit| {
        edit.float("eps", 1e-12);
        edit.before(node, "Mul", &[x, x], "square", &[]);
        edit.before(node, "ReduceMean", &["square"], "mean", &[("axes", ints(&[-1]))]);
        edit.before(node, "Add", &["mean", "eps"], "sum", &[]);
        edit.before(node, "Sqrt", &["sum"], "root", &[]);
        edit.before(node, "Div", &[x, "root"], "quotient", &[]);
        edit.before(node, "Mul", &["quotient", gain], "scaled", &[]);
        edit.op(node, "Add", &["scaled", bias], &[]);
    };
    check(&rms, "mean not subtracted (RMSNorm)");
    let unbiased = |edit: &mut Edit| {
        edit.float("eps", 1e-12);
        edit.float("fewer", 15.);
        edit.before(node, "ReduceMean", &[x], "mean", &[("axes", ints(&[-1]))]);
        edit.before(node, "Sub", &[x, "mean"], "centred", &[]);
        edit.before(node, "ReduceSumSquare", &["centred"], "squares", &[("axes", ints(&[-1]))]);
        edit.before(node, "Div", &["squares", "fewer"], "variance", &[]);
        edit.before(node, "Add", &["variance", "eps"], "sum", &[]);
        edit.before(node, "Sqrt", &["sum"], "root", &[]);
        edit.before(node, "Div", &["centred", "root"], "quotient", &[]);
        edit.before(node, "Mul", &["quotient", gain], "scaled", &[]);
        edit.op(node, "Add", &["scaled", bias], &[]);
    };
    check(&unbiased, "variance divided by n − 1, not n");
}

#[test]
fn residuals() {
    let export = Export::new();
    let (output, norm) = ("encoder.layer.0.attention.output", "encoder.layer.0.attention.output.LayerNorm");
    let node = "/encoder/layer.0/attention/output/LayerNorm/LayerNormalization";
    let add = "/encoder/layer.0/attention/output/Add";
    let dense = "/encoder/layer.0/attention/output/dense/Add_output_0";
    let hidden = "/embeddings/LayerNorm/LayerNormalization_output_0";
    let sum = "/encoder/layer.0/attention/output/Add_output_0";
    let check = |change: &dyn Fn(&mut Edit), text: &str| {
        export.check(output, NORMED, change, text, None);
        // Where the norm was asked about, the sum before it is to blame.
        export.check(norm, NORMED, change, text, Some(output));
    };
    check(&|edit| edit.input(node, 0, dense), "residual connection missing");
    check(&|edit| edit.input(node, 0, hidden), "only the residual is left, the sublayer is missing");
    check(&|edit| edit.op(add, "Sub", &[dense, hidden], &[]), "residual subtracted");
    let twice = |edit: &mut Edit| {
        edit.before(node, "Add", &[sum, hidden], "twice", &[]);
        edit.input(node, 0, "twice");
    };
    check(&twice, "residual added twice");
    let text = format!("residual taken from {SELF}, not from embeddings");
    check(&|edit| edit.input(add, 1, &s("Reshape_3_output_0")), &text);
    let pre = |edit: &mut Edit| {
        edit.before(
            node,
            "LayerNormalization",
            &[
                dense,
                "model.encoder.layer.0.attention.output.LayerNorm.weight",
                "model.encoder.layer.0.attention.output.LayerNorm.bias",
            ],
            "normed",
            &[("epsilon", Attribute::Float(1e-12))],
        );
        edit.op(node, "Add", &["normed", hidden], &[]);
    };
    check(&pre, "LayerNorm before the residual is added (pre-norm)");
}

#[test]
fn norms_of_another_kind() {
    let export = Export::new();
    let module = "encoder.layer.0.attention.output.LayerNorm";
    let node = "/encoder/layer.0/attention/output/LayerNorm/LayerNormalization";
    let x = "/encoder/layer.0/attention/output/Add_output_0";
    let gain = "model.encoder.layer.0.attention.output.LayerNorm.weight";
    let bias = "model.encoder.layer.0.attention.output.LayerNorm.bias";
    let check = |change: &dyn Fn(&mut Edit), text: &str| export.check(module, NORMED, change, text, None);
    let plain = |edit: &mut Edit| {
        edit.constant("one", Value::new([16], vec![1f32; 16]).unwrap());
        edit.input(node, 1, "one");
        edit.node(node).inputs.truncate(2);
    };
    check(&plain, "gain and bias left out");
    let twice = |edit: &mut Edit| {
        edit.before(node, "Mul", &[gain, gain], "square", &[]);
        edit.input(node, 1, "square");
    };
    check(&twice, "gain applied twice");
    for (to, name) in [(10, "f16"), (16, "bf16")] {
        let round = |edit: &mut Edit| {
            for (at, from) in [(1, gain), (2, bias)] {
                let (low, back) = (format!("low {at}"), format!("back {at}"));
                edit.before(node, "Cast", &[from], &low, &[("to", Attribute::Int(to))]);
                edit.before(node, "Cast", &[&low], &back, &[("to", Attribute::Int(1))]);
                edit.input(node, at, &back);
            }
        };
        check(&round, &format!("gain and bias rounded to {name}"));
    }
    let axis = |edit: &mut Edit| {
        edit.float("eps", 1e-12);
        edit.before(node, "ReduceMean", &[x], "mean", &[("axes", ints(&[1]))]);
        edit.before(node, "Sub", &[x, "mean"], "centred", &[]);
        edit.before(node, "Mul", &["centred", "centred"], "square", &[]);
        edit.before(node, "ReduceMean", &["square"], "variance", &[("axes", ints(&[1]))]);
        edit.before(node, "Add", &["variance", "eps"], "sum", &[]);
        edit.before(node, "Sqrt", &["sum"], "root", &[]);
        edit.before(node, "Div", &["centred", "root"], "quotient", &[]);
        edit.before(node, "Mul", &["quotient", gain], "scaled", &[]);
        edit.op(node, "Add", &["scaled", bias], &[]);
    };
    check(&axis, "normalised over the sequence, not over the features");
    let residual = |edit: &mut Edit| {
        edit.before(
            node,
            "LayerNormalization",
            &["/embeddings/LayerNorm/LayerNormalization_output_0", gain, bias],
            "normed",
            &[("epsilon", Attribute::Float(1e-12))],
        );
        edit.op(node, "Add", &["normed", "/encoder/layer.0/attention/output/dense/Add_output_0"], &[]);
    };
    export.check(
        "encoder.layer.0.attention.output",
        NORMED,
        residual,
        "LayerNorm of the residual alone",
        None,
    );
}

#[test]
fn wrong_wires_and_half_precision() {
    let export = Export::new();
    let module = "encoder.layer.0.output.dense";
    let value = "/model/encoder/layer.0/output/dense/Add_output_0";
    let half = |edit: &mut Edit| {
        let node = "/encoder/layer.0/output/dense/Add";
        edit.before(
            node,
            "Cast",
            &["/encoder/layer.0/output/dense/MatMul_output_0"],
            "half",
            &[("to", Attribute::Int(10))],
        );
        edit.before(
            node,
            "Cast",
            &["model.encoder.layer.0.output.dense.bias"],
            "bias",
            &[("to", Attribute::Int(10))],
        );
        edit.before(node, "Add", &["half", "bias"], "low", &[]);
        edit.op(node, "Cast", &["low"], &[("to", Attribute::Int(1))]);
    };
    // Neither the weight nor the input was rounded, and that is not one of the hypotheses.
    let found = export.found(value, half);
    assert_eq!(found.dtype(), DType::F64);
    assert_eq!(explain(&export.bench.evidence(), module, &found).unwrap(), None);
    let out = |edit: &mut Edit| {
        let node = "/encoder/layer.0/output/Add";
        let dense = "/encoder/layer.0/output/dense/Add_output_0";
        edit.before(node, "Cast", &[dense], "low", &[("to", Attribute::Int(10))]);
    };
    let found = changed(&export.found("low", out), |_, x| x);
    assert_eq!(export.bench.explain(module, &found).text, "output rounded to f16");
    let query = |edit: &mut Edit| {
        edit.input(
            "/encoder/layer.0/attention/self/query/MatMul",
            0,
            "/embeddings/word_embeddings/Gather_output_0",
        );
    };
    let value = "/model/encoder/layer.0/attention/self/query/Add_output_0";
    export.check(
        &format!("{SELF}.query"),
        value,
        query,
        "takes embeddings.word_embeddings as its input",
        None,
    );
}

#[test]
fn products_of_half_precision() {
    let export = Export::new();
    let (matmul, add) = ("/encoder/layer.0/output/dense/MatMul", "/encoder/layer.0/output/dense/Add");
    let module = "encoder.layer.0.output.dense";
    let value = "/model/encoder/layer.0/output/dense/Add_output_0";
    let cast = |edit: &mut Edit, node: &str, from: &str, to: i64| {
        let output = format!("{from} as {to}");
        edit.before(node, "Cast", &[from], &output, &[("to", Attribute::Int(to))]);
        output
    };
    for (dtype, name) in [(10, "f16"), (16, "bf16")] {
        let inputs = |edit: &mut Edit| {
            for at in 0..2 {
                let from = edit.node(matmul).inputs[at].clone();
                let low = cast(edit, matmul, &from, dtype);
                let back = cast(edit, matmul, &low, 1);
                edit.input(matmul, at, &back);
            }
        };
        export.check(module, value, inputs, &format!("matrix product of {name}"), None);
        let all = |edit: &mut Edit| {
            for at in 0..2 {
                let from = edit.node(matmul).inputs[at].clone();
                let low = cast(edit, matmul, &from, dtype);
                edit.input(matmul, at, &low);
            }
            let bias = cast(edit, add, "model.encoder.layer.0.output.dense.bias", dtype);
            edit.before(add, "Add", &["/encoder/layer.0/output/dense/MatMul_output_0", &bias], "low", &[]);
            edit.op(add, "Cast", &["low"], &[("to", Attribute::Int(1))]);
        };
        export.check(module, value, all, &format!("computed in {name}"), None);
    }
}
