//! The static weight audit on every graph there is: no false alarm, every tensor traced, and every fault that is planted named.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::common::{change_weight, fixture, house, index, node, real_model, reroute};
use candle_bert::{BertConfig, Task};
use checkpoint::Checkpoint;
use engine::{DType, Value};
use onnx_graph::{Attribute, Graph, Model, Tensor};
use parity::audit::{Audit, Expect, Finding, FindingKind, Layout, Trace, audit};
use parity::{Subject, Verdict};
use serde_json::Value as Json;

/// Graphs on which faults are planted, of `baseline`: exporters, optimizers, joined attention, weights that a Transpose turns.
const PLANTED: [&str; 7] = [
    "baseline/onnx/ts17-eager-dynamic.onnx",
    "baseline/onnx/ts14-sdpa-static.onnx",
    "baseline/onnx/dynamo23-sdpa-dynamic.onnx",
    "forms/baseline/dynamo18-unoptimised.onnx",
    "forms/baseline/onnxsim-ts14.onnx",
    "forms/baseline/ort-all-ts17-sdpa.onnx",
    "forms/baseline/ort-transformers-ts14.onnx",
];

/// A fixture's checkpoint and config.
fn subject(name: &str) -> (Checkpoint, BertConfig) {
    let folder = fixture(name);
    let config = BertConfig::from_json(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    (Checkpoint::open_safetensors(folder.join("model.safetensors")).unwrap(), config)
}

fn open(path: impl AsRef<Path>) -> Model {
    Model::open(path).unwrap()
}

/// What an audit says, for messages.
fn told(audit: &Audit) -> String {
    let lines: Vec<String> = audit.findings.iter().map(|f| format!("  {:?} {f}", f.kind)).collect();
    format!(
        "{}, untraced {:?}, leftover {:?}\n{}",
        audit.verdict,
        audit.untraced,
        audit.leftover,
        lines.join("\n")
    )
}

/// A graph of `baseline` against its checkpoint.
fn of_baseline(model: &Model) -> Audit {
    let (checkpoint, config) = subject("baseline");
    audit(&checkpoint, Task::FeatureExtraction, &config, model, Expect::Exact).unwrap()
}

/// Every graph that is right: the file, its fixture, and what it is expected to be.
fn good_graphs() -> Vec<(PathBuf, String, Expect)> {
    let mut graphs = Vec::new();
    for (name, files) in index() {
        for graph in files {
            let file = fixture(&name).join("onnx").join(graph["file"].as_str().unwrap());
            graphs.push((file, name.clone(), Expect::Exact));
        }
    }
    let forms = house().join("tests/fixtures/forms");
    let index: Vec<Json> = serde_json::from_slice(&std::fs::read(forms.join("index.json")).unwrap()).unwrap();
    for form in index {
        let expect = match form["precision"].as_str().unwrap() {
            "f16" => Expect::F16,
            "int8" => Expect::Int8,
            _ => Expect::Exact,
        };
        graphs.push((
            forms.join(form["file"].as_str().unwrap()),
            form["fixture"].as_str().unwrap().into(),
            expect,
        ));
    }
    graphs
}

/// What becomes of the element at a place.
type Change = fn(usize, f32) -> f32;

#[test]
fn a_good_graph_is_clean() {
    let mut audited = 0;
    for (path, name, expect) in good_graphs() {
        let (checkpoint, config) = subject(&name);
        let model = open(&path);
        for model in [&model, &anonymous(model.clone())] {
            let audit = audit(&checkpoint, Task::FeatureExtraction, &config, model, expect).unwrap();
            let shown = || format!("{}: {}", path.display(), told(&audit));
            assert!(matches!(audit.verdict, Verdict::Pass | Verdict::Rounding), "{}", shown());
            assert!(audit.findings.iter().all(|finding| !finding.fails), "{}", shown());
            // Graphs without `pooler_output` have no pooler, and everything else.
            let pooler = model.graph.outputs.iter().any(|output| output.name == "pooler_output");
            let missing: &[&str] = if pooler || name == "no_pooler" {
                &[]
            } else {
                &["pooler.dense.weight", "pooler.dense.bias"]
            };
            assert_eq!(audit.untraced, missing, "{}", shown());
            assert!(audit.leftover.is_empty(), "{}", shown());
            assert!(
                audit.traced.iter().all(|trace| trace.differing == 0 && trace.compared > 0),
                "{}",
                shown()
            );
        }
        audited += 1;
    }
    assert!(audited >= 196, "only {audited} graphs");
}

#[test]
fn the_embedded_default_is_clean() {
    let subject = Subject::open(None).unwrap();
    let checkpoint = subject.files().checkpoint().unwrap();
    let (_, model) = subject.graph(None).unwrap();
    let audit = audit(&checkpoint, Task::FeatureExtraction, subject.family(), &model, Expect::Exact).unwrap();
    assert_eq!(audit.verdict, Verdict::Pass, "{}", told(&audit));
    assert!(audit.untraced.is_empty() && audit.leftover.is_empty(), "{}", told(&audit));
}

#[test]
fn a_conversion_that_nobody_asked_for_fails() {
    let mut audited = 0;
    for (path, name, expect) in good_graphs() {
        if expect == Expect::Exact {
            continue;
        }
        let (checkpoint, config) = subject(&name);
        let audit =
            audit(&checkpoint, Task::FeatureExtraction, &config, &open(&path), Expect::Exact).unwrap();
        assert_eq!(audit.verdict, Verdict::Fail, "{}", path.display());
        let option = if expect == Expect::F16 { "--expect f16" } else { "--expect int8" };
        let kinds =
            |finding: &Finding| finding.kind == FindingKind::Precision && finding.message.contains(option);
        assert!(audit.findings.iter().any(kinds), "{}", told(&audit));
        audited += 1;
    }
    assert!(audited >= 32, "only {audited} graphs");
}

/// The graph without any name that means something: values, nodes, metadata.
fn anonymous(mut model: Model) -> Model {
    fn rename(graph: &mut Graph, names: &mut HashMap<String, String>, kept: &BTreeSet<String>) {
        let mut new = |name: &mut String| {
            if !name.is_empty() && !kept.contains(name) {
                let next = format!("value{}", names.len());
                name.clone_from(names.entry(name.clone()).or_insert(next));
            }
        };
        graph.inputs.iter_mut().for_each(|spec| new(&mut spec.name));
        graph.initializers = std::mem::take(&mut graph.initializers)
            .into_iter()
            .map(|(mut name, tensor)| {
                new(&mut name);
                (name, tensor)
            })
            .collect();
        for node in &mut graph.nodes {
            node.metadata.clear();
            node.inputs.iter_mut().chain(&mut node.outputs).for_each(&mut new);
        }
        graph.outputs.iter_mut().for_each(|spec| new(&mut spec.name));
        graph.value_info.clear();
        for (at, node) in graph.nodes.iter_mut().enumerate() {
            node.name = format!("node{at}");
            for attribute in node.attributes.values_mut() {
                if let Attribute::Graph(body) = attribute {
                    rename(body, names, kept);
                }
            }
        }
    }
    let inputs = model.graph.inputs.iter().filter(|spec| !model.graph.initializers.contains_key(&spec.name));
    let kept = inputs.chain(&model.graph.outputs).map(|spec| spec.name.clone()).collect();
    rename(&mut model.graph, &mut HashMap::new(), &kept);
    model
}

/// Calls a test with each graph that faults are planted in, as it is and without names.
fn for_planted(test: impl Fn(&str, &Model, &Audit)) {
    for file in PLANTED {
        let model = open(house().join("tests/fixtures").join(file));
        for (model, shown) in
            [(model.clone(), file.to_string()), (anonymous(model), format!("{file}, anonymous"))]
        {
            test(&shown, &model, &of_baseline(&model));
        }
    }
}

/// Fails unless the audit fails and its failing findings name these tensors and no others.
#[track_caller]
fn names_just(audit: &Audit, tensors: &[&str], shown: &str) {
    assert_eq!(audit.verdict, Verdict::Fail, "{shown}: {}", told(audit));
    let found: BTreeSet<&str> = audit
        .findings
        .iter()
        .filter(|finding| finding.fails)
        .flat_map(|finding| finding.tensors.iter().map(String::as_str))
        .collect();
    assert_eq!(found, tensors.iter().copied().collect(), "{shown}: {}", told(audit));
}

/// The rows and columns of a tensor of the checkpoint.
fn dims(tensor: &str) -> (usize, usize) {
    static BASELINE: LazyLock<Checkpoint> = LazyLock::new(|| subject("baseline").0);
    match BASELINE.get(tensor).unwrap().shape[..] {
        [columns] => (1, columns),
        [rows, columns] => (rows, columns),
        _ => panic!("{tensor}"),
    }
}

/// Where a tensor's element lies in the one that carries it.
fn position(trace: &Trace, row: usize, column: usize) -> usize {
    let (rows, columns) = dims(&trace.tensor);
    match trace.layout {
        Layout::Same => row * columns + column,
        Layout::Transposed => column * rows + row,
        Layout::Rows { first, .. } => (row - first) * columns + column,
        Layout::Part { part, transposed: false, .. } => part * rows * columns + row * columns + column,
        Layout::Part { part, of, transposed: true } => column * of * rows + part * rows + row,
    }
}

/// Changes the elements of a tensor of the checkpoint where the graph holds them.
fn change(model: &mut Model, trace: &Trace, change: impl Fn(usize, f32) -> f32) {
    let (rows, columns) = dims(&trace.tensor);
    let rows = match trace.layout {
        Layout::Rows { first, last } => first..last + 1,
        _ => 0..rows,
    };
    change_weight(model, &trace.initializer, |elements, _| {
        for row in rows {
            for column in 0..columns {
                let element = &mut elements[position(trace, row, column)];
                *element = change(row * columns + column, *element);
            }
        }
    });
}

fn the<'a>(audit: &'a Audit, tensor: &str) -> &'a Trace {
    audit
        .traced
        .iter()
        .find(|trace| trace.tensor == tensor)
        .unwrap_or_else(|| panic!("{tensor} is not traced"))
}

