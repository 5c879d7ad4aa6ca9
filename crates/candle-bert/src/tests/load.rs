use candle_core::{DType, Device, Result, Tensor};
use safetensors::Dtype;

use crate::testing::{Stored, checkpoint, config, tensors};
use crate::{BertConfig, BertError, BertModel, BindError, Loaded, var_builder};

fn load(tensors: &[Stored]) -> std::result::Result<Loaded<BertModel>, BertError> {
    BertModel::from_checkpoint(&checkpoint(tensors), &config(), DType::F64, &Device::Cpu)
}

fn output(model: &BertModel) -> Vec<f64> {
    let ids = Tensor::new(&[[1u32, 9, 3]], &Device::Cpu).unwrap();
    model.forward(&ids, None, None).unwrap().last_hidden_state.flatten_all().unwrap().to_vec1().unwrap()
}

fn renamed(tensors: Vec<Stored>, name: impl Fn(&str) -> String) -> Vec<Stored> {
    tensors.into_iter().map(|(old, dtype, shape, bytes)| (name(&old), dtype, shape, bytes)).collect()
}

fn extra(name: &str, dtype: Dtype, shape: &[usize]) -> Stored {
    let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
    (name.into(), dtype, shape.into(), vec![0; bytes])
}

#[test]
fn the_prefix_is_found_and_what_is_left_over_is_listed() {
    let plain = load(&tensors(&config(), true)).unwrap();
    assert_eq!((plain.prefix.as_str(), &plain.unused[..]), ("", &[][..]));

    let mut prefixed = renamed(tensors(&config(), true), |name| format!("bert.{name}"));
    prefixed.push(extra("cls.predictions.bias", Dtype::F32, &[11]));
    prefixed.push(extra("bert.embeddings.position_ids", Dtype::I64, &[1, 7]));
    prefixed.push(extra("embeddings.LayerNorm.weight", Dtype::F32, &[6]));
    let prefixed = load(&prefixed).unwrap();
    assert_eq!(prefixed.prefix, "bert.");
    let mut unused = prefixed.unused;
    unused.sort();
    assert_eq!(unused, ["cls.predictions.bias", "embeddings.LayerNorm.weight"]);
    assert_eq!(output(&plain.model), output(&prefixed.model));
}

#[test]
fn layer_norms_may_be_called_gamma_and_beta() {
    let legacy = renamed(tensors(&config(), true), |name| {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    });
    assert!(legacy.iter().any(|(name, ..)| name == "embeddings.LayerNorm.gamma"));
    let legacy = load(&legacy).unwrap();
    assert_eq!(legacy.unused, [""; 0]);
    assert_eq!(output(&legacy.model), output(&load(&tensors(&config(), true)).unwrap().model));
}

#[test]
fn the_pooler_is_there_if_its_tensors_are() {
    assert!(load(&tensors(&config(), true)).unwrap().model.has_pooler());
    assert!(!load(&tensors(&config(), false)).unwrap().model.has_pooler());
    // Half a pooler is not taken for none.
    for half in ["pooler.dense.weight", "pooler.dense.bias"] {
        let mut tensors = tensors(&config(), true);
        tensors.retain(|(name, ..)| name != half);
        let error = load(&tensors).unwrap_err().to_string();
        assert!(error.contains(&format!("{half} [6")) && error.contains("is missing"), "{error}");
    }
}

#[test]
fn all_that_does_not_fit_is_listed_at_once() {
    let mut tensors = renamed(tensors(&config(), true), |name| format!("bert.{name}"));
    tensors.retain(|(name, ..)| {
        name != "bert.embeddings.LayerNorm.bias" && name != "bert.encoder.layer.3.attention.self.key.weight"
    });
    for (name, dtype, shape, bytes) in &mut tensors {
        match name.as_str() {
            // Transposed: the same number of bytes.
            "bert.encoder.layer.0.output.dense.weight" => shape.reverse(),
            "bert.embeddings.word_embeddings.weight" => {
                shape[0] -= 1;
                bytes.truncate(240);
            }
            "bert.encoder.layer.2.output.dense.bias" => *dtype = Dtype::I32,
            _ => {}
        }
    }
    let BertError::Bind(BindError::Misfits(misfits)) = load(&tensors).unwrap_err() else {
        panic!("another error")
    };
    assert_eq!(
        misfits.to_string(),
        "the checkpoint does not fit config.json in 5 places; take both from one save of the model, \
         or name another task\
         \n  bert.embeddings.LayerNorm.bias [6] is missing\
         \n  bert.encoder.layer.3.attention.self.key.weight [6, 6] is missing\
         \n  bert.embeddings.word_embeddings.weight is [10, 6], config.json makes it [11, 6]\
         \n  bert.encoder.layer.0.output.dense.weight is [8, 6], config.json makes it [6, 8]\
         \n  bert.encoder.layer.2.output.dense.bias is i32, a weight must be a float"
    );
}

