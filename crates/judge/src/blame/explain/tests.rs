//! Faults are made where the hypotheses do not look: in an exported graph, node by node, and in copies of the checkpoint.

mod checkpoints;
mod graphs;
mod mpnet;
mod nothing;
mod whole;

use candle_blocks::ReferenceEngine;
use candle_core::DType;
use engine::{Engine, NamedValues, Value};

use super::*;
use crate::{Subject, tensors};

/// A fixture, and what its reference makes of one input.
struct Bench {
    subject: Subject,
    program: Program,
    weights: Weights,
    inputs: NamedValues,
    taps: NamedValues,
}

impl Bench {
    /// The golden case `masks`: four texts of 11 tokens, without padding, padded right, padded left, and holed.
    fn new(fixture: &str) -> Self {
        Self::of_case(fixture, "masks")
    }

    fn of_case(fixture: &str, case: &str) -> Self {
        let folder = format!("{}/../../tests/fixtures/{fixture}", env!("CARGO_MANIFEST_DIR"));
        let golden = tensors::read(format!("{folder}/golden.safetensors")).unwrap();
        let names = ["input_ids", "attention_mask", "token_type_ids"];
        let given = |name| Some((name, golden.get(&format!("{case}/{name}"))?.clone()));
        Self::on(&folder, names.into_iter().filter_map(given).collect())
    }

    fn on(folder: &str, inputs: NamedValues) -> Self {
        let subject = Subject::open(Some(folder)).unwrap();
        let weights =
            Weights::new(&subject.files().checkpoint().unwrap(), subject.task(), subject.family()).unwrap();
        let engine = subject.reference(DType::F64).unwrap().engine;
        let taps = taps(&engine, &inputs);
        Self { subject, program: engine.program().clone(), weights, inputs, taps }
    }

    fn evidence(&self) -> Evidence<'_> {
        Evidence {
            program: &self.program,
            pad: self.subject.family().pad_token_id(),
            weights: &self.weights,
            inputs: &self.inputs,
            taps: &self.taps,
        }
    }

    #[track_caller]
    fn explain(&self, module: &str, found: &Value) -> Explanation {
        let explanation = explain(&self.evidence(), module, found).unwrap();
        let explanation = explanation.unwrap_or_else(|| panic!("{module} is not explained"));
        let Explanation { before, after, .. } = explanation;
        assert!(before > 0. && after <= bound(before, f64::INFINITY), "{explanation}");
        explanation
    }
}

/// Every module's output.
fn taps(engine: &ReferenceEngine, inputs: &NamedValues) -> NamedValues {
    let names: Vec<&str> = engine.program().module_paths().collect();
    engine.run_for(inputs, &names).unwrap()
}

/// A value with every element changed by a function of its number and itself.
fn changed(value: &Value, f: impl Fn(usize, f64) -> f64) -> Value {
    let elements: Vec<f64> = value.to_f64().into_iter().enumerate().map(|(at, x)| f(at, x)).collect();
    Value::new(value.shape(), elements).unwrap()
}