#[test]
fn one_ulp_in_any_tensor() {
    for_planted(|shown, model, good| {
        for trace in &good.traced {
            let (rows, columns) = dims(&trace.tensor);
            let last_row = match trace.layout {
                Layout::Rows { last, .. } => last,
                _ => rows - 1,
            };
            // The last row of an embedding, too: ids of tests are random, and this is the one that is looked up least.
            for (row, column) in [(last_row, columns - 1), (last_row / 2, columns / 3)] {
                let mut model = model.clone();
                let at = position(trace, row, column);
                change_weight(&mut model, &trace.initializer, |elements, _| {
                    elements[at] = f32::from_bits(elements[at].to_bits() ^ 1);
                });
                let audit = of_baseline(&model);
                let shown = format!("{shown}: {} at [{row}, {column}]", trace.tensor);
                names_just(&audit, &[&trace.tensor], &shown);
                let found = the(&audit, &trace.tensor);
                assert_eq!((found.differing, found.max_ulp, found.exact), (1, Some(1), false), "{shown}");
                let first = found.first_difference.clone().unwrap();
                let index = if dims(&trace.tensor).0 == 1 { vec![column] } else { vec![row, column] };
                assert_eq!((first.index, first.ulp), (index, Some(1)), "{shown}");
            }
        }
    });
}

