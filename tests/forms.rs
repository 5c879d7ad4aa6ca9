//! What becomes of a BERT's graph before it reaches us — other exporters, simplifiers, optimizers, half precision, int8 — on every engine
//! that runs graphs: right, or refused by name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::common::fixture;
use architecture::{Program, Task};
use candle_bert::BertConfig;
use engine::{Dim, Engine, NamedValues, Value, ValueSpec};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::Model;
use onnx_session::{EngineKind, Session, SessionError};
use parity::compare::{compare, deciding};
use parity::inputs::fit_inputs;
use parity::proof::exact_graph;
use parity::tensors;
use serde::Deserialize;

/// The oracle in f64, with constants as they are meant, against PyTorch in f64. What is left is what simplifiers and optimizers fold in f32, once for all, as a
/// scale into a weight: a few ULP of a weight, which the layers magnify.
const ORACLE_REACH: f64 = 1e-10;

/// Graphs that the engine `candle` takes today: those without half precision, int8 and com.microsoft. None may be lost.
const TAKEN_BY_CANDLE: usize = 260;

/// 58 of each of the ten fixtures, but for those that the README says are not there.
const FORMS: usize = 570;

#[derive(Deserialize)]
struct Form {
    fixture: String,
    form: String,
    file: String,
    precision: String,
    /// How far ONNX Runtime's f32 may be from PyTorch's f64 on this form; the script says why.
    bound: f64,
    golden: String,
    #[serde(flatten)]
    recorded: Option<Recorded>,
}

/// What ONNX Runtime made of a form that PyTorch's answers do not fit.
#[derive(Deserialize)]
struct Recorded {
    #[serde(rename = "recorded")]
    file: String,
    #[serde(rename = "recorded_bound")]
    bound: f64,
    /// Cases whose int8 steps rounding decides: there, right evaluators are a step apart, and as far from PyTorch as ONNX Runtime.
    #[serde(rename = "not_recorded", default)]
    unsharp: Vec<String>,
}

fn forms() -> PathBuf {
    fixture("forms")
}

/// Values under `prefix/`, by what stands behind it.
fn under(values: &NamedValues, prefix: &str) -> NamedValues {
    values
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.strip_prefix('/')?, value.clone())))
        .collect()
}

/// The largest difference at real tokens, over all outputs that are expected; infinite if one is not finite.
fn distance(outputs: &NamedValues, expected: &NamedValues, mask: &Value) -> f64 {
    let mut worst = 0f64;
    for (name, found) in outputs.iter() {
        let Some(expected) = expected.get(name) else { panic!("nothing is expected of '{name}'") };
        let dims = ["batch", if found.shape().len() == 3 { "sequence" } else { "hidden" }];
        let spec = ValueSpec {
            name: name.into(),
            dtype: found.dtype(),
            shape: Some(dims.map(|dim| Dim::Symbol(dim.into())).to_vec()),
            optional: false,
        };
        let wide = |value: &Value| Value::new(value.shape(), value.to_f64()).unwrap();
        let comparison = compare(
            &wide(expected),
            &wide(found),
            &deciding(&spec, &NamedValues::from_iter([("attention_mask", mask.clone())])),
            f64::INFINITY,
        )
        .unwrap();
        worst = worst.max(comparison.deciding.max_abs().unwrap_or(f64::INFINITY));
    }
    worst
}

/// What the outputs of some cases have to be, and how near.
struct Expected<'a> {
    values: NamedValues,
    /// What stands before the case in the names of the values.
    prefix: String,
    bound: f64,
    cases: Vec<&'a str>,
}

/// How far an engine is from what is expected, over all cases, if that is too far, or it fails.
fn fault(engine: &dyn Engine, inputs: &NamedValues, expected: &Expected) -> Option<String> {
    let mut worst = 0f64;
    for case in &expected.cases {
        let given = under(inputs, case);
        let outputs = fit_inputs(&given, engine.inputs())
            .map_err(|error| error.to_string())
            .and_then(|fitted| engine.run(&fitted).map_err(|error| error.to_string()));
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(error) => return Some(format!("{case}: {error}")),
        };
        let values = under(&expected.values, &format!("{}{case}", expected.prefix));
        worst = worst.max(distance(&outputs, &values, given.get("attention_mask").unwrap()));
    }
    (worst > expected.bound).then(|| format!("{worst:.2e} off, allowed are {:e}", expected.bound))
}

