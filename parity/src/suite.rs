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

/// What a row's attention mask leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mask {
    Full,
    Right,
    Left,
    Holes,
}

/// Every pattern once.
const MASKS: [Mask; 4] = [Mask::Full, Mask::Right, Mask::Left, Mask::Holes];

impl Mask {
    fn keeps(self, position: usize, sequence: usize) -> bool {
        match self {
            Mask::Full => true,
            Mask::Right => position < sequence.div_ceil(2),
            Mask::Left => position >= sequence / 3,
            // Position 0 stays: it is the one that the pooler reads.
            Mask::Holes => position % 3 != 1,
        }
    }
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
    // Where a graph fixes a size, that size stands in for the one that was meant.
    let fit = |batch: usize, sequence: usize| {
        [fixed.batch.unwrap_or(batch), fixed.sequence.unwrap_or(sequence.min(longest))]
    };
    for (name, batch, sequence) in
        [("one token", 1, 1), ("two tokens", 1, 2), ("odd sizes", 3, 7), ("longest", 1, longest)]
    {
        let shape = fit(batch, sequence);
        let same_shape = |case: &Case| case.inputs.get("input_ids").is_some_and(|ids| ids.shape() == shape);
        if cases.iter().any(same_shape) {
            continue;
        }
        let name = if shape == [batch, sequence] { name.to_string() } else { "full".into() };
        cases.push(Case { name, inputs: random(config, shape, &[Mask::Full], &mut rng)? });
    }
    // A graph may take fewer rows at once than there are patterns.
    let shape = fit(MASKS.len(), 16);
    for masks in MASKS.chunks(shape[0].clamp(1, MASKS.len())).filter(|masks| *masks != [Mask::Full]) {
        let name = match masks {
            [Mask::Right] => "padded right",
            [Mask::Left] => "padded left",
            [Mask::Holes] => "masked in between",
            [Mask::Full, ..] => "masks",
            _ => "more masks",
        };
        cases.push(Case { name: name.into(), inputs: random(config, shape, masks, &mut rng)? });
    }
    let Some(tokenizer) = tokenizer else { return Ok(cases) };
    let mut texts = vec![("sentences", SENTENCES.map(Text::from).to_vec())];
    if config.type_vocab_size > 1 {
        texts.push(("pairs", PAIRS.map(Text::from).to_vec()));
    }
    for (name, texts) in texts {
        let inputs = tokenizer.encode(&texts)?.to_named_values();
        let fits = |ids: &Value| matches!(ids.shape(), [batch, sequence] if *sequence <= longest && fixed.takes(*batch, *sequence));
        if inputs.get("input_ids").is_some_and(fits) {
            cases.push(Case { name: name.into(), inputs });
        }
    }
    Ok(cases)
}

/// Random ids and token types; the rows' masks are those given, in turn.
fn random(
    config: &BertConfig,
    [batch, sequence]: [usize; 2],
    masks: &[Mask],
    rng: &mut ChaCha8Rng,
) -> Result<NamedValues, ValueError> {
    let (vocabulary, types) = (config.vocab_size as i64, config.type_vocab_size as i64);
    let positions = batch * sequence;
    let ids: Vec<i64> = (0..positions).map(|_| rng.random_range(0..vocabulary)).collect();
    let types: Vec<i64> = (0..positions).map(|_| rng.random_range(0..types)).collect();
    let mask: Vec<i64> = (0..batch)
        .zip(masks.iter().cycle())
        .flat_map(|(_, mask)| (0..sequence).map(|position| i64::from(mask.keeps(position, sequence))))
        .collect();
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
        let expected = [[1, 1], [1, 2], [3, 7], [1, 24], [4, 16]];
        assert_eq!(shapes(FixedShape::default()), expected.map(|shape| shape.to_vec()));
    }

    /// The masks of all cases, as patterns of a sequence of six.
    fn patterns(batch: usize) -> Vec<String> {
        let fixed = FixedShape { batch: Some(batch), sequence: Some(6) };
        let cases = default_cases(&config(), fixed, None).unwrap();
        let names: Vec<&String> = cases.iter().map(|case| &case.name).collect();
        assert!((1..names.len()).all(|i| !names[..i].contains(&names[i])), "{names:?}");
        cases
            .iter()
            .flat_map(|case| {
                let mask = case.inputs.get("attention_mask").unwrap();
                assert_eq!(mask.shape(), [batch, 6]);
                let bits = mask.as_slice::<i64>().unwrap();
                bits.chunks(6)
                    .map(|row| row.iter().map(ToString::to_string).collect())
                    .collect::<Vec<String>>()
            })
            .collect()
    }

    #[test]
    fn a_static_graph_gets_every_mask_whatever_its_batch() {
        for batch in 1..=5 {
            let patterns = patterns(batch);
            for wanted in ["111111", "111000", "001111", "101101"] {
                assert!(patterns.iter().any(|pattern| pattern == wanted), "{batch}: no {wanted}");
            }
        }
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