#[test]
fn a_tensor_that_is_not_a_number_scaled_or_zero() {
    let changes: [(&str, Change); 6] = [
        ("one NaN", |at, x| if at == 3 { f32::NAN } else { x }),
        ("one infinity", |at, x| if at == 3 { f32::INFINITY } else { x }),
        ("zero", |_, _| 0.0),
        ("doubled", |_, x| 2.0 * x),
        ("negated", |_, x| -x),
        ("a per cent larger", |_, x| 1.01 * x),
    ];
    for_planted(|shown, model, good| {
        for trace in &good.traced {
            for (what, by) in changes {
                let mut model = model.clone();
                change(&mut model, trace, by);
                let audit = of_baseline(&model);
                let shown = format!("{shown}: {} {what}", trace.tensor);
                names_just(&audit, &[&trace.tensor], &shown);
                let found = the(&audit, &trace.tensor);
                assert_eq!(found.initializer, trace.initializer, "{shown}");
                assert_eq!(found.max_abs.is_none(), what.starts_with("one"), "{shown}");
                let factor = match what {
                    "zero" => "all are 0",
                    "doubled" => "all are 2 times",
                    "negated" => "all are -1 times",
                    "a per cent larger" => "all are 1.01 times",
                    _ => "not finite",
                };
                assert!(audit.findings[0].message.contains(factor), "{shown}: {}", told(&audit));
            }
        }
    });
}

