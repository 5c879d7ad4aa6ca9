//! What an input means: as it was said, by its name, or by what the graph does with it.

use std::collections::BTreeMap;

use onnx_graph::Model;

use super::{InputError, Lookup, Tables};

/// What a text encoder is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Ids,
    Mask,
    Types,
    Positions,
}

impl Meaning {
    const ALL: [Self; 4] = [Self::Ids, Self::Mask, Self::Types, Self::Positions];

    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ids => "input_ids",
            Self::Mask => "attention_mask",
            Self::Types => "token_type_ids",
            Self::Positions => "position_ids",
        }
    }

    /// Names in use: TensorFlow's BERT, TF Hub's, and what people write by hand.
    fn others(self) -> &'static [&'static str] {
        match self {
            Self::Ids => &["input_word_ids", "token_ids", "ids"],
            Self::Mask => &["input_mask", "attn_mask", "mask"],
            Self::Types => &["segment_ids", "input_type_ids", "token_types", "type_ids", "segments"],
            Self::Positions => &["positions", "pos_ids"],
        }
    }
}

/// Of each input of the graph what it means; nothing where nobody can tell.
pub(super) fn meanings(
    model: &Model,
    given: &BTreeMap<String, String>,
    tables: Tables,
) -> Result<Vec<Option<Meaning>>, InputError> {
    let inputs = &model.graph.inputs;
    let mut found: Vec<Option<Meaning>> = vec![None; inputs.len()];
    for (usual, name) in given {
        let (usual, given) = (usual.clone(), name.clone());
        let Some(meaning) = Meaning::ALL.into_iter().find(|meaning| meaning.name() == usual) else {
            return Err(InputError::NoMeaning { usual, given });
        };
        let Some(at) = inputs.iter().position(|spec| spec.name == *name) else {
            let known: Vec<&str> = inputs.iter().map(|spec| spec.name.as_str()).collect();
            return Err(InputError::NoInput { usual, given, known: known.join(", ") });
        };
        if let Some(one) = found[at].replace(meaning) {
            return Err(InputError::Twice { given, one: one.name(), other: meaning.name() });
        }
    }
    // What a name says exactly goes before what it says in other words, and that before use.
    let exact = |name: &str, meaning: Meaning| name == meaning.name();
    let loose = |name: &str, meaning: Meaning| {
        let name = bare(name);
        name == meaning.name() || meaning.others().contains(&name.as_str())
    };
    for says in [&exact as &dyn Fn(&str, Meaning) -> bool, &loose] {
        for meaning in Meaning::ALL {
            let named = |at: &usize| found[*at].is_none() && says(&inputs[*at].name, meaning);
            if !found.contains(&Some(meaning))
                && let Some(at) = (0..inputs.len()).find(named)
            {
                found[at] = Some(meaning);
            }
        }
    }
    let unknown: Vec<usize> =
        (0..inputs.len()).filter(|&at| found[at].is_none() && !inputs[at].optional).collect();
    // Most graphs have names that tell.
    let lookup = if unknown.is_empty() { Lookup::default() } else { Lookup::of(model) };
    let uses: Vec<Option<Meaning>> =
        unknown.iter().map(|&at| by_use(&lookup, &inputs[at].name, tables)).collect();
    for (&at, meaning) in unknown.iter().zip(&uses) {
        // Two of one use are none.
        let is_alone = uses.iter().filter(|other| *other == meaning).count() == 1;
        if is_alone && meaning.is_some() && !found.contains(meaning) {
            found[at] = *meaning;
        }
    }
    Ok(found)
}

/// A name without what TensorFlow puts around it: `serving_default_input_ids:0`.
fn bare(name: &str) -> String {
    let name = name.to_lowercase();
    let name = name.rsplit('/').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((before, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => before,
        _ => name,
    };
    name.strip_prefix("serving_default_").unwrap_or(name).to_string()
}

/// By the table that an input looks rows up in; one that looks nothing up is a mask.
fn by_use(lookup: &Lookup, input: &str, tables: Tables) -> Option<Meaning> {
    match lookup.rows(input) {
        Some(rows) if rows == tables.vocabulary => Some(Meaning::Ids),
        Some(rows) if rows == tables.token_types => Some(Meaning::Types),
        Some(_) => Some(Meaning::Positions),
        None => (!lookup.is_by(input)).then_some(Meaning::Mask),
    }
}
