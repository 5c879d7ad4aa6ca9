/// A text that is cut by characters, as Python cuts a `str`: Unicode scalar values, not bytes.
pub(crate) struct Chars<'a> {
    text: &'a str,
    /// Where each character begins, and where the text ends.
    starts: Vec<usize>,
}

impl<'a> Chars<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        Self { text, starts }
    }

    /// The characters from `start` up to `end`. What is beyond the text is left out, and nothing lies between an end and a later start.
    pub(crate) fn slice(&self, start: usize, end: usize) -> &'a str {
        let byte = |at: usize| self.starts.get(at).copied().unwrap_or(self.text.len());
        self.text.get(byte(start)..byte(end)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_not_bytes() {
        let text = Chars::new("né 東京 😀e\u{301}");
        assert_eq!(text.slice(0, 2), "né");
        assert_eq!(text.slice(3, 5), "東京");
        assert_eq!(text.slice(6, 7), "😀");
        assert_eq!(text.slice(7, 9), "e\u{301}");
        assert_eq!(text.slice(7, 100), "e\u{301}");
        assert_eq!(text.slice(5, 3), "");
        assert_eq!(Chars::new("").slice(0, 1), "");
    }
}
