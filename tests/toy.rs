//! A family of one's own, in one file: other names than BERT's, normalisation before each sublayer,
//! no token types, a head of its own. From its description follow the reference with its taps, the
//! export, the audit, the locator, the explanations and the selftest.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use architecture::{Activation, Draft, Family, ProblemType, Program, Task, TaskError, Wire};
use bytes::Bytes;
use candle_core::DType;
use checkpoint::ModelFiles;
use engine::{Engine, Value};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_export::{Options, Shape, Target, export};
use onnx_graph::{Model, Tensor as Constant};
use onnx_session::{EngineKind, Session};
use parity::inputs::{Case, cases_for};
use parity::report::GraphReport;
use parity::selftest::{Outcome, selftest};
use parity::trial::{Graph, Trial};
use parity::{Bounds, References, Subject, Verdict};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView};

/// The sizes of the toy. No two are equal, so that none can stand for another.
#[derive(Debug)]
struct Toy {
    vocabulary: usize,
    width: usize,
    wide: usize,
    heads: usize,
    blocks: usize,
    positions: usize,
    labels: usize,
    task: Task,
}

const TOY: Toy = Toy {
    vocabulary: 37,
    width: 12,
    wide: 20,
    heads: 3,
    blocks: 2,
    positions: 19,
    labels: 4,
    task: Task::SequenceClassification,
};

impl Toy {
    /// h₀ = tok\[id\] + pos\[i\];  a = h + Mix(norm(h));  h' = a + down act(up norm(a));  y =
    /// norm(h)
    fn body(&self, m: &mut Draft, ids: Wire, mask: Wire) -> Wire {
        let stem = m.module("stem", "ToyStem", |m| {
            let tok = m.embedding("tok", ids, self.vocabulary, self.width);
            let pos = m.positions("pos", self.positions, self.width);
            m.sum([tok, pos])
        });
        m.module("trunk", "ToyTrunk", |m| {
            let mask = m.mask(mask);
            let last = (0..self.blocks)
                .fold(stem, |h, n| m.item("block", n, "ToyBlock", |m| self.block(m, h, mask)));
            m.layer_norm("last_norm", last, 1e-6)
        })
    }

    fn block(&self, m: &mut Draft, h: Wire, mask: Wire) -> Wire {
        let mixed = m.module("mix", "ToyMix", |m| {
            let x = m.layer_norm("norm", h, 1e-6);
            let context = m.module("look", "ToyLook", |m| {
                let parts = ["q", "k", "v"].map(|part| m.linear(part, x, self.width));
                m.attention(parts, mask, self.heads)
            });
            let out = m.linear("out", context, self.width);
            m.sum([h, out])
        });
        m.module("mlp", "ToyMlp", |m| {
            let x = m.layer_norm("norm", mixed, 1e-6);
            let up = m.linear("up", x, self.wide);
            let bent = m.module("bend", "ToyBend", |m| m.configured_activation(up, Activation::GeluTanh));
            let down = m.linear("down", bent, self.width);
            m.sum([mixed, down])
        })
    }
}

impl Family for Toy {
    fn name(&self) -> &'static str {
        "Toy"
    }

    fn base(&self) -> &'static str {
        "toy"
    }

    fn program(&self, task: Task, _: &dyn Fn(&str) -> bool) -> Result<Program, Box<dyn Error + Send + Sync>> {
        let mut m = Draft::new(&self.class(task), "ToyModel", task);
        let (ids, mask) = (m.input("input_ids"), m.input("attention_mask"));
        let hidden = m.base(|m| self.body(m, ids, mask));
        if task == Task::SequenceClassification {
            let scores = m.module("score", "ToyScore", |m| {
                let first = m.token(hidden, 0);
                let squashed = m.linear("squash", first, self.wide);
                let bent = m.activation(squashed, Activation::Tanh);
                m.linear("out", bent, self.labels)
            });
            m.output("logits", scores);
        } else {
            m.output("last_hidden_state", hidden);
        }
        Ok(m.finish())
    }

    fn task(&self) -> Result<Task, TaskError> {
        Ok(self.task)
    }

    fn class(&self, task: Task) -> Cow<'static, str> {
        if task == Task::SequenceClassification { "ToyForScores".into() } else { "ToyModel".into() }
    }

    fn pad_token_id(&self) -> usize {
        0
    }

    fn num_labels(&self) -> usize {
        self.labels
    }

    fn label(&self, id: usize) -> Cow<'_, str> {
        format!("label {id}").into()
    }

    fn problem_type(&self) -> Option<ProblemType> {
        None
    }
}

