//! Small reports made by hand.

use crate::*;

/// A graph that passes, of a model with so many layers.
pub fn pass(layers: usize) -> Report {
    let input =
        |name: &str, shape: &[usize], tokens| InputSummary { name: name.into(), shape: shape.into(), tokens };
    Report {
        schema: SCHEMA.into(),
        verdict: Verdict::Pass,
        model: "org/model".into(),
        reference: Some(ReferenceSide {
            kind: ReferenceKind::Checkpoint,
            text: "natively on candle in f32 (2 layers)".into(),
        }),
        onnx: Some("onnx/model.onnx".into()),
        exported: false,
        error: None,
        atol: 1e-6,
        inputs: vec![input("one token", &[1, 1], 1), input("masks", &[3, 16], 30)],
        notes: vec!["the checkpoint has tensors that the model does not use: cls.predictions.bias".into()],
        checks: vec![EngineCheck {
            engine: "candle".into(),
            onnx: "onnx/model.onnx".into(),
            graph: Some("opset 17, 40 nodes".into()),
            dtype: "f32".into(),
            verdict: Verdict::Pass,
            failure: None,
            not_compared: vec!["the graph has no 'pooler_output'".into()],
            outputs: vec![output("last_hidden_state", 4.5e-7, Verdict::Pass)],
        }],
        proof: Some(Proof {
            verdict: Verdict::Pass,
            max_abs: Some(4.4e-14),
            max_rel: Some(2.1e-14),
            tol: DEFAULT_PROOF_TOL,
            outputs: vec![proof_output("last_hidden_state", 4.4e-14, Verdict::Pass)],
            scope: Scope::Tried,
            guards: Vec::new(),
            unexplained: Vec::new(),
            promoted: vec![Promoted {
                name: "/layer.0/Sqrt".into(),
                meaning: "√2".into(),
                from: std::f32::consts::SQRT_2,
                to: 2f64.sqrt(),
            }],
            failure: None,
        }),
        parts: Parts {
            weights: Some(audit(layers)),
            located: Some(located(layers)),
            relations: vec![relation("padding", "masks", true), skipped("order of rows", "one token")],
            tokens: vec![tokens("f64", 3, 16, 1e-14), tokens("candle", 3, 16, 2e-7)],
            ..Parts::default()
        },
        tokenizer: None,
        folder: Vec::new(),
        graphs: Vec::new(),
        recorded: Vec::new(),
        repro: None,
        features: Some(Features {
            outputs: vec![Feature {
                name: "last_hidden_state".into(),
                shape: vec![3, 16, 8],
                first: vec![Some(0.1), None],
            }],
            similarity: Some(Similarity {
                text: "one".into(),
                to: vec![Similar { text: "another".into(), cosine: Some(0.1) }],
            }),
        }),
        timing: Some(TimingReport {
            input: "masks".into(),
            results: vec![Timing {
                engine: "candle".into(),
                threads: 2,
                median_ms: 1.25,
                p90_ms: 1.5,
                runs: 30,
            }],
        }),
        command: Some("parity org/model --html report.html".into()),
    }
}

/// A graph that is right, on an engine that rounds more than the tolerance allows.
pub fn rounding(layers: usize) -> Report {
    let mut report = pass(layers);
    report.verdict = Verdict::Rounding;
    report.checks[0].verdict = Verdict::Rounding;
    report.checks[0].outputs = vec![output("last_hidden_state", 3.2e-5, Verdict::Rounding)];
    for module in report.located.iter_mut().flat_map(|located| &mut located.modules) {
        module.single = module.single.map(|single| 60.0 * single);
    }
    report.tokens[1] = tokens("candle", 3, 16, 3.2e-5);
    report
}

