//! What a file may make of memory.
//!
//! A few bytes of a file can ask for a thousand times their number: a list of empty messages, an
//! archive of zeros, a nest of JSON. So a reader counts what it is about to build, in a [`Budget`],
//! before it builds it.

use std::sync::atomic::{AtomicU64, Ordering};

/// A file may make this many bytes of memory, however small it is: small graphs, tables and
/// archives take a small part of it.
pub const ALWAYS_ALLOWED: u64 = 128 << 20;

/// Beyond that, a file may make this many times its size. Weights are mapped and make none. Numbers
/// that a file spells one by one make up to six times their bytes, so this is for them.
pub const TIMES_ITS_SIZE: u64 = 8;

/// What [`set_max_memory`] was given; 0 before.
static MAX_MEMORY: AtomicU64 = AtomicU64::new(0);

/// Lets every file that is read from now on make so many bytes of memory, whatever its size. It may
/// be more than the default, or less.
pub fn set_max_memory(bytes: u64) {
    MAX_MEMORY.store(bytes.max(1), Ordering::Relaxed);
}

/// How many bytes of memory a file of this size may make: what [`set_max_memory`] says, or else
/// [`ALWAYS_ALLOWED`] and [`TIMES_ITS_SIZE`]. What comes through a pipe has the size 0.
pub fn allowed_memory(size: u64) -> u64 {
    match MAX_MEMORY.load(Ordering::Relaxed) {
        0 => size.saturating_mul(TIMES_ITS_SIZE).saturating_add(ALWAYS_ALLOWED),
        max => max,
    }
}

/// A file that would make more of memory than it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{file} would make more than {} of memory, which is what a file of {} may: if you trust it, allow more, such as --max-memory {}",
    shown(*allowed), shown(*size), argument(*allowed)
)]
pub struct OverBudget {
    /// The file.
    pub file: String,
    /// Its size, in bytes.
    pub size: u64,
    /// What it may make, in bytes.
    pub allowed: u64,
}

/// What one file may still make of memory.
///
/// ```
/// use engine::memory::{ALWAYS_ALLOWED, Budget};
///
/// let mut budget = Budget::of("graph.onnx", 1 << 20);
/// budget.spend(ALWAYS_ALLOWED)?;
/// let error = budget.spend(ALWAYS_ALLOWED).unwrap_err();
/// assert!(error.to_string().starts_with("graph.onnx would make more than 136 MiB of memory"));
/// # Ok::<(), engine::memory::OverBudget>(())
/// ```
#[derive(Debug)]
pub struct Budget {
    file: String,
    size: u64,
    allowed: u64,
    spent: u64,
}

impl Budget {
    /// For a file of so many bytes, by the name that an error gives it.
    pub fn of(file: impl Into<String>, size: u64) -> Self {
        Self { file: file.into(), size, allowed: allowed_memory(size), spent: 0 }
    }

    /// One that is never exceeded, to count.
    pub fn unlimited() -> Self {
        Self { file: String::new(), size: 0, allowed: u64::MAX, spent: 0 }
    }

    /// Counts bytes that are about to be made.
    ///
    /// # Errors
    /// If they are more than what is left.
    pub fn spend(&mut self, bytes: u64) -> Result<(), OverBudget> {
        self.spent = self.spent.saturating_add(bytes);
        if self.spent <= self.allowed { Ok(()) } else { Err(self.exceeded()) }
    }

    /// How many bytes were counted.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// Makes the budget that of a larger file: another belongs to it.
    pub fn grow(&mut self, bytes: u64) {
        self.size = self.size.saturating_add(bytes);
        self.allowed = allowed_memory(self.size);
    }

    /// The error of a budget that is spent.
    pub fn exceeded(&self) -> OverBudget {
        OverBudget { file: self.file.clone(), size: self.size, allowed: self.allowed }
    }