/// The toy with weights of its own: gains away from 1, biases, a column that stands out.
fn subject() -> Subject {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let program = TOY.program(TOY.task, &|_| false).unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = program
        .tensors
        .iter()
        .map(|tensor| {
            let prefix = if tensor.in_base { "toy." } else { "" };
            let elements = tensor.shape.iter().product::<usize>();
            let is_gain = tensor.old_name.is_some() && tensor.name.ends_with("weight");
            let bytes = (0..elements).flat_map(|at| {
                let spread = rng.random_range(-0.6f32..0.6) * if at % 5 == 0 { 2.0 } else { 1.0 };
                (spread + if is_gain { 1.3 } else { 0.0 }).to_le_bytes()
            });
            (format!("{prefix}{}", tensor.name), tensor.shape.clone(), bytes.collect())
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let file: Bytes = safetensors::serialize(views, None).unwrap().into();
    Subject::new(ModelFiles::from_memory("toy", [("model.safetensors", file)]), Arc::new(TOY)).unwrap()
}

fn cases(subject: &Subject, model: &Model) -> Vec<Case> {
    cases_for(subject.task(), &subject.limits(), &model.graph.inputs, None, None).unwrap()
}

fn exported(subject: &Subject) -> Model {
    subject.graph_or_export(None).unwrap().1
}

/// What a check makes of a graph.
fn checked(subject: &Subject, model: &Model) -> GraphReport {
    let references = References::load(subject).unwrap();
    let mut cases = cases(subject, model);
    for case in &mut cases {
        case.inputs.remove("token_type_ids");
    }
    let session = Session::new(model, EngineKind::Compiled).unwrap();
    let trial = Trial::new(subject, &references, &cases, |_| ()).unwrap();
    let bounds = Bounds::default();
    trial.judge(Graph::new("toy.onnx", model, &[&session], &bounds), |_| ()).unwrap().report
}

#[test]
fn it_has_a_reference_with_a_tap_at_every_module() {
    let reference = subject().reference(DType::F64).unwrap();
    assert_eq!(reference.unused, [""; 0]);
    let engine = reference.engine;
    let inputs = [("input_ids", Value::new([2, 3], vec![1i64, 5, 9, 36, 0, 7]).unwrap())];
    let paths: Vec<String> = engine.program().module_paths().map(String::from).collect();
    let names: Vec<&str> = paths.iter().map(String::as_str).collect();
    let found = engine.run_for(&inputs.into_iter().collect(), &names).unwrap();
    assert_eq!(found.names().collect::<Vec<_>>(), names);
    assert_eq!(found.get("trunk.block.1.mlp.up").unwrap().shape(), [2, 3, 20]);
    assert_eq!(found.get("score").unwrap().shape(), [2, 4]);
    assert_eq!(engine.outputs()[0].to_string(), "logits f64[batch, 4]");
}

#[test]
fn it_is_exported_in_every_form_and_proven() {
    let subject = subject();
    let checkpoint = subject.files().checkpoint().unwrap();
    for target in [Target::Onnx, Target::CandleOnnx] {
        for opset in [13, 17, 20, 21] {
            let shape = Shape::Static { batch: 2, sequence: 7 };
            for shape in [Shape::Dynamic, shape] {
                let options = Options { task: subject.task(), opset, shape, target, ..Options::default() };
                let model = export(&checkpoint, subject.family(), &options).unwrap();
                let report = checked(&subject, &model);
                assert!(report.verdict <= Verdict::Rounding, "{options:?}: {:?}", report.verdict);
            }
        }
    }
    let model = exported(&subject);
    let node = model.graph.nodes.iter().find(|node| node.op == "Softmax").unwrap();
    assert_eq!(node.name, "/trunk/block.0/mix/look/Softmax");
    assert_eq!(node.metadata["hierarchy_tag"], "/ToyForScores/ToyModel/ToyTrunk/ToyBlock.0/ToyMix/ToyLook");
}

/// A copy of a graph with a constant changed.
fn with(model: &Model, initializer: &str, change: impl Fn(usize, f32) -> f32) -> Model {
    let mut model = model.clone();
    let tensor = model.graph.initializers.get_mut(initializer).unwrap();
    let value = tensor.to_value().unwrap();
    let elements: Vec<f32> =
        value.as_slice::<f32>().unwrap().iter().enumerate().map(|(at, &x)| change(at, x)).collect();
    *tensor = Constant::from_value(&Value::new(value.shape(), elements).unwrap());
    model
}

#[test]
fn its_faults_are_audited_located_and_explained() {
    let subject = subject();
    let model = exported(&subject);
    let report = checked(&subject, &model);
    let audit = report.weights.as_ref().unwrap();
    assert_eq!((audit.verdict, audit.untraced.len()), (Verdict::Pass, 0));
    assert_eq!(audit.tensors(), TOY.program(TOY.task, &|_| false).unwrap().tensors.len());
    for (initializer, module, text) in [
        ("trunk.block.1.mlp.down.bias", "trunk.block.1.mlp.down", "bias left out"),
        ("trunk.block.0.mix.look.q.bias", "trunk.block.0.mix.look.q", "bias left out"),
        ("score.squash.bias", "score.squash", "bias left out"),
    ] {
        let report = checked(&subject, &with(&model, initializer, |_, _| 0.0));
        assert_eq!(report.verdict, Verdict::Fail, "{initializer}");
        let culprit = &report.culprits[0];
        assert_eq!(culprit.module, module);
        assert!(culprit.explanation.as_ref().unwrap().contains(text), "{culprit:?}");
    }
    // A residual connection that is missing, in a model that does not normalise after it.
    let mut cut = model.clone();
    let sum = cut.graph.nodes.iter_mut().find(|node| node.name == "/trunk/block.1/mlp/Add").unwrap();
    (sum.op, sum.inputs) = ("Identity".into(), vec![sum.inputs[1].clone()]);
    let report = checked(&subject, &cut);
    assert_eq!(report.culprits[0].module, "trunk.block.1.mlp");
    let explanation = report.culprits[0].explanation.as_ref().unwrap();
    assert!(explanation.starts_with("residual connection missing"), "{explanation}");
}

#[test]
fn its_selftest_finds_what_is_planted() {
    let subject = subject();
    let model = exported(&subject);
    let cases = cases(&subject, &model);
    let bounds = Bounds::default();
    let graph = Graph::new("toy.onnx", &model, &[], &bounds);
    let result = selftest(&subject, graph, &cases, |_, _| ()).unwrap();
    let missed: Vec<&str> = result
        .outcomes
        .iter()
        .filter(|outcome| !outcome.right)
        .map(|outcome| outcome.fault.as_str())
        .collect();
    assert_eq!(missed, [""; 0]);
    assert!(result.faults >= 60, "{} faults", result.faults);
    let of = |is: &dyn Fn(&Outcome) -> bool| -> Vec<String> {
        let found = result.outcomes.iter().filter(|outcome| is(outcome));
        found
            .map(|outcome| format!("{}: {:?} {:?}", outcome.fault, outcome.named, outcome.explanation))
            .collect()
    };
    assert_eq!(of(&|outcome| outcome.located == Some(false)), [""; 0]);
    assert_eq!(of(&|outcome| outcome.explained == Some(false)), [""; 0]);
    // The oracle takes it, too.
    assert!(Oracle::with(&model, Precision::F64, Limits::default()).is_ok());
}
