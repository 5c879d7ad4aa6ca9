//! A model computes the same bits from every form of its checkpoint (tests/fixtures/checkpoints/make.py makes them).

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::path::PathBuf;

use candle_bert::{BertConfig, BertModel, Loaded};
use candle_core::{DType, Device, Tensor};
use checkpoint::{Checkpoint, ModelFiles, TensorEntry};
use half::{bf16, f16};

fn fixture(name: &str) -> ModelFiles {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    ModelFiles::from_folder(folder).unwrap()
}

fn load(checkpoint: &Checkpoint) -> Loaded<BertModel> {
    let config = BertConfig::from_json(&fixture("baseline").config().unwrap()).unwrap();
    BertModel::from_checkpoint(checkpoint, &config, DType::F32, &Device::Cpu).unwrap()
}

/// Both outputs, as bits.
fn output(model: &BertModel) -> Vec<u32> {
    let ids = Tensor::new(&[[1u32, 47, 3, 9, 20], [5, 5, 31, 0, 2]], &Device::Cpu).unwrap();
    let output = model.forward(&ids, None, None).unwrap();
    [output.last_hidden_state, output.pooler_output.unwrap()]
        .iter()
        .flat_map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        .map(f32::to_bits)
        .collect()
}

/// The plain model, its weights rounded.
fn rounded(round: impl Fn(f32) -> f32) -> Checkpoint {
    let plain = fixture("baseline").checkpoint().unwrap();
    let round = |entry: &TensorEntry| {
        let values = entry.to_value().unwrap();
        let bytes = values.as_slice::<f32>().unwrap().iter().flat_map(|&x| round(x).to_le_bytes());
        TensorEntry { offset: None, bytes: bytes.collect::<Vec<_>>().into(), ..entry.clone() }
    };
    plain.replacing(plain.iter().map(round))
}

#[test]
fn every_form_computes_the_same_bits() {
    let plain = output(&load(&fixture("baseline").checkpoint().unwrap()).model);
    let (halved, brained) = (rounded(|x| f16::from_f32(x).to_f32()), rounded(|x| bf16::from_f32(x).to_f32()));
    let (halved, brained) = (output(&load(&halved).model), output(&load(&brained).model));
    assert!(plain != halved && plain != brained && halved != brained);
    let extra = ["extra.bool", "extra.u16", "extra.row", "extra.empty", "extra.scalar"];
    for (form, expected, prefix, unused) in [
        ("zip", &plain, "", &[][..]),
        ("legacy", &plain, "", &[]),
        ("safetensors-shards", &plain, "", &[]),
        ("zip-shards", &plain, "", &[]),
        ("legacy-shards", &plain, "", &[]),
        ("zip-strided", &plain, "", &extra),
        ("legacy-bert-gamma-tied", &plain, "bert.", &["cls.predictions.decoder.weight"]),
        ("zip-model-f64", &plain, "model.bert.", &[]),
        ("legacy-auto-model-f16", &halved, "0.auto_model.", &[]),
        ("safetensors-model-bf16", &brained, "model.", &[]),
    ] {
        let loaded = load(&fixture(&format!("checkpoints/{form}")).checkpoint().unwrap());
        assert_eq!((loaded.prefix.as_str(), loaded.unused.len()), (prefix, unused.len()), "{form}");
        assert!(
            loaded.unused.iter().all(|name| unused.contains(&name.as_str())),
            "{form}: {:?}",
            loaded.unused
        );
        assert!(output(&loaded.model) == *expected, "{form} computes something else");
    }
}
