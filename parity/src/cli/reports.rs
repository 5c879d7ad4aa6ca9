//! Writes a report in every form that was asked for.

use std::path::Path;

use parity::render;
use parity::report::Report;

use super::args::FormArgs;
use super::{write_file, write_json};

/// Writes all files, and gives the first error: one that cannot be written does not keep the others from it.
pub fn write(json: Option<&Path>, forms: &FormArgs, report: &Report) -> anyhow::Result<()> {
    let text = |path: &Path, render: fn(&Report) -> String| write_file(path, &render(report));
    let written = [
        json.map(|path| write_json(path, report)),
        forms.markdown.as_deref().map(|path| text(path, render::markdown)),
        forms.junit.as_deref().map(|path| text(path, render::junit)),
        forms.html.as_deref().map(|path| text(path, render::html)),
    ];
    let first = written.into_iter().flatten().find(Result::is_err);
    first.unwrap_or(Ok(()))
}

/// The command line of this process, as it can be pasted into a shell.
pub fn command_line() -> String {
    let arguments = std::env::args_os().skip(1).map(|argument| quoted(&argument.to_string_lossy()));
    std::iter::once("parity".to_string()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// A word for a POSIX shell.
pub(super) fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_./:=,@+%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(quoted("--onnx=a/b.onnx"), "--onnx=a/b.onnx");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("$(x)"), "'$(x)'");
    }
}
