//! Weights that are not the checkpoint's: the reference itself, loaded from a copy of it in which something was changed.

use std::collections::BTreeMap;

use candle_core::{DType, Device};
use checkpoint::Checkpoint;
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::*;

type Weights32 = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// What a module gives with other weights, all before it being right.
fn found(bench: &Bench, module: &str, change: impl FnOnce(&mut Weights32)) -> Value {
    let checkpoint = bench.subject.files().checkpoint().unwrap();
    let mut weights: Weights32 = checkpoint
        .iter()
        .map(|entry| {
            let elements = entry.to_value().unwrap().to_f64().into_iter().map(|x| x as f32).collect();
            (entry.name.clone(), (entry.shape.clone(), elements))
        })
        .collect();
    change(&mut weights);
    let bytes: Vec<_> = weights
        .iter()
        .map(|(name, (shape, elements))| {
            let bytes: Vec<u8> = elements.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()));
    let bytes = safetensors::serialize(views, None).unwrap();
    let checkpoint = Checkpoint::from_safetensors("changed", bytes.into()).unwrap();
    let reference = bench.subject.reference_of(&checkpoint, DType::F64, &Device::Cpu).unwrap();
    taps(&reference.engine, &bench.inputs).get(module).unwrap().clone()
}

/// The tensor of `name`.
fn of<'a>(weights: &'a mut Weights32, name: &str) -> &'a mut Vec<f32> {
    &mut weights.get_mut(name).unwrap().1
}

/// Checks one fault: the words for it, and the module that is blamed where it is another.
#[track_caller]
fn check(bench: &Bench, module: &str, change: impl FnOnce(&mut Weights32), text: &str, blamed: Option<&str>) {
    let explanation = bench.explain(module, &found(bench, module, change));
    assert_eq!((explanation.text.as_str(), explanation.module.as_deref()), (text, blamed), "{explanation}");
}

const QUERY: &str = "encoder.layer.0.attention.self.query";
const KEY: &str = "encoder.layer.0.attention.self.key";

#[test]
fn a_bias() {
    for fixture in ["baseline", "odd"] {
        let bench = Bench::new(fixture);
        for module in [
            QUERY,
            "encoder.layer.0.attention.output.dense",
            "encoder.layer.0.intermediate.dense",
            "encoder.layer.0.output.dense",
            "pooler.dense",
        ] {
            let bias = format!("{module}.bias");
            let times = |factor: f32| {
                let bias = bias.clone();
                move |weights: &mut Weights32| of(weights, &bias).iter_mut().for_each(|x| *x *= factor)
            };
            check(&bench, module, times(0.), "bias left out", None);
            check(&bench, module, times(2.), "bias added twice", None);
            check(&bench, module, times(-1.), "bias subtracted", None);
        }
    }
}

#[test]
fn one_bias_or_another() {
    let bench = Bench::new("baseline");
    let other = |weights: &mut Weights32| {
        *of(weights, &format!("{QUERY}.bias")) = of(weights, "encoder.layer.1.output.dense.bias").clone();
    };
    check(&bench, QUERY, other, "has the bias of encoder.layer.1.output.dense", None);
    let one = |weights: &mut Weights32| of(weights, &format!("{QUERY}.bias"))[5] = 3.;
    let explanation = bench.explain(QUERY, &found(&bench, QUERY, one));
    assert!(explanation.text.starts_with("bias[5] is off by "), "{explanation}");
    let all = |weights: &mut Weights32| of(weights, &format!("{QUERY}.bias")).reverse();
    let explanation = bench.explain(QUERY, &found(&bench, QUERY, all));
    assert!(explanation.text.starts_with("off by the same row at every position"), "{explanation}");
}

#[test]
fn the_weights_of_another_module() {
    let bench = Bench::new("odd");
    let take = |tensors: &'static [&'static str], from: &'static str| {
        move |weights: &mut Weights32| {
            for tensor in tensors {
                *of(weights, &format!("{QUERY}.{tensor}")) = of(weights, &format!("{from}.{tensor}")).clone();
            }
        }
    };
    let from = "encoder.layer.1.attention.self.query";
    check(&bench, QUERY, take(&["weight", "bias"], from), &format!("has the weights of {from}"), None);
    check(&bench, QUERY, take(&["weight", "bias"], KEY), &format!("has the weights of {KEY}"), None);
    check(&bench, QUERY, take(&["weight"], KEY), &format!("has the weight of {KEY}, its own bias"), None);
    // The same fault where the projections cannot be seen.
    let attention = "encoder.layer.0.attention.self";
    let text = format!("has the weights of {from}");
    check(&bench, attention, take(&["weight", "bias"], from), &text, Some(QUERY));
}

