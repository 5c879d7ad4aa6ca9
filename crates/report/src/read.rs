//! A saved report, read again.

use serde::{Deserialize, Deserializer};
use serde_json::error::Category;

use crate::{Report, SCHEMA, SELFTEST_SCHEMA, Selftest, TokenErrors};

/// What a JSON file of `parity` holds.
#[derive(Debug, Clone)]
pub enum Saved {
    /// A check.
    Report(Box<Report>),
    /// A selftest.
    Selftest(Box<Selftest>),
}

/// Why bytes are no saved report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// They are no JSON.
    #[error("it is no JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// They are JSON that does not say that it is a report.
    #[error("it is JSON without the `schema` {SCHEMA} or {SELFTEST_SCHEMA}")]
    NoSchema,
    /// They are a report of a version that is not known here, or something else.
    #[error("its `schema` is '{0}', and only {SCHEMA} and {SELFTEST_SCHEMA} are known")]
    Schema(String),
    /// A field is missing, or is not what it must be.
    #[error("it is not what its `schema` says: {0}")]
    Malformed(#[source] serde_json::Error),
    /// Errors by token that do not fill their rows.
    #[error(
        "it is not what its `schema` says: `tokens` has {errors} errors for {batch} rows of {sequence} positions"
    )]
    Tokens {
        /// How many there are.
        errors: usize,
        /// How many rows it says.
        batch: usize,
        /// How many positions of each it says.
        sequence: usize,
    },
}

/// Reads what `parity check --json` or `parity selftest --json` has written. Fields that are not
/// known are ignored: a later version may have added them.
///
/// # Errors
/// If it is neither.
pub fn read(json: &[u8]) -> Result<Saved, ReadError> {
    #[derive(Deserialize)]
    struct Head {
        schema: String,
    }
    let head: Head = serde_json::from_slice(json).map_err(|error| match error.classify() {
        Category::Data => ReadError::NoSchema,
        _ => ReadError::NotJson(error),
    })?;
    match head.schema.as_str() {
        SCHEMA => {
            let report: Box<Report> = serde_json::from_slice(json).map_err(ReadError::Malformed)?;
            let parts = report.graphs.iter().map(|graph| &graph.parts).chain([&report.parts]);
            parts.flat_map(|parts| &parts.tokens).try_for_each(fills_its_rows)?;
            Ok(Saved::Report(report))
        }
        SELFTEST_SCHEMA => serde_json::from_slice(json).map(Saved::Selftest).map_err(ReadError::Malformed),
        _ => Err(ReadError::Schema(head.schema)),
    }
}

fn fills_its_rows(tokens: &TokenErrors) -> Result<(), ReadError> {
    let &TokenErrors { batch, sequence, ref errors, .. } = tokens;
    let is_full = sequence > 0 && batch.checked_mul(sequence) == Some(errors.len());
    if is_full { Ok(()) } else { Err(ReadError::Tokens { errors: errors.len(), batch, sequence }) }
}

/// A number that is not finite is written as null, and comes back as NaN.
pub(crate) fn or_nan<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + From<f32>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(|| f32::NAN.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::{FindingKind, Verdict};

    fn minimal() -> Json {
        json!({"schema": SCHEMA, "verdict": "fail", "model": "m", "atol": null})
    }

    fn with(field: &str, value: Json) -> Result<Saved, ReadError> {
        let mut json = minimal();
        json[field] = value;
        read(json.to_string().as_bytes())
    }

    #[test]
    fn what_is_no_report_is_told_apart() {
        for bytes in [&b""[..], b"\x08\x07onnx", b"{\"schema\": \"parity-report/1\"", b"\xff\xfe{\0"] {
            assert!(matches!(read(bytes), Err(ReadError::NotJson(_))), "{bytes:?}");
        }
        for json in ["[]", "{}", "1", r#"{"schema": 1}"#, r#"{"results": []}"#] {
            assert!(matches!(read(json.as_bytes()), Err(ReadError::NoSchema)), "{json}");
        }
        assert!(
            matches!(with("schema", "parity-report/2".into()), Err(ReadError::Schema(other)) if other == "parity-report/2")
        );
        let malformed =
            [("verdict", json!("good")), ("notes", json!([1])), ("proof", json!({})), ("located", json!([]))];
        for (field, value) in malformed {
            assert!(matches!(with(field, value), Err(ReadError::Malformed(_))), "{field}");
        }
    }

    #[test]
    fn a_later_version_may_know_more() {
        let finding =
            json!({"kind": "colour", "fails": true, "tensors": [], "module": null, "message": "m", "hue": 1});
        let audit = json!({
            "verdict": "fail", "traced": [], "untraced": [], "unused": [], "leftover": [], "findings": [finding],
            "constants": [{"name": "c", "value": null, "origin": "taste"}]
        });
        let Ok(Saved::Report(report)) = with("weights", audit) else { panic!("it is a report") };
        assert_eq!(report.weights.as_ref().unwrap().findings[0].kind, FindingKind::Other);
        let Ok(Saved::Report(report)) = with("later", json!({"a": [1, {}]})) else {
            panic!("it is a report")
        };
        assert_eq!(report.verdict, Verdict::Fail);
        assert!(report.atol.is_nan() && report.located.is_none() && report.stress.is_empty());
    }

    #[test]
    fn errors_by_token_fill_their_rows() {
        let tokens = |batch: usize, sequence: usize, errors: usize| {
            let tokens = json!({
                "input": "i", "output": "o", "side": "f64", "batch": batch, "sequence": sequence,
                "errors": vec![0.0; errors], "not_finite": []
            });
            with("tokens", json!([tokens]))
        };
        assert!(tokens(2, 3, 6).is_ok() && tokens(0, 3, 0).is_ok());
        for (batch, sequence, errors) in
            [(2, 3, 5), (usize::MAX, 0, 0), (usize::MAX, 2, 0), (1, 0, 0), (0, 0, 1)]
        {
            assert!(matches!(tokens(batch, sequence, errors), Err(ReadError::Tokens { .. })));
        }
    }

    /// Without serde_json's `float_roundtrip` about one number in ten is another.
    #[test]
    fn numbers_come_back_to_the_last_bit() {
        let numbers: Vec<f64> = (1..2000).map(|at| (f64::from(at) * 0.07).exp() / 3e8).collect();
        let json = serde_json::to_string(&numbers).unwrap();
        assert_eq!(serde_json::from_str::<Vec<f64>>(&json).unwrap(), numbers);
    }
}