/// A graph with a wrong activation in layer 1, and another eps at the end.
pub fn fail(layers: usize) -> Report {
    let mut report = pass(layers);
    report.verdict = Verdict::Fail;
    report.checks[0].verdict = Verdict::Fail;
    report.checks[0].outputs = vec![output("last_hidden_state", 1.25e-3, Verdict::Fail)];
    let proof = report.proof.as_mut().unwrap();
    proof.verdict = Verdict::Fail;
    (proof.max_abs, proof.max_rel) = (Some(1.25e-3), Some(3.1e-4));
    proof.outputs = vec![proof_output("last_hidden_state", 1.25e-3, Verdict::Fail)];
    proof.outputs[0].failing_inputs = vec!["one token".into(), "masks".into()];
    let culprit = |module: &str, own, nodes: &[&str], explanation: Option<&str>| Culprit {
        module: module.into(),
        max_abs: Some(own),
        nodes: nodes.iter().map(|&node| node.into()).collect(),
        explanation: explanation.map(Into::into),
    };
    let last = layers - 1;
    let nodes = [
        "/encoder/layer.1/intermediate/Div",
        "/encoder/layer.1/intermediate/Erf",
        "/encoder/layer.1/intermediate/Add",
    ];
    report.culprits = vec![
        culprit("encoder.layer.1.intermediate", 3.1e-4, &nodes, Some("gelu = tanh: 3.1e-4 → 2e-13")),
        culprit(&format!("encoder.layer.{last}.output.LayerNorm"), 6.2e-8, &["/encoder/layer/Norm"], None),
    ];
    let culprits: Vec<(String, Option<f64>)> =
        report.culprits.iter().map(|culprit| (culprit.module.clone(), culprit.max_abs)).collect();
    let mut after = 0.0;
    for module in &mut report.located.as_mut().unwrap().modules {
        if let Some((_, own)) = culprits.iter().find(|(culprit, _)| *culprit == module.module) {
            (module.own, module.culprit) = (*own, true);
            after += own.unwrap();
        }
        if after > 0.0 {
            (module.inherited, module.single) = (Some(1.5 * after), Some(1.6 * after));
            after *= 1.04;
        }
    }
    let weights = report.weights.as_mut().unwrap();
    weights.verdict = Verdict::Fail;
    weights.findings.insert(
        0,
        Finding {
            kind: FindingKind::Eps,
            fails: true,
            tensors: vec![format!("encoder.layer.{last}.output.LayerNorm.weight")],
            module: Some(format!("encoder.layer.{last}.output.LayerNorm")),
            message: "'/encoder/layer/Norm.epsilon' is 1e-5, config.json says 1e-12".into(),
        },
    );
    report.relations.push(relation("content of padding", "masks", false));
    report.tokens = vec![tokens("f64", 3, 16, 1.25e-3)];
    report
}

/// A check that could not be run.
pub fn error() -> Report {
    let why = "model.onnx: No such file or directory";
    Report { command: pass(1).command, ..Report::failed("org/model", None, 1e-6, why.into()) }
}

/// A report that has a value for each field: of a graph that was converted on purpose, fails under
/// stress, and is held against a record.
pub fn everything() -> Report {
    let mut report = fail(2);
    let output = report.checks[0].outputs[0].clone();
    report.precision = Some(Conversion {
        expect: Expect::Int8,
        loss: vec![Loss {
            engine: "oracle".into(),
            output: output.name.clone(),
            max_abs: Some(0.1),
            max_rel: Some(0.01),
            mean_abs: Some(0.1 / 3.0),
            cosine: Some(0.999),
            worst_input: Some("masks".into()),
            compared: 248,
        }],
    });
    report.stress = vec![Stress {
        engine: "candle".into(),
        module: "embeddings.LayerNorm".into(),
        max_abs: Some(0.25),
        bound: 1e-4,
        verdict: Verdict::Fail,
    }];
    report.tokens[0].not_finite.push([0, 1]);
    report.explanation = Some("input_ids and token_type_ids exchanged".into());
    report.checks[0].outputs[0].decisions = Some(Decisions {
        made: 3,
        flipped: 0,
        could_flip: Some(1),
        smallest_margin: Some(1e-7),
        input: Some("masks".into()),
        at: Some(vec![1]),
    });
    let trace = &mut report.weights.as_mut().unwrap().traced[0];
    trace.layout = Layout::Part { part: 1, of: 3, transposed: true };
    (trace.factor, trace.cast, trace.step) = (Some(1.0 / 3.0), Some(Cast::BF16), Some(0.1));
    trace.plus = Some(("embeddings.token_type_embeddings.weight".into(), 0));
    trace.first_difference =
        Some(FirstDifference { index: vec![1, 2], checkpoint: 0.1, graph: 0.2, ulp: Some(9_000_000) });
    let token = |id| Some(Token { id, token: format!("t{id}"), token_type: id % 2 });
    report.tokenizer = Some(TokenizerReport {
        verdict: Verdict::Fail,
        texts: 20,
        differing: 1,
        difference: Some(TokenDifference {
            text: "a text".into(),
            position: 3,
            tokenizer_json: token(7),
            vocab_txt: None,
        }),
        setting: Some("lowercase is off".into()),
        notes: vec!["truncation differs".into()],
    });
    report.recorded = vec![Recorded {
        side: "onnx/model.onnx".into(),
        engine: "oracle".into(),
        dtype: "f32".into(),
        verdict: Verdict::Fail,
        failure: Some("on input 'masks': node 'x'".into()),
        not_compared: vec!["onnx/model.onnx has no output 'y'".into()],
        outputs: vec![output],
    }];
    report.repro = Some(Repro {
        dir: "repro".into(),
        input: "masks".into(),
        shape: vec![1, 2],
        precision: "f64".into(),
        atol: 1.0 / 3e7,
    });
    report
}