#[test]
fn a_weight_transposed() {
    let bench = Bench::new("baseline");
    let transpose = |weights: &mut Weights32| {
        let (shape, elements) = weights.get_mut(&format!("{QUERY}.weight")).unwrap();
        let n = shape[0];
        *elements = (0..n * n).map(|at| elements[at % n * n + at / n]).collect();
    };
    check(&bench, QUERY, transpose, "weight transposed", None);
    check(&bench, "encoder.layer.0.attention.self", transpose, "weight transposed", Some(QUERY));
}

#[test]
fn one_weight() {
    let bench = Bench::new("baseline");
    let set =
        |by: f32| move |weights: &mut Weights32| of(weights, &format!("{QUERY}.weight"))[3 * 16 + 5] += by;
    let explanation = bench.explain(QUERY, &found(&bench, QUERY, set(0.125)));
    assert_eq!(explanation.text, "weight[3, 5] is off by 1.250e-1");
    // One unit in the last place, or about.
    let explanation = bench.explain(QUERY, &found(&bench, QUERY, set(1e-7)));
    assert!(explanation.text.starts_with("weight[3, 5] is off by "), "{explanation}");

    let column = |weights: &mut Weights32| {
        of(weights, &format!("{QUERY}.weight")).iter_mut().skip(5).step_by(16).for_each(|x| *x *= 1.5);
    };
    let explanation = bench.explain(QUERY, &found(&bench, QUERY, column));
    assert!(explanation.text.starts_with("column 5 of the weight differs, in 16 of 16"), "{explanation}");
    let row = |weights: &mut Weights32| {
        of(weights, &format!("{QUERY}.weight"))[7 * 16..8 * 16].reverse();
    };
    let explanation = bench.explain(QUERY, &found(&bench, QUERY, row));
    assert!(explanation.text.starts_with("only output feature 7 of 16 differs"), "{explanation}");
}

#[test]
fn a_scale() {
    let bench = Bench::new("baseline");
    let halve = |weights: &mut Weights32| {
        for tensor in ["weight", "bias"] {
            of(weights, &format!("{QUERY}.{tensor}")).iter_mut().for_each(|x| *x *= 0.5);
        }
    };
    check(&bench, QUERY, halve, "scaled by 0.5", None);
    // As when 1/√d was folded in, and rounded to f32.
    let fold = |weights: &mut Weights32| {
        for tensor in ["weight", "bias"] {
            of(weights, &format!("{QUERY}.{tensor}")).iter_mut().for_each(|x| *x *= 0.35355338);
        }
    };
    check(&bench, QUERY, fold, "scaled by 0.35355", None);
    let each = |f: fn(f32) -> f32| {
        move |weights: &mut Weights32| {
            of(weights, &format!("{QUERY}.weight")).iter_mut().for_each(|x| *x = f(*x));
        }
    };
    check(&bench, QUERY, each(|x| 2. * x), "weight scaled by 2, the bias not", None);
}

#[test]
fn fewer_bits() {
    let bench = Bench::new("odd");
    let weight = format!("{QUERY}.weight");
    let to = |f: fn(f32) -> f32, tensors: &'static [&'static str]| {
        move |weights: &mut Weights32| {
            for tensor in tensors {
                of(weights, &format!("{QUERY}.{tensor}")).iter_mut().for_each(|x| *x = f(*x));
            }
        }
    };
    let half = |x: f32| f16::from_f32(x).to_f32();
    let brain = |x: f32| bf16::from_f32(x).to_f32();
    check(&bench, QUERY, to(half, &["weight"]), "weight rounded to f16", None);
    check(&bench, QUERY, to(half, &["weight", "bias"]), "weight and bias rounded to f16", None);
    check(&bench, QUERY, to(brain, &["weight"]), "weight rounded to bf16", None);
    check(&bench, QUERY, to(brain, &["weight", "bias"]), "weight and bias rounded to bf16", None);
    // The scale of int8 is a power of two here, so that f32 holds the products exactly.
    let bench = Bench::new("baseline");
    let int8 = |weights: &mut Weights32| {
        let scale = of(weights, &weight).iter().fold(0f32, |most, x| most.max(x.abs())) / 127.;
        of(weights, &weight).iter_mut().for_each(|x| *x = (*x / scale).round() * scale);
    };
    let explanation = explain(&bench.evidence(), QUERY, &found(&bench, QUERY, int8)).unwrap();
    // The products were rounded to f32, which is more than a hypothesis may leave, unless the graph multiplies in f64.
    assert_eq!(explanation, None);
    let step = bench.program.module(QUERY).unwrap().output;
    let query = dense::parts(&bench.evidence(), step).unwrap();
    let (x, weight, bias) = (query.0.to_vec3::<f64>().unwrap(), query.1, query.2.to_vec1::<f64>().unwrap());
    let weight: Vec<Vec<f64>> = weight.to_vec2().unwrap();
    let product = |weight: &dyn Fn(usize, usize) -> f64| {
        let token = |x: &Vec<f64>| -> Vec<f64> {
            (0..16).map(|o| bias[o] + (0..16).map(|i| x[i] * weight(o, i)).sum::<f64>()).collect()
        };
        let elements: Vec<f64> = x.iter().flatten().flat_map(token).collect();
        Value::new([4, 11, 16], elements).unwrap()
    };
    let most = |row: &[f64]| row.iter().fold(0f64, |most, x| most.max(x.abs()));
    let tensor = most(&weight.concat()) / 127.;
    let whole = product(&|o, i| (weight[o][i] / tensor).round() * tensor);
    assert_eq!(bench.explain(QUERY, &whole).text, "weight rounded to int8");
    let shifted = bench.explain(QUERY, &product(&|o, i| weight[o][i] + 0.25));
    assert_eq!(shifted.text, "all of the weight shifted by 0.25, as by another zero point");
    let rows = product(&|o, i| {
        let scale = most(&weight[o]) / 127.;
        (weight[o][i] / scale).round() * scale
    });
    assert_eq!(bench.explain(QUERY, &rows).text, "weight rounded to int8 with a scale for each output");
}