/// Exchanges two tensors of one shape, wherever the graph holds them.
fn exchange(model: &mut Model, good: &Audit, a: &str, b: &str) {
    let (a, b) = (the(good, a), the(good, b));
    let read = |model: &Model, trace: &Trace| {
        let value = model.graph.initializers[&trace.initializer].to_value().unwrap();
        let elements = value.as_slice::<f32>().unwrap();
        let (rows, columns) = dims(&trace.tensor);
        (0..rows * columns)
            .map(|at| elements[position(trace, at / columns, at % columns)])
            .collect::<Vec<f32>>()
    };
    let (of_a, of_b) = (read(model, a), read(model, b));
    change(model, a, |at, _| of_b[at]);
    change(model, b, |at, _| of_a[at]);
}

#[test]
fn query_and_key_exchanged() {
    for_planted(|shown, model, good| {
        for (a, b) in [("query", "key"), ("key", "value"), ("query", "value")] {
            let name =
                |part: &str, parameter: &str| format!("encoder.layer.1.attention.self.{part}.{parameter}");
            let mut both = model.clone();
            for parameter in ["weight", "bias"] {
                let mut one = model.clone();
                for model in [&mut one, &mut both] {
                    exchange(model, good, &name(a, parameter), &name(b, parameter));
                }
                names_just(&of_baseline(&one), &[&name(a, parameter), &name(b, parameter)], shown);
            }
            let all = [name(a, "weight"), name(b, "weight"), name(a, "bias"), name(b, "bias")];
            names_just(&of_baseline(&both), &all.each_ref().map(String::as_str), shown);
        }
    });
}

#[test]
fn layers_exchanged() {
    for_planted(|shown, model, good| {
        let parts: Vec<&str> =
            good.traced.iter().filter_map(|trace| trace.tensor.strip_prefix("encoder.layer.0.")).collect();
        let mut all = model.clone();
        for part in &parts {
            let layers = [0, 1].map(|layer| format!("encoder.layer.{layer}.{part}"));
            let mut one = model.clone();
            exchange(&mut one, good, &layers[0], &layers[1]);
            exchange(&mut all, good, &layers[0], &layers[1]);
            names_just(&of_baseline(&one), &layers.each_ref().map(String::as_str), shown);
        }
        // All of both layers: which of the two is the wrong one cannot be told, but one of them is.
        let audit = of_baseline(&all);
        assert_eq!(audit.verdict, Verdict::Fail, "{shown}: {}", told(&audit));
        for part in parts {
            let named = |finding: &Finding| {
                finding.fails && finding.tensors.iter().any(|tensor| tensor.ends_with(part))
            };
            assert!(audit.findings.iter().any(named), "{shown}: {part}: {}", told(&audit));
        }
    });
}

