//! The best spans of a row, by transformers' `select_starts_ends` and `decode_spans`.

use tokenizers::Encoding;

use super::Answer;
use crate::chars::Chars;
use crate::scores::softmax;

/// What stands in for a logit where no answer may begin or end.
const NOT_AN_ANSWER: f32 = -10_000.;

/// The best spans of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    /// First token, last token, score; the best first.
    pub(super) spans: Vec<(usize, usize, f32)>,
    /// The score of there being no answer, which is that of the first token.
    pub(super) none: f64,
}

/// The best spans of at most `longest` tokens in the context. Spans of score 0 are no candidates, while transformers may list them last.
pub(super) fn best(
    row: &Encoding,
    classification: Option<u32>,
    logits: [&[f32]; 2],
    wanted: usize,
    longest: usize,
) -> Part {
    // An answer lies in the context; the classification token stands for there being none, wherever it is.
    let sequences = row.get_sequence_ids();
    let may_answer: Vec<bool> = row
        .get_ids()
        .iter()
        .zip(&sequences)
        .map(|(&id, &sequence)| sequence == Some(1) || Some(id) == classification)
        .collect();
    let probabilities = |logits: &[f32]| {
        let logits = logits.iter().zip(&may_answer);
        let masked: Vec<f32> = logits.map(|(&logit, &may)| if may { logit } else { NOT_AN_ANSWER }).collect();
        softmax(&masked)
    };
    let [mut start, mut end] = logits.map(probabilities);
    let none = match (start.first_mut(), end.first_mut()) {
        (Some(start), Some(end)) => {
            let none = f64::from(*start * *end);
            (*start, *end) = (0., 0.);
            none
        }
        _ => 0.,
    };

    let mut spans = Vec::new();
    for (first, &begins) in start.iter().enumerate() {
        let ends = end.iter().enumerate().skip(first).take(longest);
        spans.extend(ends.map(|(last, &ends)| (first, last, begins * ends)).filter(|span| span.2 > 0.));
    }
    spans.sort_by(|a, b| b.2.total_cmp(&a.2));
    spans.truncate(wanted);
    Part { spans, none }
}

/// Adds the spans of a row to the answers of its text. The same words again, in whatever case, add to the score of those that came first.
pub(super) fn collect(
    answers: &mut Vec<Answer>,
    row: &Encoding,
    part: &Part,
    context: &Chars<'_>,
    aligns_to_words: bool,
) {
    for &(first, last, score) in &part.spans {
        let score = f64::from(score);
        let (start, end) = characters(row, first, last, aligns_to_words);
        let words = context.slice(start, end);
        let same = |answer: &&mut Answer| answer.answer.to_lowercase() == words.to_lowercase();
        match answers.iter_mut().find(same) {
            Some(answer) => answer.score += score,
            None => answers.push(Answer { score, start, end, answer: words.to_owned() }),
        }
    }
}

/// Where a span of tokens begins and ends in the context: of whole words, where the tokenizer knows them.
fn characters(row: &Encoding, first: usize, last: usize, aligns_to_words: bool) -> (usize, usize) {
    /// The second text of the pair.
    const CONTEXT: usize = 1;
    let word = |token: usize| row.word_to_chars(row.token_to_word(token)?.1, CONTEXT);
    if aligns_to_words && let (Some((start, _)), Some((_, end))) = (word(first), word(last)) {
        return (start, end);
    }
    let offset = |token: usize| row.get_offsets().get(token).copied().unwrap_or((0, 0));
    (offset(first).0, offset(last).1)
}