#[test]
fn a_norm() {
    let bench = Bench::new("baseline");
    let norm = "encoder.layer.0.attention.output.LayerNorm";
    let all = |tensor: &'static str, f: fn(f32) -> f32| {
        move |weights: &mut Weights32| {
            of(weights, &format!("{norm}.{tensor}")).iter_mut().for_each(|x| *x = f(*x))
        }
    };
    check(&bench, norm, all("bias", |_| 0.), "bias left out", None);
    check(&bench, norm, all("weight", |_| 1.), "gain left out", None);
    check(&bench, norm, all("bias", |x| 2. * x), "bias added twice", None);
    let blamed = Some(norm);
    check(&bench, "encoder.layer.0.attention.output", all("bias", |_| 0.), "bias left out", blamed);
    check(&bench, "encoder.layer.0.attention", all("bias", |_| 0.), "bias left out", blamed);
    let other = "encoder.layer.1.output.LayerNorm";
    let take = |tensors: &'static [&'static str]| {
        move |weights: &mut Weights32| {
            for tensor in tensors {
                *of(weights, &format!("{norm}.{tensor}")) = of(weights, &format!("{other}.{tensor}")).clone();
            }
        }
    };
    check(&bench, norm, take(&["weight", "bias"]), &format!("has the gain and bias of {other}"), None);
    check(&bench, norm, take(&["weight"]), &format!("has the gain of {other}"), None);
    check(&bench, norm, take(&["bias"]), &format!("has the bias of {other}"), None);
}

#[test]
fn faults_within_a_module_that_hides_them() {
    let bench = Bench::new("baseline");
    let zero = |name: &'static str| {
        move |weights: &mut Weights32| of(weights, name).iter_mut().for_each(|x| *x = 0.)
    };
    for (module, part) in [
        ("encoder.layer.0.attention.self", "encoder.layer.0.attention.self.value"),
        ("encoder.layer.0.attention.output", "encoder.layer.0.attention.output.dense"),
        ("encoder.layer.0.intermediate", "encoder.layer.0.intermediate.dense"),
        ("encoder.layer.0.output", "encoder.layer.0.output.dense"),
        ("encoder.layer.0", "encoder.layer.0.output.dense"),
        ("pooler", "pooler.dense"),
    ] {
        check(&bench, module, zero(format!("{part}.bias").leak()), "bias left out", Some(part));
    }
    let table = "embeddings.token_type_embeddings";
    check(
        &bench,
        "embeddings",
        zero("embeddings.token_type_embeddings.weight"),
        "left out of the sum",
        Some(table),
    );
}

#[test]
fn a_row_of_a_table() {
    let bench = Bench::new("baseline");
    let row = |name: &'static str, row: usize| {
        move |weights: &mut Weights32| of(weights, name)[row * 16 + 3] += 0.5
    };
    for (module, name, number, text) in [
        (
            "embeddings.word_embeddings",
            "embeddings.word_embeddings.weight",
            22,
            "only the row of token 22 differs",
        ),
        (
            "embeddings.position_embeddings",
            "embeddings.position_embeddings.weight",
            4,
            "only the row of position 4 differs",
        ),
        (
            "embeddings.token_type_embeddings",
            "embeddings.token_type_embeddings.weight",
            1,
            "only the row of type 1 differs",
        ),
    ] {
        let explanation = bench.explain(module, &found(&bench, module, row(name, number)));
        assert_eq!(explanation.text, format!("{text}, by up to 0.5"));
    }
    let round = |weights: &mut Weights32| {
        let table = of(weights, "embeddings.word_embeddings.weight");
        table.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
    };
    check(&bench, "embeddings.word_embeddings", round, "table rounded to f16", None);
    check(&bench, "embeddings", round, "table rounded to f16", Some("embeddings.word_embeddings"));
}