    /// Counts what a reader makes of JSON: each value, each key and each list and map as serde_json
    /// holds them, and what grows with them. Whether it is JSON is not looked at.
    ///
    /// # Errors
    /// If that is more than what is left.
    pub fn spend_json(&mut self, json: &[u8]) -> Result<(), OverBudget> {
        let mut rest = json;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match byte {
                b'{' => self.spend(JSON_MAP)?,
                b'[' => self.spend(JSON_LIST)?,
                b',' => self.spend(JSON_VALUE)?,
                b':' => self.spend(JSON_KEY)?,
                // `NaN` and `Infinity` of Python's JSON, which a reader takes for texts.
                b'I' => self.spend(TEXT)?,
                b'N' if rest.starts_with(b"aN") => self.spend(TEXT)?,
                b'"' => {
                    let length = string_length(rest);
                    self.spend(TEXT + length as u64)?;
                    rest = rest.get(length + 1..).unwrap_or_default();
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Counts what a reader makes of the index of a zip archive. In the first format it has at most
    /// 65535 entries, which is little; in the second, zip64, any number.
    ///
    /// # Errors
    /// If that is more than what is left.
    pub fn spend_zip_index(&mut self, archive: &[u8]) -> Result<(), OverBudget> {
        /// The end of an archive: its two last records, and a comment.
        const END: usize = 20 + 22 + 65535;
        /// The least that an entry takes in the file.
        const ENTRY: u64 = 46;
        let end = &archive[archive.len().saturating_sub(END)..];
        let Some(locator) = end.windows(4).rposition(|bytes| bytes == b"PK\x06\x07") else { return Ok(()) };
        // Where the record lies, and the two counts in it: of the last disk, and of all.
        let number =
            |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let record = number(&end[locator..], 8)
            .and_then(|at| archive.get(usize::try_from(at).ok()?..))
            .filter(|record| record.starts_with(b"PK\x06\x06"));
        let entries = record.and_then(|record| Some(number(record, 24)?.max(number(record, 32)?)));
        // Where it lies elsewhere, a reader may find it all the same.
        let most = archive.len() as u64 / ENTRY;
        self.spend(entries.unwrap_or(most).min(most).saturating_mul(ZIP_ENTRY))
    }

    /// Counts what a reader makes of a list of words, one a line: a text, and its place in a map
    /// from and to its number.
    ///
    /// # Errors
    /// If that is more than what is left.
    pub fn spend_lines(&mut self, text: &[u8]) -> Result<(), OverBudget> {
        // In pieces, so that a file of newlines ends soon.
        text.chunks(1 << 16).try_for_each(|piece| {
            let lines = piece.iter().filter(|&&byte| byte == b'\n').count();
            self.spend(lines as u64 * WORD + piece.len() as u64)
        })
    }
}

/// An entry of a zip archive's index: its name twice, its fields, and its place in a map.
const ZIP_ENTRY: u64 = 768;

/// A value in a list that grows by doubling: serde_json's takes 32 bytes.
const JSON_VALUE: u64 = 64;

/// A key with its place in a map.
const JSON_KEY: u64 = 120;

/// A list that is not empty has room for four values.
const JSON_LIST: u64 = 160;

/// A map that is not empty has a node of a B-tree, which has room for eleven keys and values.
const JSON_MAP: u64 = 700;

/// A text on the heap, beside its letters.
pub const TEXT: u64 = 56;

/// A word of a vocabulary, beside its letters: twice a text, and its places in two maps.
const WORD: u64 = 200;

/// How many bytes a JSON string has up to its closing quote, or to the end.
fn string_length(rest: &[u8]) -> usize {
    let mut escaped = false;
    let end = rest.iter().position(|&byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    end.unwrap_or(rest.len())
}

/// A number of bytes, for a person.
pub(crate) fn shown(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.into_iter().find(|(unit, _)| bytes >= *unit);
    let Some((unit, name)) = unit else { return format!("{bytes} bytes") };
    let number = bytes as f64 / unit as f64;
    if number < 10.0 && number.fract() > 0.05 {
        format!("{number:.1} {name}")
    } else {
        format!("{number:.0} {name}")
    }
}

/// The next limit to try, as it is typed: whole gigabytes, at least four times as much.
pub(crate) fn argument(allowed: u64) -> String {
    format!("{}G", allowed.saturating_mul(4).div_ceil(1 << 30).next_power_of_two())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(json: &str) -> u64 {
        let mut budget = Budget::of("x", 0);
        budget.spend_json(json.as_bytes()).unwrap();
        budget.spent
    }

    #[test]
    fn json_is_counted_outside_of_its_strings_only() {
        assert_eq!(spent(r#""{[,:\"{[,:""#), TEXT + 10);
        assert_eq!(spent(r#"{"a\\":[1,2]}"#), JSON_MAP + TEXT + 3 + JSON_KEY + JSON_LIST + JSON_VALUE);
        assert_eq!(spent("\"unfinished"), TEXT + 10);
        assert_eq!(spent("[NaN,Infinity]"), JSON_LIST + JSON_VALUE + 2 * TEXT);
    }

    #[test]
    fn sizes_are_told_as_people_say_them() {
        assert_eq!(shown(17), "17 bytes");
        assert_eq!(shown(1536), "1.5 KiB");
        assert_eq!(shown(ALWAYS_ALLOWED), "128 MiB");
        assert_eq!(argument(ALWAYS_ALLOWED), "1G");
        assert_eq!(argument(3 << 30), "16G");
    }

    #[test]
    fn what_is_spent_is_counted_together() {
        let mut budget = Budget::of("x", 0);
        budget.spend(ALWAYS_ALLOWED).unwrap();
        assert_eq!(budget.spend(1), Err(budget.exceeded()));
        assert_eq!(budget.spend(u64::MAX), Err(budget.exceeded()));
        let mut budget = Budget::of("x", 1);
        budget.grow(1);
        budget.spend(ALWAYS_ALLOWED + 16).unwrap();
        let lines = "\n".repeat(1 << 20);
        assert_eq!(budget.spend_lines(lines.as_bytes()), Err(budget.exceeded()));
    }
}
