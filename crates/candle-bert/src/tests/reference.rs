use candle_core::{DType as Candle, Tensor};
use engine::{Engine as _, EngineError, NamedValues, Value, ValueSpec};

use crate::testing::model;
use crate::{ReferenceEngine, Task};

fn engine() -> ReferenceEngine {
    ReferenceEngine::new(model(Candle::F64))
}

fn inputs(ids: [i64; 3]) -> NamedValues {
    NamedValues::from_iter([
        ("input_ids", Value::new([1, 3], ids.to_vec()).unwrap()),
        ("attention_mask", Value::new([1, 3], vec![1i64, 1, 0]).unwrap()),
    ])
}

#[test]
fn it_says_what_it_takes_and_gives() {
    let specs = |specs: &[ValueSpec]| specs.iter().map(ValueSpec::to_string).collect::<Vec<_>>();
    let engine = engine();
    assert_eq!(engine.name(), "reference");
    assert_eq!(
        specs(engine.inputs()),
        [
            "input_ids i64[batch, sequence]",
            "attention_mask i64[batch, sequence]",
            "token_type_ids i64[batch, sequence]"
        ]
    );
    assert_eq!(engine.inputs().iter().map(|spec| spec.optional).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(
        specs(engine.outputs()),
        ["last_hidden_state f64[batch, sequence, 6]", "pooler_output f64[batch, 6]"]
    );
    let half = ReferenceEngine::new(model(Candle::BF16));
    assert_eq!(specs(half.outputs())[1], "pooler_output bf16[batch, 6]");
}

#[test]
fn it_gives_what_the_model_gives() {
    let engine = engine();
    let ids = Tensor::new(&[[1i64, 2, 3]], engine.model().device()).unwrap();
    let mask = Tensor::new(&[[1i64, 1, 0]], engine.model().device()).unwrap();
    let expected = model(Candle::F64).forward(&ids, Some(&mask), None).unwrap();

    let found = engine.run(&inputs([1, 2, 3])).unwrap();
    assert_eq!(found.names().collect::<Vec<_>>(), Task::FeatureExtraction.outputs());
    let value = |tensor: &Tensor| Value::from_tensor(tensor).unwrap();
    assert_eq!(found.get("last_hidden_state"), Some(&value(&expected.last_hidden_state)));
    assert_eq!(found.get("pooler_output"), Some(&value(&expected.pooler_output.unwrap())));
}

#[test]
fn modules_are_given_by_their_path_in_the_order_asked_for() {
    let engine = engine();
    let names = [
        "pooler_output",
        "encoder.layer.1.intermediate",
        "encoder",
        "embeddings.position_embeddings",
        "pooler",
    ];
    let found = engine.run_for(&inputs([1, 2, 3]), &names).unwrap();
    assert_eq!(found.names().collect::<Vec<_>>(), names);
    assert_eq!(found.get("encoder.layer.1.intermediate").unwrap().shape(), [1, 3, 8]);
    assert_eq!(found.get("embeddings.position_embeddings").unwrap().shape(), [1, 3, 6]);
    assert_eq!(found.get("pooler"), found.get("pooler_output"));
    assert_eq!(found.get("encoder"), engine.run(&inputs([1, 2, 3])).unwrap().get("last_hidden_state"));
}

#[test]
fn errors_are_of_the_right_kind() {
    let engine = engine();
    let unknown = engine.run_for(&inputs([1, 2, 3]), &["encoder.layer.9"]).unwrap_err();
    assert!(matches!(&unknown, EngineError::UnknownValue { name } if name == "encoder.layer.9"), "{unknown}");

    let error = engine.run(&inputs([1, 99, 3])).unwrap_err();
    assert!(matches!(error, EngineError::BadInput(_)), "{error}");
    assert!(
        error.to_string().starts_with("input_ids[0, 1] is 99, outside the vocabulary of 11 tokens"),
        "{error}"
    );

    assert!(matches!(engine.run(&NamedValues::new()), Err(EngineError::Input(_))));
}

#[test]
fn it_may_be_shared_between_threads() {
    let engine = engine();
    let expected = engine.run(&inputs([1, 2, 3])).unwrap();
    std::thread::scope(|scope| {
        let runs = [0; 4].map(|_| scope.spawn(|| engine.run(&inputs([1, 2, 3])).unwrap()));
        assert!(runs.into_iter().all(|run| run.join().unwrap() == expected));
    });
}
