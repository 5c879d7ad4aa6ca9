use super::*;

#[test]
fn what_is_wrong_names_the_stage() {
    let way = |pool, normalized| Way { pool, normalized };
    let explain = |is, should| {
        Embedding {
            name: SENTENCE.into(),
            is: Some(is),
            lacks: None,
            should: Made::Pooled(should),
            because: String::new(),
            declared: true,
        }
        .explanation()
    };
    let meant = way(Pool::Mean, true);
    assert_eq!(explain(meant, meant), None);
    let words = explain(way(Pool::MeanOfAll, true), meant).unwrap();
    assert!(words.starts_with("pooling: the embedding counts padding; "), "{words}");
    let words = explain(way(Pool::Mean, false), meant).unwrap();
    assert!(words.starts_with("normalisation: the embedding is not normalised; "), "{words}");
    assert!(words.ends_with("modules.json asks for the mean over real tokens, of length 1"), "{words}");
    let words = explain(way(Pool::First, false), meant).unwrap();
    assert!(words.starts_with("pooling: the embedding is made of other tokens, normalisation: "), "{words}");
}