/// Two graphs, of which the second fails.
pub fn two_graphs() -> Report {
    let graph = |report: Report, onnx: &str| GraphReport {
        onnx: onnx.into(),
        verdict: report.verdict,
        proof: report.proof.unwrap(),
        checks: report.checks,
        parts: report.parts,
        notes: Vec::new(),
    };
    Report { graphs: vec![graph(pass(2), "a.onnx"), graph(fail(2), "b.onnx")], ..fail(2) }
}

/// A report whose every name and message is that.
pub fn named(name: &str) -> Report {
    let mut report = fail(2);
    let set = |text: &mut String| *text = name.into();
    let some = |text: &mut Option<String>| *text = Some(name.into());
    set(&mut report.model);
    some(&mut report.onnx);
    some(&mut report.error);
    some(&mut report.command);
    some(&mut report.explanation);
    set(&mut report.reference.as_mut().unwrap().text);
    let features = report.features.as_mut().unwrap();
    features.outputs.iter_mut().for_each(|output| set(&mut output.name));
    let similarity = features.similarity.as_mut().unwrap();
    set(&mut similarity.text);
    similarity.to.iter_mut().for_each(|other| set(&mut other.text));
    report.notes.iter_mut().for_each(set);
    report.inputs.iter_mut().for_each(|input| set(&mut input.name));
    for check in &mut report.checks {
        set(&mut check.engine);
        set(&mut check.onnx);
        set(&mut check.dtype);
        some(&mut check.failure);
        some(&mut check.graph);
        check.not_compared.iter_mut().for_each(set);
        for output in &mut check.outputs {
            set(&mut output.name);
            some(&mut output.worst_input);
        }
        let mut mismatch = check.outputs[0].clone();
        some(&mut mismatch.mismatch);
        check.outputs.push(mismatch);
    }
    let proof = report.proof.as_mut().unwrap();
    some(&mut proof.failure);
    for promoted in &mut proof.promoted {
        set(&mut promoted.name);
        promoted.meaning = name.to_string().into();
    }
    for output in &mut proof.outputs {
        set(&mut output.name);
        some(&mut output.worst_input);
        some(&mut output.mismatch);
        output.failing_inputs.iter_mut().for_each(set);
    }
    for culprit in &mut report.culprits {
        set(&mut culprit.module);
        culprit.nodes.iter_mut().for_each(set);
        some(&mut culprit.explanation);
    }
    let located = report.located.as_mut().unwrap();
    set(&mut located.input);
    for (number, module) in located.modules.iter_mut().enumerate() {
        // One of each row is of a part that no BERT has.
        match number % 5 {
            0 => module.module = format!("{}.{name}", module.module),
            1 => set(&mut module.module),
            _ => {}
        }
        some(&mut module.value);
        module.nodes.iter_mut().for_each(set);
    }
    let weights = report.weights.as_mut().unwrap();
    for trace in &mut weights.traced {
        for text in [&mut trace.tensor, &mut trace.module, &mut trace.initializer] {
            set(text);
        }
        trace.plus = Some((name.into(), 0));
    }
    weights.untraced.iter_mut().chain(&mut weights.unused).for_each(set);
    weights.constants.iter_mut().for_each(|constant| set(&mut constant.name));
    for leftover in &mut weights.leftover {
        set(&mut leftover.name);
        set(&mut leftover.dtype);
        some(&mut leftover.used_by);
    }
    for finding in &mut weights.findings {
        set(&mut finding.message);
        some(&mut finding.module);
    }
    for relation in &mut report.relations {
        set(&mut relation.input);
        relation.name = name.to_string().into();
        some(&mut relation.failure);
    }
    for tokens in &mut report.tokens {
        for text in [&mut tokens.side, &mut tokens.input, &mut tokens.output] {
            set(text);
        }
    }
    let timing = report.timing.as_mut().unwrap();
    set(&mut timing.input);
    timing.results.iter_mut().for_each(|result| set(&mut result.engine));
    report
}

