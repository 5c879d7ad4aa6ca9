/// What a model reads at once: one text, or two in a row, such as a question and its context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// The text, or the first of the pair: `token_type_ids` 0.
    pub first: &'a str,
    /// The second of the pair: `token_type_ids` 1.
    pub second: Option<&'a str>,
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(first: &'a str) -> Self {
        Self { first, second: None }
    }
}

impl<'a> From<&'a String> for Text<'a> {
    fn from(first: &'a String) -> Self {
        Self { first, second: None }
    }
}

impl<'a> From<(&'a str, &'a str)> for Text<'a> {
    fn from((first, second): (&'a str, &'a str)) -> Self {
        Self { first, second: Some(second) }
    }
}
