//! What a model is checked on: not one lucky draw, but a small set of inputs, each of which exposes what the others may hide: a length that was
//! frozen, a mask that is ignored, token types that were baked in, an eps that only rows of low variance feel.

mod fit;
pub(crate) mod grid;
mod rows;
mod tables;

use architecture::{Limits, Task};
use bert_pipeline::{PipelineError, Text, Tokenizer};
use engine::{Dim, NamedValues, Value, ValueError, ValueSpec};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::ParityError;
pub use fit::{common_inputs, fit_inputs};
use grid::Grid;
use rows::{Ids, Mask, Row, Types};
pub use tables::EmbeddingTables;

/// The seed of the random ids. Fixed, so that two runs check the same thing; ChaCha8 gives the same numbers everywhere.
const SEED: u64 = 0x5EED;

/// The longest sequence of the default inputs: BERT's own limit. A model that takes more is not checked at its very end.
pub(crate) const LONGEST: usize = 512;

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
        let rank = ids.and_then(|spec| spec.shape.as_deref()).map_or(0, <[Dim]>::len);
        let size = |axis| fixed_axis(inputs, axis);
        match rank {
            // Each choice for a text is a row.
            3 => Self {
                batch: size(0).zip(size(1)).and_then(|(batch, choices)| batch.checked_mul(choices)),
                sequence: size(2),
            },
            _ => Self { batch: size(0), sequence: size(1) },
        }
    }
}

/// The inputs for a graph of a task, by [`default_cases`]: those of a multiple choice have choices.
///
/// # Errors
/// As [`default_cases`] and [`as_choices`].
pub fn cases_for(
    task: Task,
    limits: &Limits,
    inputs: &[ValueSpec],
    tokenizer: Option<&Tokenizer>,
    tables: Option<&EmbeddingTables>,
) -> Result<Vec<Case>, ParityError> {
    let mut fixed = FixedShape::of(inputs);
    if task != Task::MultipleChoice {
        return default_cases(limits, fixed, tokenizer, tables);
    }
    // Where the graph fixes how many choices a text has, or how many texts there are, and not both: as many rows.
    fixed.batch = fixed.batch.or(fixed_axis(inputs, 1)).or(fixed_axis(inputs, 0));
    as_choices(default_cases(limits, fixed, tokenizer, tables)?, inputs)
}

/// The size of an axis of `input_ids`, where the graph fixes it.
fn fixed_axis(inputs: &[ValueSpec], axis: usize) -> Option<usize> {
    let ids = inputs.iter().find(|spec| spec.name == "input_ids")?;
    match ids.shape.as_deref()?.get(axis)? {
        Dim::Fixed(size) => Some(*size),
        _ => None,
    }
}

/// The same inputs as `[batch, choices, sequence]`, as far as `inputs` leaves that open: as two texts where the rows can be shared out, or else as one.
///
/// # Errors
/// If the rows of a case are no whole number of texts, where the graph fixes how many choices each has.
pub fn as_choices(cases: Vec<Case>, inputs: &[ValueSpec]) -> Result<Vec<Case>, ParityError> {
    let fixed = |axis| fixed_axis(inputs, axis).map(|size| size.max(1));
    let split = |rows: usize| match (fixed(0), fixed(1)) {
        (Some(batch), _) => [batch, rows / batch],
        (None, Some(choices)) => [rows / choices, choices],
        (None, None) if rows > 2 && rows.is_multiple_of(2) => [2, rows / 2],
        (None, None) => [1, rows],
    };
    let reshape = |case: Case| {
        let values = case.inputs.into_iter().map(|(name, value)| {
            let &[rows, sequence] = value.shape() else { return Ok((name, value)) };
            let [batch, choices] = split(rows);
            let ids = value.as_slice::<i64>()?;
            Ok((name, Value::new([batch, choices, sequence], ids)?))
        });
        Ok(Case { name: case.name, inputs: values.collect::<Result<_, ValueError>>()? })
    };
    cases.into_iter().map(reshape).collect()
}

