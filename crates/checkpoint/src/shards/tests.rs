use std::fs;

use tempfile::TempDir;

use super::*;

fn fixture(form: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/checkpoints").join(form)
}

/// A copy of the shards of that form, with their index, and the index's JSON.
fn copy(form: &str, weights: &str) -> (TempDir, Value) {
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(fixture(form)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let index = fs::read(folder.path().join(index_of(weights))).unwrap();
    (folder, serde_json::from_slice(&index).unwrap())
}

fn message(folder: &TempDir) -> String {
    ModelFiles::from_folder(folder.path()).unwrap().checkpoint().unwrap_err().to_string()
}

const FORMS: [(&str, &str); 3] = [
    ("safetensors-shards", "model.safetensors"),
    ("zip-shards", "pytorch_model.bin"),
    ("legacy-shards", "pytorch_model.bin"),
];

#[test]
fn shards_and_index_must_fit() {
    for (form, weights) in FORMS {
        let (folder, index) = copy(form, weights);
        let write =
            |index: &Value| fs::write(folder.path().join(index_of(weights)), index.to_string()).unwrap();
        let map = index["weight_map"].as_object().unwrap();
        let (tensor, shard) = map.iter().next().unwrap();
        let shard = shard.as_str().unwrap();
        let other = map.values().find_map(|other| other.as_str().filter(|&other| other != shard)).unwrap();

        // A tensor that the index does not know, or has in another shard.
        let mut unknown = index.clone();
        unknown["weight_map"].as_object_mut().unwrap().remove(tensor);
        write(&unknown);
        let error = message(&folder);
        assert!(error.contains(&format!("{shard} holds tensor '{tensor}', which ")), "{error}");
        let mut moved = index.clone();
        moved["weight_map"][tensor] = other.into();
        write(&moved);
        assert!(message(&folder).contains(&format!("'{tensor}'")), "{}", message(&folder));

        // A tensor that the shard does not have.
        let mut more = index.clone();
        more["weight_map"]["another"] = shard.into();
        write(&more);
        let error = message(&folder);
        assert!(
            error.contains(&format!("has tensor 'another' in {shard}, which does not hold it")),
            "{error}"
        );

        // A shard that is not there; how many tensors are missed, and what is there.
        write(&index);
        fs::remove_file(folder.path().join(other)).unwrap();
        let error = message(&folder);
        let missed = map.values().filter(|shard| *shard == other).count();
        assert!(error.contains(&format!("has {missed} tensors in {other}, which is not there")), "{error}");
        assert!(error.contains(shard), "{error}");

        // A shard cut short is named itself.
        fs::write(folder.path().join(other), &fs::read(folder.path().join(shard)).unwrap()[..3000]).unwrap();
        assert!(message(&folder).contains(other), "{}", message(&folder));
    }
}

#[test]
fn an_index_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("pytorch_model.bin.index.json");
    for (json, expected) in [
        ("{", "is not an index of shards: EOF"),
        ("[]", "it has no weight_map of tensors to files"),
        ("{}", "it has no weight_map of tensors to files"),
        (r#"{"weight_map": {}}"#, "it has no weight_map of tensors to files"),
        (r#"{"weight_map": {"w": 3}}"#, "it has no weight_map of tensors to files"),
        (r#"{"weight_map": {"w": "../../etc/passwd"}}"#, "does not name a file within the model's folder"),
        (r#"{"weight_map": {"w": "none.bin"}}"#, "has 1 tensors in none.bin, which is not there"),
    ] {
        fs::write(&index, json).unwrap();
        assert!(message(&folder).contains(expected), "{json}: {}", message(&folder));
    }
}

#[test]
fn the_forms_are_taken_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFiles::from_folder(folder.path()).unwrap();
    let file = || model.checkpoint().unwrap().iter().next().unwrap().file.to_string();
    // From the last to the first, each beside those that were there.
    for (form, expected) in [
        ("legacy-shards", "pytorch_model-00001-of-00002.bin"),
        ("zip", "pytorch_model.bin"),
        ("safetensors-shards", "model-00001-of-00002.safetensors"),
        ("../baseline", "model.safetensors"),
    ] {
        for file in fs::read_dir(fixture(form)).unwrap().map(|file| file.unwrap()) {
            if file.file_type().unwrap().is_file() {
                fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
            }
        }
        assert_eq!(file(), expected);
    }
}
