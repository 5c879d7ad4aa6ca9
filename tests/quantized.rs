//! What ONNX Runtime's quantizers make of a graph: four bits, and static scales. The oracle gives
//! what ONNX Runtime gives; a right graph is proven against the checkpoint quantized the same way;
//! a broken one is explained by what breaks it.

use engine::{DType, Engine, NamedValues};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::{Model, Tensor};
use parity::audit::Expect;
use parity::report::GraphReport;
use parity::{Bounds, Subject, Verdict};

use crate::common::{fixture, golden, inputs_of, judged, off};

/// How far the oracle may be from what ONNX Runtime gave: both round to f32 at every node. Twice
/// the largest that was measured, 2.5e-6.
const ROUNDING: f64 = 5e-6;

/// How far both f64 sides may be apart, relative to values above 1: a tenth of what a check allows.
const PROVEN: f64 = 1e-11;

/// Each right graph, and what it was converted to.
const RIGHT: [(&str, Expect); 7] = [
    ("int4", Expect::Int4),
    ("int4-asymmetric", Expect::Int4),
    ("fp4", Expect::Int4),
    ("nf4", Expect::Int4),
    ("int8-blocks", Expect::Int8),
    ("qdq", Expect::Int8),
    ("qoperator", Expect::Int8),
];

/// Those with a scale that swallows the scores.
const BROKEN: [&str; 2] = ["qdq-mask", "qoperator-mask"];

fn open(name: &str) -> Model {
    Model::open(fixture("quantized").join(format!("{name}.onnx"))).unwrap()
}

fn judge(model: &Model, expect: Expect) -> GraphReport {
    let subject = Subject::open(fixture("baseline").to_str()).unwrap();
    let oracle = Oracle::with(model, Precision::F32, Limits::default()).unwrap();
    judged(&subject, "graph", model, &[&oracle], &Bounds { expect, ..Bounds::default() })
}

/// What the audit finds, in lines.
fn findings(report: &GraphReport) -> String {
    let findings = report.weights.iter().flat_map(|audit| &audit.findings);
    findings.map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_oracle_gives_what_onnx_runtime_gives() {
    let inputs = inputs_of(&golden(fixture("baseline").join("golden.safetensors"))["masks"]);
    let recorded = golden(fixture("quantized").join("onnxruntime.safetensors"));
    let names = RIGHT.iter().map(|(name, _)| *name).chain(BROKEN);
    assert_eq!(recorded.len(), names.clone().count());
    for name in names {
        let oracle = Oracle::with(&open(name), Precision::F32, Limits::default()).unwrap();
        let found = oracle.run(&inputs).unwrap();
        let expected: NamedValues = recorded[name].clone();
        let off = off(&found, &expected);
        assert!(off <= ROUNDING, "{name}: {off:e}");
    }
}

#[test]
fn a_right_graph_is_proven_against_the_checkpoint_quantized_the_same_way() {
    for (name, expect) in RIGHT {
        let report = judge(&open(name), expect);
        let error = report.proof.max_rel;
        assert_eq!(report.verdict, Verdict::Rounding, "{name}: {error:?}\n{}", findings(&report));
        assert!(error.is_some_and(|error| error <= PROVEN), "{name}: {error:?}");
        let weights = report.weights.as_ref().unwrap();
        assert!(weights.untraced.is_empty() && weights.leftover.is_empty(), "{name}: {weights:?}");
        assert!(report.culprits.is_empty(), "{name}: {:?}", report.culprits);
        // It is none of another conversion.
        let report = judge(&open(name), Expect::Exact);
        let option = if expect == Expect::Int4 { "--expect int4" } else { "--expect int8" };
        assert_eq!(report.verdict, Verdict::Fail, "{name}");
        assert!(findings(&report).contains(option), "{name}: {}", findings(&report));
    }
    let report = judge(&open("int4"), Expect::Int8);
    assert_eq!(report.verdict, Verdict::Fail);
    assert!(findings(&report).contains("quantized to four bits"), "{}", findings(&report));
    // What is of four bits may be of eight in part.
    assert_eq!(judge(&open("int8-blocks"), Expect::Int4).verdict, Verdict::Rounding);
}

/// One number of four bits, three steps away from where it should be, is no rounding.
#[test]
fn a_wrong_number_of_four_bits_is_found() {
    for name in ["int4", "nf4"] {
        let mut model = open(name);
        let is_packed =
            |tensor: &Tensor| tensor.dtype == DType::U8 && tensor.shape.iter().product::<usize>() > 64;
        let tensor = model.graph.initializers.values_mut().find(|tensor| is_packed(tensor)).unwrap();
        let mut bytes = tensor.bytes.to_vec();
        bytes[3] = bytes[3] & 0xf0 | (bytes[3] + 3) & 0xf;
        tensor.bytes = bytes.into();
        let report = judge(&model, Expect::Int4);
        assert_eq!(report.verdict, Verdict::Fail, "{name}");
        assert!(findings(&report).contains("but 1 of 256 elements differ"), "{name}: {}", findings(&report));
        let culprits: Vec<&str> = report.culprits.iter().map(|culprit| culprit.module.as_str()).collect();
        assert_eq!(culprits, ["encoder.layer.0.attention.self.query"], "{name}");
    }
}

#[test]
fn a_scale_that_swallows_the_scores_is_named() {
    for name in BROKEN {
        let report = judge(&open(name), Expect::Int8);
        assert_eq!(report.verdict, Verdict::Fail, "{name}");
        for layer in 0..2 {
            let module = format!("encoder.layer.{layer}.attention.self");
            let culprit = report.culprits.iter().find(|culprit| culprit.module == module);
            let said = culprit.and_then(|culprit| culprit.explanation.as_deref()).unwrap_or_default();
            assert!(
                said.contains("quantizes") && said.contains("all become one: its steps are of 1."),
                "{name}: {said}"
            );
            assert!(!said.contains("inverted"), "{name}: {said}");
        }
    }
}
