//! Where a real model lies, all-MiniLM-L6-v2 with its golden values: in a Hugging Face cache that `HF_HOME` names, or in `shared/hf` beside
//! the checkout.

use std::path::{Path, PathBuf};

use super::house;

pub const ID: &str = "sentence-transformers/all-MiniLM-L6-v2";
pub const GOLDEN: &str = "golden/all-MiniLM-L6-v2.safetensors";
const REPOSITORY: &str = "hub/models--sentence-transformers--all-MiniLM-L6-v2";

/// A Hugging Face cache that has the model and its golden values. Where there is none, the test says that it is skipped; where
/// `REQUIRE_REAL_MODEL` is set, that is a failure.
pub fn cache() -> Option<PathBuf> {
    let candidates = [std::env::var_os("HF_HOME").map(PathBuf::from), Some(house().join("../shared/hf"))];
    let found = candidates
        .into_iter()
        .flatten()
        .find(|home| home.join(REPOSITORY).is_dir() && home.join(GOLDEN).is_file());
    if found.is_none() {
        let reason =
            "neither HF_HOME nor shared/hf beside the checkout has all-MiniLM-L6-v2 and its golden values";
        assert!(std::env::var_os("REQUIRE_REAL_MODEL").is_none(), "REQUIRE_REAL_MODEL is set, but {reason}");
        eprintln!("skipped: {reason}");
    }
    found.map(|home| home.canonicalize().unwrap())
}

/// The folder of the model in such a cache.
pub fn snapshot(home: &Path) -> PathBuf {
    let commit = std::fs::read_to_string(home.join(REPOSITORY).join("refs/main")).unwrap();
    home.join(REPOSITORY).join("snapshots").join(commit.trim())
}
