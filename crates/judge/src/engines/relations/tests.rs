use engine::DType;
use onnx_session::{EngineKind, Session};

use super::*;
use crate::Subject;
use crate::inputs::{EmbeddingTables, default_cases};

/// Two f32 computations of the default model are within this, which is its claim; other sizes sum in another order, which is up to 4.5e-7.
const F32: f64 = 1e-6;

const SIDE: &str = "mean in f64";
const EXACT: Bound = Bound::Relative(1e-12);

/// What an engine of one weight gets wrong, of set purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The mean counts padding.
    MaskIgnored,
    /// The mean skips padding, and counts its number.
    LengthCounted,
    /// Every row has something of the first.
    FirstRowLeaks,
    /// A row's number in the batch is added.
    RowNumberAdded,
    /// No two runs are the same.
    Random,
    /// No two runs are the same to the last bit.
    Jitters,
    /// The number of threads is added.
    ThreadsCounted,
    /// Not a number, always.
    Nan,
    /// Fails on a batch of one.
    NeedsTwoRows,
}

/// `hidden[b, s] = id + mean of the row's real ids`, `pooled[b] = that mean`.
struct Mean {
    fault: Fault,
    inputs: Vec<ValueSpec>,
    outputs: Vec<ValueSpec>,
    runs: std::sync::atomic::AtomicUsize,
    threads: f64,
}

impl Mean {
    fn new(fault: Fault) -> Self {
        Self::of_shape(fault, [Dim::Any, Dim::Any])
    }

    fn of_shape(fault: Fault, dims: [Dim; 2]) -> Self {
        let spec = |name: &str, dtype, shape: Vec<Dim>| ValueSpec {
            name: name.into(),
            dtype,
            shape: Some(shape),
            optional: false,
        };
        let inputs = ["input_ids", "attention_mask"].map(|name| spec(name, DType::I64, dims.to_vec()));
        let [batch, sequence] = dims;
        let outputs = vec![
            spec("hidden", DType::F64, vec![batch.clone(), sequence, Dim::Fixed(1)]),
            spec("pooled", DType::F64, vec![batch, Dim::Fixed(1)]),
        ];
        Self {
            fault,
            inputs: inputs.into(),
            outputs,
            runs: Default::default(),
            threads: rayon::current_num_threads() as f64,
        }
    }
}

impl Engine for Mean {
    fn name(&self) -> &str {
        "mean"
    }

