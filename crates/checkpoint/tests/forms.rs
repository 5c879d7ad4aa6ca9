//! A tiny model in every form that a checkpoint comes in holds the same bits as its plain one (tests/fixtures/checkpoints/make.py
//! makes them).

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::path::PathBuf;

use checkpoint::{Checkpoint, ModelFiles, TensorEntry};
use engine::DType;
use half::{bf16, f16};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn form(name: &str) -> Checkpoint {
    ModelFiles::from_folder(fixtures().join("checkpoints").join(name)).unwrap().checkpoint().unwrap()
}

fn plain() -> Checkpoint {
    Checkpoint::open_safetensors(fixtures().join("baseline/model.safetensors")).unwrap()
}

fn floats(entry: &TensorEntry) -> Vec<f32> {
    assert_eq!(entry.dtype, DType::F32);
    entry.to_value().unwrap().as_slice::<f32>().unwrap().to_vec()
}

/// Little-endian bytes of the plain model's floats, each changed to another type.
fn converted<const N: usize>(entry: &TensorEntry, convert: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
    floats(entry).into_iter().flat_map(convert).collect()
}

#[test]
fn every_form_holds_the_same_bits() {
    let plain = plain();
    assert!(plain.len() > 30, "{plain:?}");
    for (name, extra) in [
        ("zip", 0),
        ("legacy", 0),
        ("safetensors-shards", 0),
        ("zip-shards", 0),
        ("legacy-shards", 0),
        ("zip-strided", 5),
    ] {
        let form = form(name);
        assert_eq!(form.len(), plain.len() + extra, "{name}");
        for expected in plain.iter() {
            let entry = form.get(&expected.name).unwrap();
            assert_eq!(
                (entry.dtype, &entry.shape),
                (DType::F32, &expected.shape),
                "{name}: {}",
                expected.name
            );
            assert_eq!(entry.bytes, expected.bytes, "{name}: {}", expected.name);
        }
    }
}

#[test]
fn other_names_and_types_hold_the_same_values() {
    for (name, prefix, dtype) in [
        ("legacy-bert-gamma-tied", "bert.", DType::F32),
        ("zip-model-f64", "model.bert.", DType::F64),
        ("legacy-auto-model-f16", "0.auto_model.", DType::F16),
        ("safetensors-model-bf16", "model.", DType::BF16),
    ] {
        let form = form(name);
        for plain in plain().iter() {
            let mut full = format!("{prefix}{}", plain.name);
            if name.contains("gamma") {
                full = full
                    .replace("LayerNorm.weight", "LayerNorm.gamma")
                    .replace("LayerNorm.bias", "LayerNorm.beta");
            }
            let entry = form.get(&full).unwrap();
            assert_eq!((entry.dtype, &entry.shape), (dtype, &plain.shape));
            let expected = match dtype {
                DType::F64 => converted(plain, |x| f64::from(x).to_le_bytes()),
                DType::F16 => converted(plain, |x| f16::from_f32(x).to_le_bytes()),
                DType::BF16 => converted(plain, |x| bf16::from_f32(x).to_le_bytes()),
                _ => plain.bytes.to_vec(),
            };
            assert_eq!(entry.bytes, expected, "{name}: {full}");
        }
    }
    let tied = form("legacy-bert-gamma-tied");
    let (table, decoder) = (
        tied.get("bert.embeddings.word_embeddings.weight").unwrap(),
        tied.get("cls.predictions.decoder.weight").unwrap(),
    );
    assert_eq!((table.offset, table.bytes.as_ptr()), (decoder.offset, decoder.bytes.as_ptr()));
}

#[test]
fn what_lies_in_one_piece_is_not_copied() {
    let names = ["zip", "legacy", "zip-shards", "legacy-shards", "safetensors-shards", "zip-strided"];
    for name in names {
        let form = form(name);
        let mut copied = Vec::new();
        for entry in form.iter() {
            let Some(offset) = entry.offset else {
                copied.push(&*entry.name);
                continue;
            };
            let file = fs::read(fixtures().join("checkpoints").join(name).join(&*entry.file)).unwrap();
            assert_eq!(entry.bytes, file[offset as usize..][..entry.bytes.len()], "{name}: {entry:?}");
        }
        // The transposes, the slices out of a stack, the repeated row: `make.py` makes those of every four tensors two.
        assert_eq!(copied.is_empty(), name != "zip-strided", "{name}: {copied:?}");
        assert!(
            copied
                .iter()
                .all(|name| name.ends_with("weight") || name.ends_with("bias") || name.starts_with("extra."))
        );
    }
}

#[test]
fn tensors_of_other_dtypes_and_shapes_are_read() {
    let form = form("zip-strided");
    let value = |name: &str| form.get(name).unwrap().to_value().unwrap();
    assert_eq!(value("extra.bool").as_slice::<bool>().unwrap(), [true, false, true]);
    assert_eq!(value("extra.u16").as_slice::<u16>().unwrap(), [1, 3, 2, 65535]);
    assert_eq!(value("extra.row").as_slice::<i64>().unwrap(), [0, 1, 2, 0, 1, 2]);
    assert_eq!((value("extra.empty").shape(), value("extra.scalar").shape()), (&[0, 3][..], &[][..]));
    assert_eq!(value("extra.scalar").as_slice::<i8>().unwrap(), [7]);
}

#[test]
fn errors_name_the_file() {
    let path = fixtures().join("checkpoints/evil/legacy.bin");
    let error = Checkpoint::open_torch(&path).unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()) && error.contains("posix.system"), "{error}");
}
