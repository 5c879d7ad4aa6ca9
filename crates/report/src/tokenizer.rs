//! Two files, one tokenizer.

use serde::{Deserialize, Serialize};

use crate::Verdict;

/// As much of a text is shown, in characters.
const SHOWN: usize = 60;

/// What two tokenizers of one model came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerReport {
    /// `pass`, or `fail` if an id is not the same.
    pub verdict: Verdict,
    /// How many texts were given to both.
    pub texts: usize,
    /// On how many of them they differ.
    pub differing: usize,
    /// Where they do first.
    pub difference: Option<TokenDifference>,
    /// What makes the difference, in words; nothing where no setting that is known does.
    pub setting: Option<String>,
    /// What is not the same, and changes no id.
    pub notes: Vec<String>,
}

/// The first id that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenDifference {
    /// The text; of a pair the first.
    pub text: String,
    /// The token's place among those of the text, `[CLS]` being the first, counted from 0.
    pub position: usize,
    /// What tokenizer.json gives there; null where its ids have ended.
    pub tokenizer_json: Option<Token>,
    /// What vocab.txt and tokenizer_config.json give there; null where their ids have ended.
    pub vocab_txt: Option<Token>,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: i64,
    /// The id's text.
    pub token: String,
    /// The token type that comes with it.
    pub token_type: i64,
}

impl TokenizerReport {
    /// What is wrong, in one sentence; nothing where nothing is.
    pub fn sentence(&self) -> Option<String> {
        let TokenDifference { text, position, tokenizer_json, vocab_txt } = self.difference.as_ref()?;
        let token = |token: &Option<Token>| match token {
            Some(Token { id, token, token_type: 0 }) => format!("'{token}' ({id})"),
            Some(Token { id, token, token_type }) => format!("'{token}' ({id}, of type {token_type})"),
            None => "nothing".into(),
        };
        let mut shown: String = text.chars().take(SHOWN).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        let setting = self.setting.as_ref().map_or(String::new(), |setting| format!(": {setting}"));
        Some(format!(
            "tokenizer.json and vocab.txt differ on {} of {} texts; token {position} of {shown:?} is {} by the one, {} by the other{setting}",
            self.differing,
            self.texts,
            token(tokenizer_json),
            token(vocab_txt)
        ))
    }
}