/// The longest that masks are tried at, unless the graph fixes the length.
const MASKED: usize = 16;

/// For how many positions the tokens of lowest variance are looked up: a pass over the vocabulary takes as many sums.
const LOW_VARIANCE: usize = 8;

/// Every mask once. A row without any real token comes last: it never decides, so it must have others beside it.
const MASKS: [Row; 6] = [
    Row::random("full", Mask::Full),
    Row::random("padded right", Mask::Right),
    Row::random("padded left", Mask::Left),
    Row::random("masked in between", Mask::Holes),
    Row::random("one real token", Mask::Single),
    Row::random("no real token", Mask::Empty),
];

/// Shapes, each with why: exporters trace at a short text, optimum at 2×16, and what they froze breaks at any other.
fn sizes(longest: usize) -> [(&'static str, usize, usize); 8] {
    [
        ("one token", 1, 1),
        ("two tokens", 1, 2),
        ("odd sizes", 3, 7),
        ("two of eight", 2, 8),
        ("one of nine", 1, 9),
        ("three of fifteen", 3, 15),
        ("two of seventeen", 2, 17),
        ("longest", 1, longest),
    ]
}

/// Rows whose tokens are the point, each with the length it is given where the graph leaves it open.
fn token_rows(limits: &Limits, tables: Option<&EmbeddingTables>) -> Result<Vec<(Row, usize)>, ParityError> {
    let row = |name, ids, types| Row { name, ids, types, mask: Mask::Full };
    let mut rows = vec![
        (row("first and last id", Ids::Ends, Types::Random), 4),
        (row("one id repeated", Ids::One, Types::Zero), 12),
    ];
    if limits.token_types > 1 {
        rows.push((row("two segments", Ids::Random, Types::Segments), 10));
        rows.push((row("token types of one", Ids::Random, Types::One), 11));
    }
    if let Some(padding) = limits.padding {
        rows.push((row("padding ids in the text", Ids::Padding(padding), Types::Random), 13));
    }
    if let Some(tables) = tables {
        let tokens = tables.lowest_variance(LOW_VARIANCE)?;
        let length = tokens.len();
        rows.push((row("low variance", Ids::Tokens(tokens), Types::Zero), length));
    }
    Ok(rows)
}

/// The default inputs for a model, as far as the graph's declared shapes take them: `input_ids`,
/// `attention_mask` and, if the model is told of them, `token_type_ids`, i64.
///
/// With a tokenizer there are texts among them, with the checkpoint's embedding tables tokens of low variance. The numbers are the same in every
/// run; names are unique.
///
/// # Errors
/// If the tokenizer fails on the built-in texts.
pub fn default_cases(
    limits: &Limits,
    fixed: FixedShape,
    tokenizer: Option<&Tokenizer>,
    tables: Option<&EmbeddingTables>,
) -> Result<Vec<Case>, ParityError> {
    let longest = limits.positions.min(LONGEST);
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut cases: Vec<Case> = Vec::new();
    // Where a graph fixes a size, that size stands in for the one that was meant.
    let fit = |batch: usize, sequence: usize| {
        [fixed.batch.unwrap_or(batch), fixed.sequence.unwrap_or(sequence.min(longest))]
    };
    for (name, batch, sequence) in sizes(longest) {
        let shape = fit(batch, sequence);
        let same_shape = |case: &Case| case.inputs.get("input_ids").is_some_and(|ids| ids.shape() == shape);
        if cases.iter().any(same_shape) {
            continue;
        }
        let as_meant = shape == [batch, sequence];
        let name = if as_meant { name.into() } else { format!("random {}×{}", shape[0], shape[1]) };
        let inputs = rows::inputs(limits, shape, &[Row::random("", Mask::Full)], &mut rng)?;
        cases.push(Case { name, inputs });
    }
    let mut named = |name: String, rows: &[Row], shape: [usize; 2]| -> Result<(), ParityError> {
        cases.push(Case { name, inputs: rows::inputs(limits, shape, rows, &mut rng)? });
        Ok(())
    };
    let token_rows = token_rows(limits, tables)?;
    if let Some(batch) = fixed.batch {
        // As many rows at once as the graph takes.
        let rows: Vec<Row> = token_rows.into_iter().map(|(row, _)| row).collect();
        for rows in packed(&[&MASKS, rows.as_slice()].concat(), batch) {
            named(name_of(&rows), &rows, fit(batch, MASKED))?;
        }
    } else {
        named("masks".into(), &MASKS, fit(MASKS.len(), MASKED))?;
        for (row, sequence) in token_rows {
            named(row.name.into(), &[row], fit(1, sequence))?;
        }
    }
    if let Some(tokenizer) = tokenizer {
        cases.extend(texts(limits, fixed, longest, tokenizer)?);
    }
    Ok(cases)
}

/// Rows for a graph that takes `batch` at once. Those that the rows before them make needless are left out: a full mask alone, which every shape
/// was tried with; a row without any real token alone, which decides nothing.
fn packed(rows: &[Row], batch: usize) -> Vec<Vec<Row>> {
    let needless = |row: &Row| row.name == "full" || row.mask == Mask::Empty;
    let rows: Vec<Row> = rows.iter().filter(|row| batch > 1 || !needless(row)).cloned().collect();
    let mut packed: Vec<Vec<Row>> = rows.chunks(batch.max(1)).map(<[Row]>::to_vec).collect();
    for rows in &mut packed {
        if rows.iter().all(|row| row.mask == Mask::Empty) {
            rows.insert(0, MASKS[0].clone());
        }
    }
    packed
}

fn name_of(rows: &[Row]) -> String {
    match rows {
        [first, .., last] => format!("{} to {}", first.name, last.name),
        [row] => row.name.into(),
        [] => String::new(),
    }
}

/// What a tokenizer gives, as far as the model is told it: some know no token types.
pub fn told(mut inputs: NamedValues, limits: &Limits) -> NamedValues {
    if limits.token_types == 0 {
        inputs.remove("token_type_ids");
    }
    inputs
}

/// The built-in texts, padded to the graph's length and repeated to its batch where it fixes them.
fn texts(
    limits: &Limits,
    fixed: FixedShape,
    longest: usize,
    tokenizer: &Tokenizer,
) -> Result<Vec<Case>, ParityError> {
    let mut texts = vec![("sentences", SENTENCES.map(Text::from).to_vec())];
    if limits.token_types > 1 {
        texts.push(("pairs", PAIRS.map(Text::from).to_vec()));
    }
    let mut cases = Vec::new();
    for (name, texts) in texts {
        let encoded = match tokenizer.encode(&texts) {
            // A model of few positions, or a tokenizer that cuts words small.
            Err(PipelineError::TooLong { .. }) => continue,
            encoded => encoded?,
        };
        let Some(grid) = Grid::of(&told(encoded.to_named_values(), limits)) else { continue };
        let Some(padding) = fixed.sequence.unwrap_or(grid.sequence()).checked_sub(grid.sequence()) else {
            continue;
        };
        if grid.sequence() > longest {
            continue;
        }
        let ids = grid.input("input_ids");
        let grid =
            grid.padded(padding, |input| if Some(input) == ids { i64::from(tokenizer.pad_id()) } else { 0 });
        let batch = fixed.batch.unwrap_or(grid.batch());
        let rows = grid.rows.iter().cycle().take(batch).cloned().collect();
        cases.push(Case { name: name.into(), inputs: grid.with_rows(rows).to_inputs()? });
    }
    Ok(cases)
}

#[cfg(test)]
mod tests;