#[test]
fn a_layer_more_or_less_than_in_the_config_shows() {
    let shallow = BertConfig { num_hidden_layers: 3, ..config() };
    let BertError::Bind(BindError::Misfits(misfits)) = load(&tensors(&shallow, true)).unwrap_err() else {
        panic!("another error")
    };
    assert_eq!(misfits.missing.len(), 16);
    assert!(misfits.missing.iter().all(|tensor| tensor.name.starts_with("encoder.layer.3.")));

    let deep = BertConfig { num_hidden_layers: 5, ..config() };
    let unused = load(&tensors(&deep, true)).unwrap().unused;
    assert_eq!(unused.len(), 16);
    assert!(unused.iter().all(|name| name.starts_with("encoder.layer.4.")));
}

#[test]
fn any_one_prefix_of_the_whole_model_is_taken_off() {
    let expected = output(&load(&tensors(&config(), true)).unwrap().model);
    for prefix in ["_orig_mod.", "_orig_mod.bert.", "module._orig_mod.", "net.text.encoder."] {
        let mut stored = renamed(tensors(&config(), true), |name| format!("{prefix}{name}"));
        stored.push(extra("classifier.bias", Dtype::F32, &[3]));
        let loaded = load(&stored).unwrap();
        assert_eq!((loaded.prefix.as_str(), &loaded.unused[..]), (prefix, &["classifier.bias".into()][..]));
        assert_eq!(output(&loaded.model), expected);
        // A part of a model is none.
        stored.retain(|(name, ..)| !name.ends_with("layer.0.output.dense.bias"));
        let error = load(&stored).unwrap_err().to_string();
        assert!(error.starts_with("the checkpoint has none of the tensors of BERT"), "{error}");
    }
}

#[test]
fn two_models_under_unusual_prefixes_are_one_too_many() {
    let under = |prefix: &str| renamed(tensors(&config(), true), |name| format!("{prefix}{name}"));
    let both = [under("query_encoder."), under("text_encoder.")].concat();
    assert_eq!(
        load(&both).unwrap_err().to_string(),
        "the checkpoint has two whole BERT models, one under 'query_encoder.' and one under 'text_encoder.': \
         save the one that is meant in a file of its own"
    );
    // A usual prefix goes before any other.
    let both = [under("text_encoder."), under("bert.")].concat();
    assert_eq!(load(&both).unwrap().prefix, "bert.");
}

#[test]
fn another_model_is_told_apart() {
    let other = renamed(tensors(&config(), false), |name| format!("roberta.{name}"));
    let error = load(&other).unwrap_err().to_string();
    let wrapped = renamed(other, |name| format!("_orig_mod.{name}"));
    assert!(load(&wrapped).unwrap_err().to_string().starts_with("the checkpoint has none"));
    assert!(
        error.starts_with(
            "the checkpoint has none of the tensors of BERT, with or without a prefix such as 'bert.'; its 69 tensors begin with roberta."
        ),
        "{error}"
    );
}

#[test]
fn any_float_dtype_is_converted() {
    let expected = output(&load(&tensors(&config(), true)).unwrap().model);
    for (dtype, bound) in [(Dtype::F64, 0.), (Dtype::F16, 0.05), (Dtype::BF16, 0.4)] {
        let mut tensors = tensors(&config(), true);
        for (_, stored, _, bytes) in &mut tensors {
            let values = bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap()));
            *bytes = match dtype {
                Dtype::F64 => values.flat_map(|x| f64::from(x).to_le_bytes()).collect(),
                Dtype::F16 => values.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
                _ => values.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
            };
            *stored = dtype;
        }
        let found = output(&load(&tensors).unwrap().model);
        // A wider dtype holds the same values. A narrower one loses some, within a bound that only
        // tells it from nonsense.
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0., f64::max);
        assert!(worst <= bound, "{dtype:?}: {worst}");
        assert!((worst > 0.) == (dtype != Dtype::F64), "{dtype:?}: {worst}");
    }
}

#[test]
fn the_var_builder_checks_what_it_reads() {
    let mut tensors = tensors(&config(), true);
    tensors.push(extra("embeddings.position_ids", Dtype::I64, &[1, 7]));
    let vb = var_builder(&checkpoint(&tensors), DType::F32, &Device::Cpu);
    let error = |result: Result<Tensor>| result.unwrap_err().to_string();
    assert!(error(vb.get((2, 2), "nowhere")).contains("nowhere"));
    assert!(
        error(vb.get((6, 11), "embeddings.word_embeddings.weight"))
            .contains("embeddings.word_embeddings.weight")
    );
    assert_eq!(
        error(vb.get((1, 7), "embeddings.position_ids")),
        "embeddings.position_ids is i64, a weight must be a float"
    );
    assert_eq!(vb.get((11, 6), "embeddings.word_embeddings.weight").unwrap().dtype(), DType::F32);
}