fn output(name: &str, max_abs: f64, verdict: Verdict) -> OutputReport {
    OutputReport {
        name: name.into(),
        shape: vec![3, 16, 8],
        max_abs: Some(max_abs),
        max_rel: Some(max_abs / 4.0),
        max_ulp: Some(9000),
        mean_abs: Some(max_abs / 10.0),
        cosine: Some(0.999_999_999),
        worst_ulp: Some(12),
        worst_input: Some("masks".into()),
        worst_index: Some(vec![1, 5, 7]),
        reference: Some(1.25),
        candidate: Some(1.25 + max_abs),
        compared: 248,
        beyond_atol: if max_abs > 1e-6 { 240 } else { 0 },
        non_finite: NonFinite { reference: 0, candidate: 0 },
        budget: Some(8.5e-5),
        budget_share: Some(0.25),
        beyond: None,
        truth: Some(FromTruth {
            reference: Some(2e-7),
            reference_ulp: Some(1.7),
            candidate: Some(max_abs),
            candidate_ulp: Some(max_abs * 8e6),
        }),
        mismatch: None,
        verdict,
        decisions: None,
        padding: Padding { max_abs: Some(2.0 * max_abs), compared: 144 },
    }
}

fn proof_output(name: &str, max_abs: f64, verdict: Verdict) -> ProofOutput {
    ProofOutput {
        name: name.into(),
        max_abs: Some(max_abs),
        max_rel: Some(max_abs / 4.0),
        compared: 248,
        worst_input: Some("masks".into()),
        worst_index: Some(vec![1, 5, 7]),
        reference: Some(1.25),
        candidate: Some(1.25 + max_abs),
        failing_inputs: Vec::new(),
        mismatch: None,
        verdict,
    }
}

/// The paths of a BERT's modules with weights, and of those between.
fn modules(layers: usize) -> Vec<String> {
    let embeddings = ["word_embeddings", "token_type_embeddings", "position_embeddings", "LayerNorm"];
    let mut modules: Vec<String> = embeddings.map(|part| format!("embeddings.{part}")).into();
    modules.push("embeddings".into());
    let parts = [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.self",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "attention.output",
        "attention",
        "intermediate.dense",
        "intermediate",
        "output.dense",
        "output.LayerNorm",
        "output",
    ];
    for layer in 0..layers {
        modules.extend(parts.map(|part| format!("encoder.layer.{layer}.{part}")));
        modules.push(format!("encoder.layer.{layer}"));
    }
    modules.extend(["encoder", "pooler.dense", "pooler"].map(Into::into));
    modules
}

/// Where those stand.
fn place(module: &str, layers: usize) -> ModulePlace {
    const LAYER: [(&str, &str, &str); 10] = [
        ("attention", "q", "attention.self.query"),
        ("attention", "k", "attention.self.key"),
        ("attention", "v", "attention.self.value"),
        ("attention", "self", "attention.self"),
        ("output", "dense", "attention.output.dense"),
        ("output", "LN", "attention.output.LayerNorm"),
        ("intermediate", "dense", "intermediate.dense"),
        ("intermediate", "act", "intermediate"),
        ("output", "dense", "output.dense"),
        ("output", "LN", "output.LayerNorm"),
    ];
    let row = |row: &str, column: usize, label: &str| ModulePlace {
        row: row.into(),
        column,
        label: label.into(),
        ..ModulePlace::default()
    };
    match module {
        "embeddings.word_embeddings" => return row("embeddings", 0, "word"),
        "embeddings.token_type_embeddings" => return row("embeddings", 1, "type"),
        "embeddings.position_embeddings" => return row("embeddings", 2, "position"),
        "embeddings.LayerNorm" | "embeddings" => return row("embeddings", 3, "LN"),
        "pooler.dense" => return row("pooler", 0, "dense"),
        "pooler" => return row("pooler", 1, "tanh"),
        _ => {}
    }
    let last = format!("encoder.layer.{}", layers - 1);
    let module = if module == "encoder" { last.as_str() } else { module };
    let rest = module.trim_start_matches("encoder.layer.");
    let (layer, part) = rest.split_once('.').unwrap_or((rest, ""));
    let part = match part {
        "attention.output" | "attention" => "attention.output.LayerNorm",
        "output" | "" => "output.LayerNorm",
        part => part,
    };
    let column = LAYER.iter().position(|(_, _, path)| *path == part).unwrap();
    let (group, label, _) = LAYER[column];
    ModulePlace {
        layer: layer.parse().ok(),
        group: group.into(),
        ..row(&format!("layer {layer}"), column, label)
    }
}

