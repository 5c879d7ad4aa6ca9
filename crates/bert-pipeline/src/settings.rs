use checkpoint::ModelFiles;
use serde_json::{Map, Value};

use crate::PipelineError;

/// A JSON file of settings. `null` counts as not set.
pub(crate) struct Settings {
    file: String,
    map: Map<String, Value>,
}

impl Settings {
    /// The settings of a file, or none if the model does not have it.
    pub(crate) fn read(files: &ModelFiles, file: &str) -> Result<Self, PipelineError> {
        Ok(Self::read_if_there(files, file)?
            .unwrap_or_else(|| Self { file: file.to_owned(), map: Map::new() }))
    }

    pub(crate) fn read_if_there(files: &ModelFiles, file: &str) -> Result<Option<Self>, PipelineError> {
        let Some(bytes) = files.read(file)? else { return Ok(None) };
        let map = checkpoint::from_json(&bytes)
            .map_err(|source| PipelineError::Json { file: file.to_owned(), source })?;
        Ok(Some(Self { file: file.to_owned(), map }))
    }

    pub(crate) fn get(&self, setting: &str) -> Option<&Value> {
        self.map.get(setting).filter(|value| !value.is_null())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(setting, value)| (setting.as_str(), value))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(setting, _)| setting)
    }

    /// A setting as `of` reads it; an error if that finds no such thing.
    fn read_as<'a, T>(
        &'a self,
        setting: &str,
        expected: &'static str,
        of: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, PipelineError> {
        let read = |value| of(value).ok_or_else(|| self.wrong(setting, expected, value));
        self.get(setting).map(read).transpose()
    }

    /// The settings within a setting.
    pub(crate) fn object(&self, setting: &str) -> Result<Option<Self>, PipelineError> {
        let map = self.read_as(setting, "an object", Value::as_object)?;
        Ok(map.map(|map| Self { file: self.file.clone(), map: map.clone() }))
    }

    pub(crate) fn bool(&self, setting: &str) -> Result<Option<bool>, PipelineError> {
        self.read_as(setting, "true or false", Value::as_bool)
    }

    pub(crate) fn string(&self, setting: &str) -> Result<Option<&str>, PipelineError> {
        self.read_as(setting, "a string", Value::as_str)
    }

    pub(crate) fn size(&self, setting: &str) -> Result<Option<usize>, PipelineError> {
        let size = |value: &Value| usize::try_from(value.as_u64().filter(|&size| size > 0)?).ok();
        self.read_as(setting, "a whole number above 0", size)
    }

    /// A size that must be there.
    pub(crate) fn needed_size(&self, setting: &str) -> Result<usize, PipelineError> {
        let missing =
            || PipelineError::BadLayer { file: self.file.clone(), reason: format!("'{setting}' is missing") };
        self.size(setting)?.ok_or_else(missing)
    }

    /// A token: a string, or an object that has it as its `content`.
    pub(crate) fn token(&self, setting: &str) -> Result<Option<&str>, PipelineError> {
        self.read_as(setting, "a token", |value| value.get("content").unwrap_or(value).as_str())
    }

    /// The error about something that the file asks for.
    pub(crate) fn unsupported(&self, what: String) -> PipelineError {
        PipelineError::UnsupportedPooling { file: self.file.clone(), what }
    }

    pub(crate) fn wrong(&self, setting: &str, expected: &'static str, found: &Value) -> PipelineError {
        PipelineError::Setting {
            file: self.file.clone(),
            setting: setting.to_owned(),
            expected,
            found: found.to_string(),
        }
    }
}