    fn inputs(&self) -> &[ValueSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[ValueSpec] {
        &self.outputs
    }

    fn run_for(&self, inputs: &NamedValues, _: &[&str]) -> Result<NamedValues, EngineError> {
        let run = self.runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as f64;
        let [ids, mask] = ["input_ids", "attention_mask"].map(|name| inputs.get(name).unwrap());
        let &[batch, sequence] = ids.shape() else { panic!() };
        if self.fault == Fault::NeedsTwoRows && batch == 1 {
            return Err(EngineError::Node { node: "n".into(), op: "Reshape".into(), source: "no".into() });
        }
        let (ids, mask) = (ids.to_f64(), mask.to_f64());
        let (mut hidden, mut pooled) = (Vec::new(), Vec::new());
        for row in 0..batch {
            let tokens = row * sequence..(row + 1) * sequence;
            let real = |at: &usize| mask[*at] == 1.0 || self.fault == Fault::MaskIgnored;
            let kept: Vec<f64> = tokens.clone().filter(real).map(|at| ids[at]).collect();
            let mut mean = kept.iter().sum::<f64>() / kept.len() as f64;
            mean += match self.fault {
                Fault::LengthCounted => sequence as f64,
                Fault::FirstRowLeaks => ids[0],
                Fault::RowNumberAdded => row as f64,
                Fault::Random => run,
                Fault::Jitters => run * 1e-12,
                Fault::ThreadsCounted => rayon::current_num_threads() as f64 - self.threads,
                Fault::Nan => f64::NAN,
                _ => 0.0,
            };
            hidden.extend(tokens.map(|at| ids[at] + mean));
            pooled.push(mean);
        }
        let hidden = Value::new([batch, sequence, 1], hidden).unwrap();
        Ok(NamedValues::from_iter([("hidden", hidden), ("pooled", Value::new([batch, 1], pooled).unwrap())]))
    }
}

fn case(rows: &[(&[i64], &[i64])]) -> Case {
    let shape = [rows.len(), rows[0].0.len()];
    let [ids, mask]: [Vec<i64>; 2] = [
        rows.iter().flat_map(|row| row.0.to_vec()).collect(),
        rows.iter().flat_map(|row| row.1.to_vec()).collect(),
    ];
    let inputs = NamedValues::from_iter([
        ("input_ids", Value::new(shape, ids).unwrap()),
        ("attention_mask", Value::new(shape, mask).unwrap()),
    ]);
    Case { name: "case".into(), inputs }
}

/// Three rows: padded right, full, without any real token (whose mean is NaN, which decides nothing).
fn three() -> Case {
    case(&[(&[3, 5, 7], &[1, 1, 0]), (&[2, 4, 9], &[1, 1, 1]), (&[1, 1, 1], &[0, 0, 0])])
}

fn violated(fault: Fault) -> Vec<String> {
    let relations = judge(&Mean::new(fault), SIDE, &three(), EXACT).unwrap();
    assert_eq!(relations.len(), NAMES.len());
    assert!(relations.iter().all(|relation| relation.skipped.is_none()), "{relations:?}");
    relations.into_iter().filter(Relation::is_violated).map(|relation| relation.name.to_string()).collect()
}

#[test]
fn a_model_without_fault_keeps_every_relation() {
    assert_eq!(violated(Fault::None), [""; 0]);
    let relations = judge(&Mean::new(Fault::None), SIDE, &three(), EXACT).unwrap();
    for relation in relations {
        assert!(relation.holds && relation.max_abs == Some(0.0) && relation.input == "case", "{relation:?}");
    }
}

#[test]
fn each_fault_violates_its_own_relations() {
    assert_eq!(violated(Fault::MaskIgnored), [PADDED, CONTENT]);
    assert_eq!(violated(Fault::LengthCounted), [PADDED]);
    assert_eq!(violated(Fault::FirstRowLeaks), [NEIGHBOURS, ORDER]);
    assert_eq!(violated(Fault::RowNumberAdded), [NEIGHBOURS, ORDER]);
    assert_eq!(violated(Fault::Random), NAMES);
    assert_eq!(violated(Fault::ThreadsCounted), [THREAD_COUNT]);
}

#[test]
fn nan_keeps_no_relation() {
    assert_eq!(violated(Fault::Nan).len(), NAMES.len());
    let relations = judge(&Mean::new(Fault::Nan), SIDE, &three(), Bound::Relative(f64::INFINITY)).unwrap();
    assert!(relations.iter().all(|relation| relation.max_abs.is_none() && !relation.holds), "{relations:?}");
}

#[test]
fn an_engine_that_fails_on_one_row_alone_is_violated_and_told() {
    let relations = judge(&Mean::new(Fault::NeedsTwoRows), SIDE, &three(), EXACT).unwrap();
    let neighbours = relations.iter().find(|relation| relation.name == NEIGHBOURS).unwrap();
    assert!(neighbours.is_violated() && neighbours.failure.as_ref().unwrap().contains("Reshape"));
    assert_eq!(relations.iter().filter(|relation| relation.holds).count(), NAMES.len() - 1);
}

#[test]
fn the_bound_is_relative_to_values_above_one() {
    // Means of about 5: the row number is at most 2 off.
    let holds = |bound| {
        let relations =
            judge(&Mean::new(Fault::RowNumberAdded), SIDE, &three(), Bound::Relative(bound)).unwrap();
        relations.iter().find(|relation| relation.name == ORDER).unwrap().holds
    };
    assert!(!holds(0.01) && holds(1.0));
}

#[test]
fn two_runs_alike_are_the_same_to_the_last_bit() {
    let relations = judge(&Mean::new(Fault::Jitters), "mean in f64", &three(), Bound::Relative(1.0)).unwrap();
    assert!(
        relations[0].is_violated() && relations[0].name == RUN_TWICE && relations[0].side == "mean in f64"
    );
    assert!(relations[1..].iter().all(|relation| relation.holds), "{relations:?}");
}

fn skipped(engine: &dyn Engine, case: &Case) -> Vec<String> {
    let relations = judge(engine, SIDE, case, EXACT).unwrap();
    for relation in &relations {
        assert_ne!(relation.holds, relation.skipped.is_some());
    }
    relations
        .iter()
        .filter(|relation| relation.skipped.is_some())
        .map(|relation| relation.name.to_string())
        .collect()
}

#[test]
fn what_cannot_be_judged_is_skipped_and_never_holds() {
    let full = case(&[(&[3, 5], &[1, 1])]);
    assert_eq!(skipped(&Mean::new(Fault::None), &full), [CONTENT, NEIGHBOURS, ORDER]);
    let fixed = Mean::of_shape(Fault::None, [Dim::Fixed(3), Dim::Fixed(3)]);
    assert_eq!(skipped(&fixed, &three()), [PADDED, NEIGHBOURS]);
    let empty = case(&[(&[3, 5], &[0, 0])]);
    assert_eq!(skipped(&Mean::new(Fault::None), &empty).len(), NAMES.len());
    let mut choices = full;
    choices.inputs.insert("input_ids", Value::new([1, 1, 2], vec![3i64, 5]).unwrap());
    assert_eq!(skipped(&Mean::new(Fault::None), &choices).len(), NAMES.len());
}

#[test]
fn a_mask_that_is_absent_is_one_of_ones() {
    let mut ids = case(&[(&[3, 5], &[1, 1]), (&[2, 9], &[1, 1])]);
    ids.inputs.remove("attention_mask");
    assert_eq!(skipped(&Mean::new(Fault::None), &ids), [CONTENT]);
}

#[test]
fn a_row_of_as_many_values_as_tokens_is_no_row_of_tokens() {
    let grid = Grid::of(&three().inputs).unwrap();
    let spec = |name: &str, second: Dim| ValueSpec {
        name: name.into(),
        dtype: DType::F64,
        shape: Some(vec![Dim::Any, second]),
        optional: false,
    };
    let value = Value::new([3, 3], vec![0f64; 9]).unwrap();
    let by_token = |spec: &ValueSpec| Layout::of(spec, &value, &grid) == Some(Layout::Tokens);
    assert!(!by_token(&spec("pooler_output", Dim::Fixed(3))));
    assert!(by_token(&spec("start_logits", Dim::Fixed(3))));
    assert!(by_token(&spec("logits", Dim::Symbol("sequence".into()))));
    assert!(Layout::of(&spec("loss", Dim::Any), &Value::scalar(1f64), &grid).is_none());
}

#[test]
fn both_paths_of_the_default_model_keep_every_relation() {
    let subject = Subject::open(None).unwrap();
    let reference = subject.reference(candle_core::DType::F32).unwrap().engine;
    let session = Session::new(&subject.graph(None).unwrap().1, EngineKind::Candle).unwrap();
    let tables = EmbeddingTables::of(&subject.files().checkpoint().unwrap(), subject.family());
    let cases = default_cases(&subject.limits(), FixedShape::default(), None, tables.as_ref()).unwrap();
    let engines: [&dyn Engine; 2] = [&reference, &session];
    for engine in engines {
        let (mut held, mut skipped) = (0, Vec::new());
        for case in cases.iter().filter(|case| case.name != "three of fifteen") {
            for relation in judge(engine, SIDE, case, Bound::Relative(F32)).unwrap() {
                assert!(!relation.is_violated(), "{}: {relation:?}", engine.name());
                held += usize::from(relation.holds);
                if relation.skipped.is_some() && relation.name == PADDED {
                    skipped.push(relation.input);
                }
            }
        }
        // The longest has no room for padding, which both engines say.
        assert_eq!(skipped, ["longest"], "{}", engine.name());
        assert!(held >= 12 * 2, "{held}");
    }
}