#[derive(Default)]
struct Findings {
    /// Values that are wrong, by engine and form.
    wrong: Vec<String>,
    /// A refusal, and the forms it refuses.
    refused: BTreeMap<String, Vec<String>>,
    taken_by_candle: usize,
}

impl Findings {
    fn extend(&mut self, other: Self) {
        self.wrong.extend(other.wrong);
        for (refusal, forms) in other.refused {
            self.refused.entry(refusal).or_default().extend(forms);
        }
        self.taken_by_candle += other.taken_by_candle;
    }
}

fn program(fixture: &str) -> Program {
    let file = forms().join("..").join(fixture).join("config.json");
    let config = BertConfig::from_json(&std::fs::read(file).unwrap()).unwrap();
    config.program(Task::FeatureExtraction, &|_| true).unwrap()
}

/// A form on every engine.
fn judged(form: &Form) -> Findings {
    let mut findings = Findings::default();
    let name = format!("{}/{}", form.fixture, form.form);
    let read = |file: &str| tensors::read(forms().join(file)).unwrap();
    let model = Model::open(forms().join(&form.file)).unwrap();
    let inputs = read(&format!("../{}/golden.safetensors", form.fixture));
    let cases: Vec<&str> = inputs.names().filter_map(|name| name.strip_suffix("/input_ids")).collect();
    assert!(cases.len() > 3, "{name}");

    let golden = |cases, bound| Expected { values: read(&form.golden), prefix: String::new(), bound, cases };
    let (precision, sharp, unsharp) = match &form.recorded {
        None => (Precision::F64, golden(cases.clone(), ORACLE_REACH), golden(Vec::new(), form.bound)),
        Some(recorded) => {
            let (unsharp, cases): (Vec<&str>, _) =
                cases.iter().partition(|case| recorded.unsharp.iter().any(|unsharp| unsharp == *case));
            let prefix = format!("{}/", form.form);
            let sharp = Expected { values: read(&recorded.file), prefix, bound: recorded.bound, cases };
            (Precision::F32, sharp, golden(unsharp, form.bound))
        }
    };
    let oracle = match precision {
        Precision::F64 => exact_graph(&model, &program(&form.fixture)).map(|(oracle, _)| oracle),
        _ => Oracle::with(&model, precision, Limits::default()),
    };
    match oracle {
        Ok(oracle) => {
            let faults =
                [&sharp, &unsharp].into_iter().filter_map(|expected| fault(&oracle, &inputs, expected));
            findings.wrong.extend(faults.map(|fault| format!("oracle, {name}: {fault}")));
        }
        Err(error) => {
            findings.refused.entry(format!("oracle: {error}")).or_default().push(name.clone());
        }
    }
    match Session::new(&model, EngineKind::Candle) {
        Ok(session) => {
            assert_eq!(form.precision, "f32", "{name}");
            findings.taken_by_candle += 1;
            let fault = fault(&session, &inputs, &Expected { bound: form.bound, ..sharp });
            findings.wrong.extend(fault.map(|fault| format!("candle, {name}: {fault}")));
        }
        Err(error @ (SessionError::Refused { .. } | SessionError::Unsupported { .. })) => {
            findings.refused.entry(format!("candle: {error}")).or_default().push(name);
        }
        Err(error) => panic!("{name}: {error}"),
    }
    findings
}

#[test]
fn every_form_is_right_or_refused() {
    let index: Vec<Form> =
        serde_json::from_slice(&std::fs::read(forms().join("index.json")).unwrap()).unwrap();
    let next = AtomicUsize::new(0);
    let judge = || {
        let mut findings = Findings::default();
        while let Some(form) = index.get(next.fetch_add(1, Ordering::Relaxed)) {
            findings.extend(judged(form));
        }
        findings
    };
    let mut findings = Findings::default();
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let judges: Vec<_> = (0..threads).map(|_| scope.spawn(judge)).collect();
        for judge in judges {
            match judge.join() {
                Ok(found) => findings.extend(found),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    for (refusal, names) in &findings.refused {
        println!("{refusal}: {}", names.join(", "));
    }
    findings.wrong.sort();
    assert!(findings.wrong.is_empty(), "{}", findings.wrong.join("\n"));
    assert!(findings.taken_by_candle >= TAKEN_BY_CANDLE, "candle takes {}", findings.taken_by_candle);
    assert_eq!(index.len(), FORMS);
}
