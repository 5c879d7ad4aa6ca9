//! Tokens to words, words to entities: transformers' aggregation strategies.

use super::{Aggregation, Entity};
use crate::PipelineError;
use crate::scores::argmax;

/// A token with its labels' scores.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) word: String,
    pub(super) scores: Vec<f32>,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) index: usize,
    /// Whether it continues the word before it.
    pub(super) continues: bool,
}

/// A token or a word that has its label.
#[derive(Debug, Clone)]
struct Labelled {
    label: String,
    score: f32,
    word: String,
    start: usize,
    end: usize,
}

/// How tokens are joined to a text.
type Join<'a> = &'a dyn Fn(Vec<String>) -> Result<String, PipelineError>;

/// The tokens or groups of a row, with their labels.
pub(super) fn entities(
    tokens: Vec<Token>,
    labels: &[String],
    aggregation: Aggregation,
    join: Join<'_>,
) -> Result<Vec<Entity>, PipelineError> {
    let labelled = |scores: &[f32], word, start, end| {
        let id = argmax(scores).unwrap_or(0);
        Labelled {
            label: labels.get(id).cloned().unwrap_or_default(),
            score: scores.get(id).copied().unwrap_or(0.),
            word,
            start,
            end,
        }
    };
    match aggregation {
        Aggregation::None => Ok(tokens
            .into_iter()
            .map(|token| {
                let Labelled { label, score, word, start, end } =
                    labelled(&token.scores, token.word, token.start, token.end);
                let index = Some(token.index);
                Entity { entity: Some(label), entity_group: None, score, index, word, start, end }
            })
            .collect()),
        Aggregation::Simple => {
            let tokens =
                tokens.into_iter().map(|token| labelled(&token.scores, token.word, token.start, token.end));
            grouped(tokens.collect(), join)
        }
        Aggregation::First | Aggregation::Average | Aggregation::Max => {
            let mut words: Vec<Vec<Token>> = Vec::new();
            for token in tokens {
                match words.last_mut() {
                    Some(word) if token.continues => word.push(token),
                    _ => words.push(vec![token]),
                }
            }
            let words = words
                .into_iter()
                .map(|word| {
                    let (start, end) = span(&word, |token| (token.start, token.end));
                    let scores = scores_of_word(&word, aggregation);
                    let text = join(word.into_iter().map(|token| token.word).collect())?;
                    Ok(labelled(&scores, text, start, end))
                })
                .collect::<Result<Vec<_>, PipelineError>>()?;
            grouped(words, join)
        }
    }
}

fn scores_of_word(word: &[Token], aggregation: Aggregation) -> Vec<f32> {
    let best =
        |token: &Token| argmax(&token.scores).and_then(|id| token.scores.get(id)).copied().unwrap_or(0.);
    match aggregation {
        Aggregation::Average => {
            let labels = word.first().map_or(0, |token| token.scores.len());
            let sum = |id: usize| {
                word.iter().filter_map(|token| token.scores.get(id)).map(|&x| f64::from(x)).sum::<f64>()
            };
            (0..labels).map(|id| (sum(id) / word.len() as f64) as f32).collect()
        }
        Aggregation::Max => {
            let scores: Vec<f32> = word.iter().map(best).collect();
            argmax(&scores).and_then(|at| word.get(at)).map(|token| token.scores.clone()).unwrap_or_default()
        }
        _ => word.first().map(|token| token.scores.clone()).unwrap_or_default(),
    }
}

/// Neighbours of one label as one entity. A label with `B-` begins an entity even after one of the same kind.
fn grouped(parts: Vec<Labelled>, join: Join<'_>) -> Result<Vec<Entity>, PipelineError> {
    let mut groups: Vec<Vec<Labelled>> = Vec::new();
    for part in parts {
        let (begins, kind) = tag(&part.label);
        match groups.last_mut() {
            Some(group) if !begins && group.last().is_some_and(|last| tag(&last.label).1 == kind) => {
                group.push(part)
            }
            _ => groups.push(vec![part]),
        }
    }
    groups
        .into_iter()
        .map(|group| {
            let (start, end) = span(&group, |part| (part.start, part.end));
            let score = group.iter().map(|part| f64::from(part.score)).sum::<f64>() / group.len() as f64;
            // transformers takes what follows the first hyphen here, whatever stands before it.
            let label = group.first().map_or("", |part| &part.label);
            let kind = label.split_once('-').map_or(label, |(_, kind)| kind).to_owned();
            let word = join(group.into_iter().map(|part| part.word).collect())?;
            let score = score as f32;
            Ok(Entity { entity: None, entity_group: Some(kind), score, index: None, word, start, end })
        })
        .collect()
}

/// Whether a label says that an entity begins, and of what kind it is.
fn tag(label: &str) -> (bool, &str) {
    match label.strip_prefix("B-") {
        Some(kind) => (true, kind),
        None => (false, label.strip_prefix("I-").unwrap_or(label)),
    }
}

fn span<T>(parts: &[T], of: impl Fn(&T) -> (usize, usize)) -> (usize, usize) {
    (parts.first().map_or(0, |part| of(part).0), parts.last().map_or(0, |part| of(part).1))
}

/// The entities of overlapping parts of a text, in the order of the text: of two that overlap the longer one, and of equally long ones
/// the one with the higher score.
pub(super) fn without_overlaps(mut entities: Vec<Entity>) -> Vec<Entity> {
    entities.sort_by_key(|entity| entity.start);
    let mut kept: Vec<Entity> = Vec::new();
    for entity in entities {
        match kept.last_mut() {
            Some(last) if (last.start..last.end).contains(&entity.start) => {
                let length = |entity: &Entity| entity.end.saturating_sub(entity.start);
                let is_longer = length(&entity) > length(last);
                if is_longer || (length(&entity) == length(last) && entity.score > last.score) {
                    *last = entity;
                }
            }
            _ => kept.push(entity),
        }
    }
    kept
}
