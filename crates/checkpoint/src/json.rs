//! JSON as Python's `json` writes and reads it.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

/// What Python writes for floats that JSON does not have.
const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads JSON that may begin with a byte order mark, and have `NaN`, `Infinity` and `-Infinity`
/// among its numbers. Each of these is read as a string of that name: whoever needs a number there
/// gets none, and says so.
///
/// # Errors
/// If it is no such JSON, or not that of a `T`.
///
/// ```
/// let json = br#"{"limits": [0.0, Infinity], "about": "Infinity, NaN"}"#;
/// let value: serde_json::Value = checkpoint::from_json(json)?;
/// assert_eq!(value["limits"][1], "Infinity");
/// assert_eq!(value["about"], "Infinity, NaN");
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn from_json<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(&plain(json))
}

/// This JSON with Python's words as strings, and without a byte order mark.
fn plain(json: &[u8]) -> Cow<'_, [u8]> {
    let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
    let mut quoted: Vec<u8> = Vec::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(&byte) = json.get(at) {
        let word = match byte {
            b'"' => {
                at += string(&json[at..]);
                continue;
            }
            b'-' | b'I' | b'N' => WORDS.iter().find(|word| json[at..].starts_with(word.as_bytes())),
            _ => None,
        };
        let Some(word) = word else {
            at += 1;
            continue;
        };
        quoted.extend(&json[copied..at]);
        quoted.extend(format!("\"{word}\"").as_bytes());
        at += word.len();
        copied = at;
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    quoted.extend(&json[copied..]);
    Cow::Owned(quoted)
}

/// How many bytes a string takes, with its quotes; all that is left if it has no end.
fn string(json: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(json: &str) -> Result<Value, serde_json::Error> {
        from_json(json.as_bytes())
    }

    #[test]
    fn what_python_writes_is_read() {
        let written = r#"{"a": NaN, "b": [-Infinity, Infinity,NaN], "c": -1.5, "d": null}"#;
        let expected = json!({"a": "NaN", "b": ["-Infinity", "Infinity", "NaN"], "c": -1.5, "d": null});
        assert_eq!(read(written).unwrap(), expected);
        assert_eq!(read(&format!("\u{feff}{written}")).unwrap(), expected);
    }

    #[test]
    fn strings_are_not_touched() {
        for text in ["NaN", "a \" NaN", "\\", "\\\", Infinity", "\u{feff}-Infinity"] {
            let json = json!({ "key": text, text: [text] });
            assert_eq!(read(&json.to_string()).unwrap(), json);
            assert!(matches!(plain(json.to_string().as_bytes()), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for text in
            ["", "Inf", "nan", "1NaN", "NaNs", "--Infinity", "[NaN", "\"NaN", "\"\\", "[Infinity Infinity]"]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
