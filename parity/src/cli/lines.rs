//! Files of texts, one a line.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use anyhow::Context as _;
use engine::memory::allowed_memory;
use engine::{open_stream, shown_path};
use serde::de::DeserializeOwned;

/// A line at a time, or why it cannot be read.
pub type Lines<T> = Box<dyn Iterator<Item = anyhow::Result<T>>>;

/// Some editors begin a file with it; it belongs to no text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// What a tokenizer makes of a byte of text: up to a token, with its word and its place in the
/// text.
const TOKENIZED: u64 = 128;

/// The lines of a file, a pipe or standard input, which is read once: each a text, or, where the
/// file is called .jsonl or .ndjson, JSON. What is wrong with the first is told at once; `form` is
/// what such JSON must be, for errors.
pub fn read<T: DeserializeOwned + 'static>(
    path: &Path,
    of_text: fn(String) -> T,
    form: &'static str,
) -> anyhow::Result<Lines<T>> {
    let mut lines = unchecked(path, of_text, form)?.peekable();
    match lines.next_if(Result::is_err) {
        Some(Err(error)) => Err(error),
        _ if lines.peek().is_none() => {
            anyhow::bail!(
                "{} has no lines, so there is nothing to read: give it one text a line",
                shown_path(path)
            )
        }
        _ => Ok(Box::new(lines)),
    }
}

fn unchecked<T: DeserializeOwned + 'static>(
    path: &Path,
    of_text: fn(String) -> T,
    form: &'static str,
) -> anyhow::Result<Lines<T>> {
    let is_json = path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
    let mut reader = BufReader::new(open_stream(path)?);
    let shown = shown_path(path).into_owned();
    let longest = allowed_memory(0) / TOKENIZED;
    let mut number = 0;
    let mut next = move || -> anyhow::Result<Option<T>> {
        loop {
            number += 1;
            let place = || format!("cannot read {shown}, line {number}");
            let mut line = Vec::new();
            let found = reader.by_ref().take(longest + 1).read_until(b'\n', &mut line);
            if found.with_context(place)? == 0 {
                return Ok(None);
            }
            anyhow::ensure!(
                line.len() as u64 <= longest,
                "{}: it is longer than {longest} bytes, and no model takes such a text: cut it, or allow more with --max-memory",
                place()
            );
            let mut line = String::from_utf8(line).map_err(|_| {
                anyhow::anyhow!("{}: it is not UTF-8: save the file in that encoding", place())
            })?;
            line.truncate(line.trim_end_matches('\n').trim_end_matches('\r').len());
            if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
                line.drain(..BYTE_ORDER_MARK.len_utf8());
            }
            if !is_json {
                return Ok(Some(of_text(line)));
            }
            if !line.trim().is_empty() {
                let line = serde_json::from_str(&line);
                return Ok(Some(line.with_context(|| format!("{}, is not {form}", place()))?));
            }
        }
    };
    Ok(Box::new(std::iter::from_fn(move || next().transpose())))
}
