//! The files beside an exported graph, against those of the checkpoint.

use serde::{Deserialize, Serialize};

/// As much of a value is shown, in characters.
const SHOWN: usize = 200;

/// Something that the folder of an exported graph says otherwise than the checkpoint's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderDifference {
    /// The exported folder.
    pub folder: String,
    /// The file that says it.
    pub file: String,
    /// What it is: `labels`, `the maximum length`, `the token of id 7`.
    pub what: String,
    /// What the checkpoint's files say; null where they cannot be read.
    pub checkpoint: Option<String>,
    /// What those of the exported folder say; null where they cannot be read.
    pub export: Option<String>,
    /// Whether answers differ by it.
    pub fails: bool,
}

impl FolderDifference {
    /// What differs, in one sentence.
    pub fn sentence(&self) -> String {
        let Self { folder, file, what, checkpoint, export, .. } = self;
        let [checkpoint, export] = [checkpoint, export].map(|value| {
            let value = value.as_deref().unwrap_or("nothing that can be read");
            let mut shown: String = value.chars().take(SHOWN).collect();
            if shown.len() < value.len() {
                shown.push('…');
            }
            shown
        });
        format!("{file} of {folder}: {what}: {export}; the checkpoint has {checkpoint}")
    }
}