#[test]
fn a_tensor_of_another_module_of_the_same_shape() {
    for_planted(|shown, model, good| {
        let [a, b] = ["attention.self.query.weight", "attention.output.dense.weight"]
            .map(|part| format!("encoder.layer.0.{part}"));
        let mut model = model.clone();
        exchange(&mut model, good, &a, &b);
        names_just(&of_baseline(&model), &[&a, &b], shown);
    });
}

#[test]
fn a_square_matrix_transposed() {
    for_planted(|shown, model, good| {
        for trace in good.traced.iter().filter(|trace| dims(&trace.tensor) == (16, 16)) {
            let value = model.graph.initializers[&trace.initializer].to_value().unwrap();
            let elements = value.as_slice::<f32>().unwrap().to_vec();
            let mut model = model.clone();
            change(&mut model, trace, |at, _| elements[position(trace, at % 16, at / 16)]);
            let audit = of_baseline(&model);
            names_just(&audit, &[&trace.tensor], &format!("{shown}: {}", trace.tensor));
        }
    });
}

#[test]
fn a_stale_file() {
    for_planted(|shown, model, good| {
        let all: Vec<&str> = good.traced.iter().map(|trace| trace.tensor.as_str()).collect();
        let changes: [(&str, Change); 3] = [
            ("a little more training", |at, x| x + 1e-4 * (at as f32).sin()),
            ("much more training", |at, x| x + 0.05 * (7.0 * at as f32).sin()),
            ("another model", |at, _| (13.0 * at as f32).sin()),
        ];
        for (what, by) in changes {
            let mut model = model.clone();
            for trace in &good.traced {
                change(&mut model, trace, by);
            }
            names_just(&of_baseline(&model), &all, &format!("{shown}: {what}"));
        }
    });
}

#[test]
fn a_copy_that_drifted() {
    for_planted(|shown, model, good| {
        for tensor in ["embeddings.word_embeddings.weight", "encoder.layer.0.output.dense.bias"] {
            let trace = the(good, tensor);
            let mut model = model.clone();
            let copy = model.graph.initializers[&trace.initializer].clone();
            model.graph.initializers.insert("copy".into(), copy);
            model.graph.nodes.push(node("Identity", &["copy"], "unused"));
            let tied = of_baseline(&model);
            assert_eq!(tied.verdict, Verdict::Pass, "{shown}: {}", told(&tied));
            assert_eq!(tied.traced.iter().filter(|trace| trace.tensor == tensor).count(), 2, "{shown}");

            change_weight(&mut model, "copy", |elements, _| elements[5] *= 1.0 + f32::EPSILON);
            let audit = of_baseline(&model);
            names_just(&audit, &[tensor], shown);
            let carriers: BTreeSet<&str> = audit
                .traced
                .iter()
                .filter(|trace| trace.tensor == tensor)
                .map(|trace| trace.initializer.as_str())
                .collect();
            assert_eq!(carriers, BTreeSet::from(["copy", trace.initializer.as_str()]), "{shown}");
            assert!(audit.findings[0].message.contains("'copy'"), "{}", told(&audit));
        }
    });
}

