//! The fields of a config.json, each read as what it is.

use std::collections::BTreeMap;

use architecture::{Activation, ProblemType};
use serde_json::{Map, Value};

use super::{ConfigError, Described, NUM_LABELS};

/// The fields of a config.json; those that are `null` count as absent.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads the bytes of a config.json.
    pub(crate) fn read(json: &[u8]) -> Result<Self, ConfigError> {
        match checkpoint::from_json(json)? {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(ConfigError::NotAnObject { found: shown(&other) }),
        }
    }

    pub(crate) fn get<'a, T>(
        &'a self,
        field: &'static str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(ConfigError::WrongType { field, expected, found: shown(value) }),
            },
        }
    }

    pub(crate) fn size(&self, field: &'static str, default: usize) -> Result<usize, ConfigError> {
        Ok(self.whole(field)?.unwrap_or(default))
    }

    fn whole(&self, field: &'static str) -> Result<Option<usize>, ConfigError> {
        self.get(field, "a whole number, not negative", |value| {
            value.as_u64().and_then(|size| usize::try_from(size).ok())
        })
    }

    pub(crate) fn flag(&self, field: &'static str, default: bool) -> Result<bool, ConfigError> {
        Ok(self.get(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub(crate) fn eps(&self, field: &'static str, default: f64) -> Result<f64, ConfigError> {
        Ok(self.get(field, "a number", Value::as_f64)?.unwrap_or(default))
    }

    pub(crate) fn part(&self, field: &'static str, default: f64) -> Result<f64, ConfigError> {
        self.eps(field, default)
    }

    pub(crate) fn count(&self, field: &'static str, default: usize) -> Result<usize, ConfigError> {
        self.size(field, default)
    }

    pub(crate) fn own_size(
        &self,
        field: &'static str,
        default: Option<usize>,
    ) -> Result<Option<usize>, ConfigError> {
        Ok(self.whole(field)?.or(default))
    }

    /// The factor of angles that were made slower: `{"type": "ntk", "factor": 2.0}`.
    pub(crate) fn ntk(&self, field: &'static str, default: Option<f64>) -> Result<Option<f64>, ConfigError> {
        let expected = "an object such as {\"type\": \"ntk\", \"factor\": 2.0}";
        let Some(scaling) = self.get(field, expected, Value::as_object)? else { return Ok(default) };
        let of = |name: &str| scaling.get(name).filter(|value| !value.is_null());
        let refused = |field, found: &Value, known: &str| {
            let found = found.as_str().map_or_else(|| shown(found), String::from);
            Err(ConfigError::Choice { field, found, known: format!("'{known}'") })
        };
        match (of("type"), of("mixed_b"), of("factor").and_then(Value::as_f64)) {
            (Some(found), _, _) if found != "ntk" => refused("rope_scaling.type", found, "ntk"),
            (_, Some(found), _) => refused("rope_scaling.mixed_b", found, "null"),
            (_, _, Some(factor)) => Ok(Some(factor)),
            _ => Err(ConfigError::WrongType { field, expected, found: shown(&scaling.clone().into()) }),
        }
    }

    pub(crate) fn base(&self, field: &'static str, default: f64) -> Result<f64, ConfigError> {
        self.eps(field, default)
    }

    /// A base that `null` says there is none of.
    pub(crate) fn own_base(
        &self,
        field: &'static str,
        default: Option<f64>,
    ) -> Result<Option<f64>, ConfigError> {
        match self.0.get(field) {
            Some(Value::Null) => Ok(None),
            _ => Ok(self.get(field, "a number", Value::as_f64)?.or(default)),
        }
    }

    pub(crate) fn activation(
        &self,
        field: &'static str,
        default: Activation,
    ) -> Result<Activation, ConfigError> {
        let Some(name) = self.text(field)? else { return Ok(default) };
        name.parse().map_err(|source| ConfigError::Activation { field, source })
    }

    pub(crate) fn name(&self, field: &'static str, default: String) -> Result<String, ConfigError> {
        Ok(self.text(field)?.map_or(default, String::from))
    }

    pub(crate) fn architectures(&self) -> Result<Vec<String>, ConfigError> {
        let names = self.get("architectures", "a list of names", |value| {
            value.as_array()?.iter().map(|name| Some(name.as_str()?.to_string())).collect()
        })?;
        Ok(names.unwrap_or_default())
    }

    pub(crate) fn text(&self, field: &'static str) -> Result<Option<&str>, ConfigError> {
        self.get(field, "a string", Value::as_str)
    }

    /// `id2label` in the order of its ids, which are text in JSON. Some files have numbers for
    /// names.
    pub(crate) fn labels(&self) -> Result<Vec<String>, ConfigError> {
        let named = |value: &Value| match value {
            Value::String(name) => Some(name.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            _ => None,
        };
        let expected = "an object of names by id, such as {\"0\": \"negative\", \"1\": \"positive\"}";
        let mut names: BTreeMap<usize, String> = self
            .get("id2label", expected, |value| {
                value.as_object()?.iter().map(|(id, name)| Some((id.parse().ok()?, named(name)?))).collect()
            })?
            .unwrap_or_default();
        let count = names.len();
        (0..count).map(|id| names.remove(&id).ok_or(ConfigError::LabelIds { count, missing: id })).collect()
    }

    /// How many labels there are. Where both are given, transformers counts the names.
    pub(crate) fn num_labels(&self, names: &[String]) -> Result<usize, ConfigError> {
        if names.is_empty() { self.size("num_labels", NUM_LABELS) } else { Ok(names.len()) }
    }

    pub(crate) fn problem_type(&self) -> Result<Option<ProblemType>, ConfigError> {
        let Some(found) = self.text("problem_type")? else { return Ok(None) };
        let known = ProblemType::ALL.into_iter().find(|kind| kind.name() == found);
        known.map(Some).ok_or_else(|| ConfigError::ProblemType { found: found.into() })
    }

    /// Models that have such tensors and compute something else with them.
    pub(crate) fn refuse_others<C: Described>(&self) -> Result<(), ConfigError> {
        let types = || C::MODEL_TYPES.iter().map(|(model_type, _)| *model_type);
        if let Some(found) = self.text("model_type")?.filter(|&found| types().all(|known| known != found)) {
            let expected = types().map(|known| format!("'{known}'")).collect::<Vec<_>>().join(" or ");
            return Err(ConfigError::OtherFamily { found: found.into(), family: C::NAME, expected });
        }
        self.one_of("position_embedding_type", C::POSITIONS)?;
        for field in ["is_decoder", "add_cross_attention"] {
            if self.flag(field, false)? {
                return Err(ConfigError::Decoder { field });
            }
        }
        match self.get("pruned_heads", "an object", Value::as_object)? {
            Some(pruned) if !pruned.is_empty() => Err(ConfigError::PrunedHeads),
            _ => Ok(()),
        }
    }

    /// Refuses what is true.
    pub(crate) fn not(&self, field: &'static str) -> Result<(), ConfigError> {
        match self.flag(field, false)? {
            true => Err(ConfigError::Choice { field, found: "true".into(), known: "'false'".into() }),
            false => Ok(()),
        }
    }

    /// Refuses any value.
    pub(crate) fn none(&self, field: &'static str) -> Result<(), ConfigError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(found) => Err(ConfigError::Choice { field, found: shown(found), known: "'null'".into() }),
        }
    }

    /// Refuses all values but one, which holds where there is none.
    pub(crate) fn only(&self, field: &'static str, known: &'static str) -> Result<(), ConfigError> {
        self.one_of(field, &[known])
    }

    /// Refuses all values but these, of which one holds where there is none.
    pub(crate) fn one_of(&self, field: &'static str, known: &[&'static str]) -> Result<(), ConfigError> {
        match self.text(field)?.filter(|found| !known.contains(found)) {
            Some(found) => {
                let known = known.iter().map(|known| format!("'{known}'")).collect::<Vec<_>>().join(" or ");
                Err(ConfigError::Choice { field, found: found.into(), known })
            }
            None => Ok(()),
        }
    }
}

/// A JSON value for an error message, cut where it is long.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
