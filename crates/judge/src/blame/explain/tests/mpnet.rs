//! What MPNet adds to its scores for how far tokens stand apart: the reference itself, with its
//! description changed.

use architecture::{Task, bind, bind_program};
use candle_blocks::Model;

use super::*;

const TABLE: &str = "encoder.relative_attention_bias";
const ATTENTION: &str = "encoder.layer.0.attention.attn.(attention)";

/// Texts so long that distances go to buckets by the logarithm.
fn bench() -> Bench {
    Bench::of_case("families/mpnet/plain", "long")
}

/// What the modules give where the description is another.
fn with(bench: &Bench, change: &dyn Fn(&mut Program)) -> NamedValues {
    let checkpoint = bench.subject.files().checkpoint().unwrap();
    let bound = bind(&checkpoint, bench.subject.family(), Task::FeatureExtraction).unwrap();
    let (mut program, prefix, head) = (bound.program.clone(), bound.prefix.clone(), bound.head_prefix);
    change(&mut program);
    let bound = bind_program(&checkpoint, program, prefix, head).unwrap();
    let model = Model::from_bound(&checkpoint, bound, DType::F64, &Device::Cpu).unwrap().model;
    taps(&ReferenceEngine::new(model), &bench.inputs)
}

#[track_caller]
fn check(bench: &Bench, module: &str, found: &Value, text: &str) {
    let explanation = bench.explain(module, found).to_string();
    assert!(explanation.starts_with(text), "{explanation}");
}

#[test]
fn other_buckets() {
    let bench = bench();
    let of = |buckets: usize, farthest: usize| {
        let change = |program: &mut Program| {
            for step in &mut program.steps {
                if let Op::RelativeBias { table, .. } = step.op {
                    step.op = Op::RelativeBias { table, buckets, farthest };
                }
            }
        };
        with(&bench, &change).get(TABLE).unwrap().clone()
    };
    assert_eq!(of(32, 128), *bench.taps.get(TABLE).unwrap());
    check(&bench, TABLE, &of(16, 128), "16 buckets instead of 32");
    check(&bench, TABLE, &of(32, 64), "the last bucket begins at 64 instead of 128");
}

#[test]
fn other_distances() {
    let bench = bench();
    let own = bench.taps.get(TABLE).unwrap();
    let &[length, _, heads] = own.shape() else { panic!("{:?}", own.shape()) };
    let elements = own.to_f64();
    let pair = |at: usize| (at / heads / length, at / heads % length, at % heads);
    let moved = |from: &dyn Fn(usize, usize) -> (usize, usize)| {
        changed(own, |at, _| {
            let (asks, asked, head) = pair(at);
            let (asks, asked) = from(asks, asked);
            elements[(asks * length + asked) * heads + head]
        })
    };
    check(&bench, TABLE, &moved(&|asks, asked| (asked, asks)), "earlier and later tokens exchanged");
    let alike = moved(&|asks, asked| (asks.max(asked), asks.min(asked)));
    check(&bench, TABLE, &alike, "earlier and later tokens are treated alike");
    check(&bench, TABLE, &changed(own, |_, _| 0.0), "left out");
}

#[test]
fn scores_without_what_is_added() {
    let bench = bench();
    let without = with(&bench, &|program| {
        for step in program.steps.iter_mut().filter(|step| matches!(step.op, Op::Attention { .. })) {
            step.inputs.truncate(4);
        }
    });
    check(
        &bench,
        ATTENTION,
        without.get(ATTENTION).unwrap(),
        "nothing is added for how far tokens stand apart",
    );
}