#[test]
fn a_name_that_says_another_tensor() {
    let mut model = open(fixture("baseline").join("onnx/ts17-eager-dynamic.onnx"));
    let names = ["query", "key"].map(|part| format!("model.encoder.layer.0.attention.self.{part}.bias"));
    let [a, b] = names.each_ref().map(|name| model.graph.initializers[name].clone());
    model.graph.initializers.insert(names[0].clone(), b);
    model.graph.initializers.insert(names[1].clone(), a);
    // Used where the elements belong: only the names are wrong.
    for (old, new) in [(0, "exchanged"), (1, names[0].as_str())] {
        reroute(&mut model, &names[old], new);
    }
    reroute(&mut model, "exchanged", &names[1]);
    let audit = of_baseline(&model);
    assert_eq!(audit.verdict, Verdict::Fail, "{}", told(&audit));
    assert!(
        audit
            .findings
            .iter()
            .filter(|finding| finding.fails)
            .all(|finding| finding.kind == FindingKind::Name)
    );
    assert_eq!(audit.findings.iter().filter(|finding| finding.fails).count(), 2, "{}", told(&audit));
}

#[test]
fn another_eps() {
    let mut audited = 0;
    for (path, name, expect) in good_graphs() {
        if expect != Expect::Exact {
            continue;
        }
        let (checkpoint, mut config) = subject(&name);
        let norms = 1 + 2 * config.num_hidden_layers;
        for eps in [if config.layer_norm_eps == 1e-5 { 1e-12 } else { 1e-5 }, 0.0, 1e-6] {
            config.layer_norm_eps = eps;
            let audit = audit(&checkpoint, Task::FeatureExtraction, &config, &open(&path), expect).unwrap();
            let found: Vec<&Finding> =
                audit.findings.iter().filter(|finding| finding.kind == FindingKind::Eps).collect();
            assert_eq!(audit.verdict, Verdict::Fail, "{}", path.display());
            let modules: BTreeSet<&String> =
                found.iter().filter_map(|finding| finding.module.as_ref()).collect();
            // One constant for all norms, in graphs whose initializers were merged, has one finding.
            assert!(modules.len() == norms || found.len() < norms, "{}: {}", path.display(), told(&audit));
        }
        audited += 1;
    }
    assert!(audited >= 160, "only {audited} graphs");

    // In the graph.
    let file = fixture("baseline").join("onnx/dynamo20-eager-dynamic.onnx");
    let mut model = open(&file);
    let norm = model.graph.nodes.iter_mut().filter(|node| node.op == "LayerNormalization").nth(2).unwrap();
    norm.attributes.insert("epsilon".into(), Attribute::Float(1e-5));
    let audit = of_baseline(&model);
    assert_eq!(
        audit.findings[0].message,
        "encoder.layer.0.output.LayerNorm: eps is 1e-5 in the graph, 1e-12 in config.json"
    );
    assert_eq!(audit.findings[0].module.as_deref(), Some("encoder.layer.0.output.LayerNorm"));
    let norm = model.graph.nodes.iter_mut().filter(|node| node.op == "LayerNormalization").nth(2).unwrap();
    // What ONNX takes where nothing is said is 1e-5.
    norm.attributes.shift_remove("epsilon");
    assert_eq!(of_baseline(&model).findings[0].message, audit.findings[0].message);
}

