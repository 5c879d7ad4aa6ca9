//! What a model is checked on: not one lucky draw, but a small set of inputs that exercise shapes, masks, token types and text.

use bert_pipeline::{Text, Tokenizer};
use candle_bert::BertConfig;
use engine::{Dim, NamedValues, Value, ValueError, ValueSpec};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::ParityError;

/// The seed of the random ids. Fixed, so that two runs check the same thing; ChaCha8 gives the same numbers everywhere.
const SEED: u64 = 0x5EED;

/// The longest sequence of the default inputs: BERT's own limit. A model that takes more is not checked at its very end.
const LONGEST: usize = 512;

/// Sentences of different lengths, the first of which the features are shown for.
pub const SENTENCES: [&str; 4] = [
    "Return a list of the files in the directory.",
    "List all the files in this folder.",
    "The quick brown fox jumps over the lazy dog.",
    "Raise an exception!",
];

const PAIRS: [(&str, &str); 2] = [
    ("How do I read a file?", "Open it, then call its read method."),
    ("What is a dictionary?", "A mapping of keys to values."),
];

/// One set of inputs, under a name for reports.
#[derive(Debug, Clone)]
pub struct Case {
    /// What the report calls it.
    pub name: String,
    /// `input_ids`, `attention_mask` and `token_type_ids`, each i64 `[batch, sequence]`.
    pub inputs: NamedValues,
}

/// The sizes that a graph declares for batch and sequence, where it fixes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FixedShape {
    /// The number of rows.
    pub batch: Option<usize>,
    /// The number of tokens of each.
    pub sequence: Option<usize>,
}

impl FixedShape {
    /// What the declared shape of `input_ids` fixes.
    pub fn of(inputs: &[ValueSpec]) -> Self {
        let ids = inputs.iter().find(|spec| spec.name == "input_ids");
        let size =
            |axis: usize| match ids.and_then(|spec| spec.shape.as_ref()).and_then(|dims| dims.get(axis)) {
                Some(Dim::Fixed(size)) => Some(*size),
                _ => None,
            };
        Self { batch: size(0), sequence: size(1) }
    }

    fn takes(self, batch: usize, sequence: usize) -> bool {
        self.batch.is_none_or(|fixed| fixed == batch) && self.sequence.is_none_or(|fixed| fixed == sequence)
    }
}

/// How a case fills its attention mask, row by row.
#[derive(Clone, Copy)]
enum Mask {
    Full,
    /// Rows in turn: full, padded right, padded left, with holes.
    Mixed,
}

