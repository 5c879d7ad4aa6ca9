//! What an input means: as it was said, by its name, or by what the graph does with it.

use std::collections::BTreeMap;

use onnx_graph::{Model, Node};

use super::{InputError, Tables};

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
        found[at] = Some(meaning);
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
    let uses: Vec<Option<Meaning>> =
        unknown.iter().map(|&at| by_use(model, &inputs[at].name, tables)).collect();
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
fn by_use(model: &Model, input: &str, tables: Tables) -> Option<Meaning> {
    let mut names = vec![input];
    let mut looked_up = None;
    for node in &model.graph.nodes {
        let Some(place) = node.inputs.iter().position(|name| names.contains(&name.as_str())) else {
            continue;
        };
        match (node.op.as_str(), place) {
            // Its values go on as they are, or some of them.
            ("Cast" | "Identity" | "Reshape" | "Unsqueeze" | "Squeeze" | "Expand" | "Slice", 0) => {
                names.extend(node.outputs.iter().map(String::as_str));
            }
            ("Gather", 1) => looked_up = looked_up.or(Some(meaning_of_table(model, node, tables)?)),
            ("EmbedLayerNormalization", 0) => return Some(Meaning::Ids),
            ("EmbedLayerNormalization", 1) => return Some(Meaning::Types),
            ("EmbedLayerNormalization", 8) => return Some(Meaning::Positions),
            _ => {}
        }
    }
    Some(looked_up.unwrap_or(Meaning::Mask))
}

/// What the rows of the table stand for that a Gather reads.
fn meaning_of_table(model: &Model, gather: &Node, tables: Tables) -> Option<Meaning> {
    let mut name = gather.inputs.first()?;
    let rows = loop {
        if let Some(tensor) = model.graph.initializers.get(name) {
            break *tensor.shape.first()?;
        }
        // A table in another precision.
        let before = model.graph.nodes.iter().find(|node| node.outputs.first() == Some(name))?;
        name = before
            .inputs
            .first()
            .filter(|_| matches!(before.op.as_str(), "Cast" | "Identity" | "DequantizeLinear"))?;
    };
    Some(match rows {
        rows if rows == tables.vocabulary => Meaning::Ids,
        rows if rows == tables.token_types => Meaning::Types,
        _ => Meaning::Positions,
    })
}