#[test]
fn quantized_weights() {
    let path = house().join("tests/fixtures/forms/baseline/int8.onnx");
    let (checkpoint, config) = subject("baseline");
    let model = open(path);
    let audited =
        |model: &Model| audit(&checkpoint, Task::FeatureExtraction, &config, model, Expect::Int8).unwrap();
    let good = audited(&model);
    let tensor = "encoder.layer.0.attention.self.query.weight";
    let trace = the(&good, tensor);
    assert!(trace.exact && trace.step.unwrap() > 0.0 && trace.max_abs.unwrap() > 0.0, "{trace:?}");
    let base = trace.initializer.strip_suffix("_quantized").unwrap();

    let mut scaled = model.clone();
    let scale = scaled.graph.initializers.get_mut(&format!("{base}_scale")).unwrap();
    *scale = Tensor::from_value(&Value::scalar(2.0 * scale.to_value().unwrap().to_f64()[0] as f32));
    names_just(&audited(&scaled), &[tensor], "scale");

    let integer = |model: &mut Model, name: &str, change: fn(&mut i8)| {
        let tensor = model.graph.initializers.get_mut(name).unwrap();
        let value = tensor.to_value().unwrap();
        let mut elements = value.as_slice::<i8>().unwrap().to_vec();
        change(elements.last_mut().unwrap());
        *tensor = Tensor::from_value(&Value::new(value.shape(), elements).unwrap());
    };
    let mut stepped = model.clone();
    integer(&mut stepped, &trace.initializer, |x| *x = x.wrapping_add(1));
    names_just(&audited(&stepped), &[tensor], "one step");
    assert_eq!(the(&audited(&stepped), tensor).differing, 1);

    // Zero points are shared by all weights.
    let mut shifted = model.clone();
    let zero_points: Vec<String> =
        model.graph.initializers.keys().filter(|name| name.ends_with("_zero_point")).cloned().collect();
    for name in zero_points {
        if shifted.graph.initializers[&name].dtype == DType::I8 {
            integer(&mut shifted, &name, |x| *x += 1);
        }
    }
    let audit = audited(&shifted);
    assert_eq!(audit.verdict, Verdict::Fail, "{}", told(&audit));
    assert!(!the(&audit, tensor).exact, "{}", told(&audit));
}

#[test]
fn half_precision_weights() {
    let (checkpoint, config) = subject("baseline");
    let mut model = open(house().join("tests/fixtures/forms/baseline/f16.onnx"));
    let audited =
        |model: &Model| audit(&checkpoint, Task::FeatureExtraction, &config, model, Expect::F16).unwrap();
    let tensor = "encoder.layer.1.intermediate.dense.weight";
    let name = the(&audited(&model), tensor).initializer.clone();
    let held = model.graph.initializers.get_mut(&name).unwrap();
    let mut bytes = held.bytes.to_vec();
    bytes[10] ^= 1;
    *held = Tensor::new(DType::F16, held.shape.clone(), bytes).unwrap();
    let audit = audited(&model);
    names_just(&audit, &[tensor], "one ULP of f16");
    assert_eq!(the(&audit, tensor).differing, 1);
}

/// MiniLM takes less than this on two cores in release; a debug build some four times as long.
const SECONDS: u64 = if cfg!(debug_assertions) { 20 } else { 2 };

#[test]
fn a_real_model_in_seconds() {
    let Some(home) = real_model::cache() else {
        return;
    };
    let folder = real_model::snapshot(&home);
    let subject = Subject::open(folder.to_str()).unwrap();
    let checkpoint = subject.files().checkpoint().unwrap();
    let (_, model) = subject.graph(None).unwrap();
    let start = std::time::Instant::now();
    let report =
        audit(&checkpoint, Task::FeatureExtraction, subject.family(), &model, Expect::Exact).unwrap();
    println!("a good graph: {:?}, {} tensors, {}", start.elapsed(), report.tensors(), told(&report));
    assert!(start.elapsed().as_secs() < SECONDS, "{:?}", start.elapsed());
    assert_eq!(report.verdict, Verdict::Pass, "{}", told(&report));
    assert!(report.leftover.is_empty(), "{}", told(&report));

    // The worst that can be: everything is a little off.
    let mut stale = model.clone();
    let names: Vec<String> = report.traced.iter().map(|trace| trace.initializer.clone()).collect();
    for name in &names {
        change_weight(&mut stale, name, |elements, _| elements.iter_mut().for_each(|x| *x += 1e-5));
    }
    let start = std::time::Instant::now();
    let audit = audit(&checkpoint, Task::FeatureExtraction, subject.family(), &stale, Expect::Exact).unwrap();
    println!("a stale graph: {:?}", start.elapsed());
    assert!(start.elapsed().as_secs() < SECONDS, "{:?}", start.elapsed());
    assert_eq!(audit.traced.iter().filter(|trace| trace.exact).count(), 0);
    assert_eq!(audit.tensors(), report.tensors());
}