fn located(layers: usize) -> Located {
    let modules = modules(layers).into_iter().enumerate().map(|(at, module)| {
        // Some spread, as rounding has.
        let noise = 1.0 + ((at * 7919) % 13) as f64 / 4.0;
        // Nothing shows the attention within a fused operator.
        let hidden = module == "encoder.layer.0.attention.self";
        let own = if module.contains("word_") { 0.0 } else { 3e-16 * noise };
        ModuleError {
            value: (!hidden).then(|| format!("/{}/output_0", module.replace('.', "/"))),
            nodes: vec![
                format!("/{}/MatMul", module.replace('.', "/")),
                format!("/{}/Add", module.replace('.', "/")),
            ],
            own: (!hidden).then_some(own),
            inherited: (!hidden).then_some(own + 4e-16 * at as f64 * noise),
            scale: 4.0,
            single: (!hidden && at % 9 != 0).then_some(2e-8 * noise * (1.0 + at as f64 / 8.0)),
            culprit: false,
            place: place(&module, layers),
            module,
        }
    });
    Located { input: "masks".into(), modules: modules.collect() }
}

fn audit(layers: usize) -> Audit {
    let weighted = |module: &String| {
        ["embeddings", "query", "key", "value", "dense", "LayerNorm"].iter().any(|end| module.ends_with(end))
    };
    let trace = |module: String| Trace {
        tensor: format!("{module}.weight"),
        initializer: format!("onnx::MatMul_{}", module.len()),
        module,
        layout: Layout::Transposed,
        factor: None,
        cast: None,
        step: None,
        plus: None,
        max_abs: Some(0.0),
        max_ulp: Some(0),
        compared: 4096,
        differing: 0,
        first_difference: None,
        exact: true,
        shared: false,
    };
    let traced = modules(layers).into_iter().filter(weighted).flat_map(|module| {
        let weight = trace(module.clone());
        let bias = Trace { tensor: format!("{module}.bias"), layout: Layout::Same, ..trace(module) };
        [weight, bias]
    });
    Audit {
        verdict: Verdict::Pass,
        traced: traced.collect(),
        untraced: vec!["pooler.dense.bias".into()],
        unused: vec!["cls.predictions.bias".into()],
        constants: vec![Constant {
            name: "/layer.0/Sqrt".into(),
            value: Some(2f64.sqrt()),
            origin: Origin::Activation,
        }],
        leftover: vec![Leftover {
            name: "extra".into(),
            dtype: "f32".into(),
            shape: vec![2, 3],
            least: Some(-1.0),
            greatest: None,
            used_by: Some("Add".into()),
        }],
        findings: vec![Finding {
            kind: FindingKind::Mask,
            fails: false,
            tensors: Vec::new(),
            module: None,
            message: "masked scores become -10000".into(),
        }],
    }
}

fn relation(name: &str, input: &str, holds: bool) -> Relation {
    let max_abs = Some(if holds { 3e-15 } else { 2e-3 });
    Relation {
        name: name.to_string().into(),
        side: "graph in f64".into(),
        input: input.into(),
        max_abs,
        holds,
        converted: false,
        skipped: None,
        failure: None,
    }
}

fn skipped(name: &str, input: &str) -> Relation {
    Relation {
        holds: false,
        converted: false,
        max_abs: None,
        skipped: Some("there is one row".into()),
        ..relation(name, input, false)
    }
}

/// Errors that grow along the rows, with padding at the end of each.
fn tokens(side: &str, batch: usize, sequence: usize, largest: f64) -> TokenErrors {
    let error = |at: usize| {
        let (row, position) = (at / sequence, at % sequence);
        let noise = ((at * 7919) % 97) as f64 / 97.0;
        let padding = position >= sequence - 3 * row;
        (!padding).then_some(if at == sequence + 5 {
            largest
        } else {
            largest * (0.002 + noise * noise * 0.8)
        })
    };
    TokenErrors {
        side: side.into(),
        input: "masks".into(),
        output: "last_hidden_state".into(),
        batch,
        sequence,
        errors: (0..batch * sequence).map(error).collect(),
        not_finite: Vec::new(),
    }
}
