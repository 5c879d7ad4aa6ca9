//! What the environment says about the hub, by the rules of Python's huggingface_hub.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

/// The hub itself.
pub(super) const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// What counts as yes in a variable.
const TRUE: [&str; 4] = ["1", "ON", "YES", "TRUE"];

/// A secret, and where it is from.
#[derive(Clone)]
pub(super) struct Token {
    pub secret: String,
    pub origin: String,
}

/// The settings of a process.
pub(super) struct Settings {
    pub endpoint: String,
    pub token: Option<Token>,
    /// The variable that forbids every request, if one does.
    pub offline: Option<&'static str>,
}

impl Settings {
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Self {
        let text = |name: &str| {
            let value = variable(name)?.into_string().ok()?;
            Some(value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let is_true =
            |name: &str| text(name).is_some_and(|value| TRUE.contains(&value.to_ascii_uppercase().as_str()));
        let folder = |name: &str| {
            let path = PathBuf::from(text(name)?);
            match (path.strip_prefix("~"), &home) {
                (Ok(rest), Some(home)) => Some(home.join(rest)),
                _ => Some(path),
            }
        };

        let from_variable = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
            .into_iter()
            .find_map(|name| text(name).map(|secret| Token { secret, origin: format!("in {name}") }));
        let hub_home = || {
            folder("HF_HOME")
                .or_else(|| folder("XDG_CACHE_HOME").map(|path| path.join("huggingface")))
                .or_else(|| home.as_ref().map(|home| home.join(".cache/huggingface")))
        };
        let from_file = || {
            let path = folder("HF_TOKEN_PATH").or_else(|| Some(hub_home()?.join("token")))?;
            let secret = fs::read_to_string(&path).ok()?.trim().to_owned();
            (!secret.is_empty()).then(|| Token { secret, origin: format!("in {}", path.display()) })
        };
        // A token that nobody named for this process: from a login, long ago.
        let is_implicit_refused = is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN");
        Self {
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            token: if is_implicit_refused { None } else { from_variable.or_else(from_file) },
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(|name| is_true(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)], home: Option<PathBuf>) -> Settings {
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        Settings::from_variables(variable, home)
    }

    fn token(settings: &Settings) -> Option<&str> {
        settings.token.as_ref().map(|token| token.secret.as_str())
    }

    #[test]
    fn nothing_set_is_the_public_hub_without_a_token() {
        let none = settings(&[], None);
        assert_eq!((none.endpoint.as_str(), none.offline), ("https://huggingface.co", None));
        assert_eq!(token(&none), None);
        assert_eq!(settings(&[("HF_ENDPOINT", " http://x/ ")], None).endpoint, "http://x/");
    }

    #[test]
    fn offline_is_what_python_takes_for_yes() {
        for (value, offline) in [
            ("1", true),
            ("true", true),
            ("Yes", true),
            ("on", true),
            ("0", false),
            ("", false),
            ("no", false),
        ] {
            for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
                assert_eq!(settings(&[(name, value)], None).offline, offline.then_some(name), "{value}");
            }
        }
    }

    #[test]
    fn a_token_is_looked_for_in_variables_and_then_where_a_login_leaves_it() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        let write = |file: &str, secret: &str| {
            fs::create_dir_all(home.join(file).parent().unwrap()).unwrap();
            fs::write(home.join(file), format!("{secret}\n")).unwrap();
        };
        write(".cache/huggingface/token", "hf_login");
        write("hf/token", "hf_home");
        write("elsewhere", "hf_path");
        let path = |file: &str| home.join(file).to_str().unwrap().to_owned();
        let (hf, elsewhere) = (path("hf"), path("elsewhere"));
        let all = [
            ("HF_TOKEN", "hf_variable"),
            ("HUGGING_FACE_HUB_TOKEN", "hf_old"),
            ("HF_TOKEN_PATH", &elsewhere),
            ("HF_HOME", &hf),
        ];
        let found = ["hf_variable", "hf_old", "hf_path", "hf_home", "hf_login"];
        for (skip, expected) in found.into_iter().enumerate() {
            let settings = settings(&all[skip..], Some(home.to_path_buf()));
            assert_eq!(token(&settings), Some(expected));
        }
        let refused = [("HF_TOKEN", "x"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
        assert_eq!(token(&settings(&refused, None)), None);
    }
}
