use serde::Deserialize;

/// What sentence-transformers has called its module that runs the transformer; versions before
/// 0.2.6 had a class for BERT.
const TRANSFORMERS: [&str; 2] = ["Transformer", "BERT"];

/// A module of a sentence-transformers model, as modules.json lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ListedModule {
    /// Its class in Python, with where that is defined: `sentence_transformers.models.Pooling`.
    #[serde(rename = "type")]
    pub class: String,
    /// The folder of its files, within the model's; empty for the model's own.
    #[serde(default, rename = "path")]
    pub folder: String,
}

impl ListedModule {
    /// The class alone: `Pooling`.
    pub fn class_name(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or_default()
    }

    /// Whether this module runs the transformer.
    pub fn is_transformer(&self) -> bool {
        TRANSFORMERS.contains(&self.class_name())
    }
}