/// The default inputs for a model, as far as the graph's declared shapes take them.
///
/// # Errors
/// If the tokenizer fails on the built-in texts.
pub fn default_cases(
    config: &BertConfig,
    fixed: FixedShape,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<Case>, ParityError> {
    let longest = config.max_position_embeddings.min(LONGEST);
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut cases = Vec::new();
    for (name, batch, sequence, mask) in [
        ("one token", 1, 1, Mask::Full),
        ("two tokens", 1, 2, Mask::Full),
        ("odd sizes", 3, 7, Mask::Full),
        ("masks", 4, 16, Mask::Mixed),
        ("longest", 1, longest, Mask::Full),
    ] {
        // Where a graph fixes a size, that size stands in for the one that was meant.
        let shape = [fixed.batch.unwrap_or(batch), fixed.sequence.unwrap_or(sequence.min(longest))];
        let full = matches!(mask, Mask::Full);
        let same_shape = |case: &Case| case.inputs.get("input_ids").is_some_and(|ids| ids.shape() == shape);
        if full && cases.iter().any(same_shape) {
            continue;
        }
        let name = if full && shape != [batch, sequence] { "full".into() } else { name.to_string() };
        cases.push(Case { name, inputs: random(config, shape, mask, &mut rng)? });
    }
    let Some(tokenizer) = tokenizer else { return Ok(cases) };
    let mut texts = vec![("sentences", SENTENCES.map(Text::from).to_vec())];
    if config.type_vocab_size > 1 {
        texts.push(("pairs", PAIRS.map(Text::from).to_vec()));
    }
    for (name, texts) in texts {
        let inputs = tokenizer.encode(&texts)?.to_named_values();
        let fits = |ids: &Value| {
            // A vocabulary larger than the model's embedding table would be the model's own fault, not this text's.
            matches!(ids.shape(), [batch, sequence] if *sequence <= longest && fixed.takes(*batch, *sequence))
        };
        if inputs.get("input_ids").is_some_and(fits) {
            cases.push(Case { name: name.into(), inputs });
        }
    }
    Ok(cases)
}

fn random(
    config: &BertConfig,
    [batch, sequence]: [usize; 2],
    mask: Mask,
    rng: &mut ChaCha8Rng,
) -> Result<NamedValues, ValueError> {
    let (vocabulary, types) = (config.vocab_size as i64, config.type_vocab_size as i64);
    let positions = batch * sequence;
    let ids: Vec<i64> = (0..positions).map(|_| rng.random_range(0..vocabulary)).collect();
    let types: Vec<i64> = (0..positions).map(|_| rng.random_range(0..types)).collect();
    let real = |row: usize, position: usize| match (mask, row % 4) {
        (Mask::Full, _) | (Mask::Mixed, 0) => true,
        (Mask::Mixed, 1) => position < sequence.div_ceil(2),
        (Mask::Mixed, 2) => position >= sequence / 3,
        // Position 0 stays: it is the one that the pooler reads.
        (Mask::Mixed, _) => position % 3 != 1,
    };
    let mask: Vec<i64> =
        (0..positions).map(|flat| i64::from(real(flat / sequence, flat % sequence))).collect();
    Ok(NamedValues::from_iter([
        ("input_ids", Value::new([batch, sequence], ids)?),
        ("attention_mask", Value::new([batch, sequence], mask)?),
        ("token_type_ids", Value::new([batch, sequence], types)?),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> BertConfig {
        BertConfig::from_json(br#"{"vocab_size": 30, "type_vocab_size": 2, "max_position_embeddings": 24}"#)
            .unwrap()
    }

    fn shapes(fixed: FixedShape) -> Vec<Vec<usize>> {
        let cases = default_cases(&config(), fixed, None).unwrap();
        cases.iter().map(|case| case.inputs.get("input_ids").unwrap().shape().to_vec()).collect()
    }

    #[test]
    fn a_dynamic_graph_gets_many_shapes() {
        let expected = [[1, 1], [1, 2], [3, 7], [4, 16], [1, 24]];
        assert_eq!(shapes(FixedShape::default()), expected.map(|shape| shape.to_vec()));
    }

    #[test]
    fn a_static_graph_gets_its_shape_with_and_without_padding() {
        let fixed = FixedShape { batch: Some(2), sequence: Some(8) };
        assert_eq!(shapes(fixed), [[2, 8], [2, 8]].map(|shape| shape.to_vec()));
    }

    #[test]
    fn two_runs_get_the_same_numbers() {
        let cases = || default_cases(&config(), FixedShape::default(), None).unwrap();
        for (a, b) in cases().iter().zip(cases()) {
            assert_eq!(a.inputs, b.inputs);
        }
    }

    #[test]
    fn masks_have_every_pattern() {
        let cases = default_cases(&config(), FixedShape::default(), None).unwrap();
        let masks = cases.iter().find(|case| case.name == "masks").unwrap();
        let mask = masks.inputs.get("attention_mask").unwrap().as_slice::<i64>().unwrap();
        let rows: Vec<String> = mask
            .chunks(16)
            .map(|row| row.iter().map(|bit| char::from(b'0' + *bit as u8)).collect())
            .collect();
        assert_eq!(rows, ["1111111111111111", "1111111100000000", "0000011111111111", "1011011011011011"]);
    }
}
