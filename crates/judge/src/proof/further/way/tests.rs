use super::*;

const STATES: [f64; 12] = [1., 2., 3., 6., 100., -100., 0., 5., 7., 7., 7., 7.];

fn embed(pool: Pool, normalized: bool) -> Vec<f64> {
    let states = Value::new([2, 3, 2], STATES.to_vec()).unwrap();
    let mask = Value::new([2, 3], vec![1i64, 1, 0, 0, 0, 0]).unwrap();
    let pooled = Value::new([2, 2], vec![3., 4., 0., 0.]).unwrap();
    Way { pool, normalized }.embed(&states, Some(&pooled), Some(&mask)).unwrap()
}

#[test]
fn each_way_is_what_it_says() {
    // The second row has no real token: zeros where those are asked for.
    assert_eq!(embed(Pool::Mean, false), [2., 4., 0., 0.]);
    assert_eq!(embed(Pool::First, false), [1., 2., 0., 5.]);
    assert_eq!(embed(Pool::Largest, false), [3., 6., 0., 0.]);
    assert_eq!(embed(Pool::Pooler, true), [0.6, 0.8, 0., 0.]);
    assert_eq!(embed(Pool::MeanOfAll, false)[..2], [104. / 3., -92. / 3.]);
    let mean = embed(Pool::Mean, true);
    assert_eq!((mean[1] / mean[0], mean[2]), (2.0, 0.0));
}

#[test]
fn a_nan_stays_one() {
    let states = Value::new([1, 3, 1], vec![1., f64::NAN, 2.]).unwrap();
    for pool in [Pool::Mean, Pool::Largest] {
        assert!(Way { pool, normalized: false }.embed(&states, None, None).unwrap()[0].is_nan(), "{pool:?}");
    }
}

#[test]
fn what_does_not_fit_is_not_pooled() {
    let way = Way { pool: Pool::Mean, normalized: true };
    let states = Value::new([1, 2, 2], vec![1f64; 4]).unwrap();
    assert!(way.embed(&states, None, Some(&Value::new([1, 3], vec![1i64; 3]).unwrap())).is_none());
    assert!(way.embed(&Value::new([2, 2], vec![1f64; 4]).unwrap(), None, None).is_none());
    assert!(Way { pool: Pool::Pooler, ..way }.embed(&states, None, None).is_none());
}
