//! What a peer is given and what it gives back, in no peer's own form.

use anyhow::ensure;

/// Texts as token ids, padded on the right to the longest.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// How many texts.
    pub rows: usize,
    /// The length of the longest.
    pub width: usize,
    /// Each text's length.
    pub lengths: Vec<usize>,
    /// `[rows, width]`, 0 where padded.
    pub ids: Vec<i64>,
    /// `[rows, width]`, 1 at real tokens.
    pub mask: Vec<i64>,
    /// `[rows, width]`, all 0.
    pub types: Vec<i64>,
}

/// The names that all graphs here have for [`Batch::inputs`].
pub const INPUT_NAMES: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

impl Batch {
    /// Pads these texts.
    pub fn new(texts: &[Vec<i64>]) -> Self {
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        let (rows, width) = (texts.len(), lengths.iter().copied().max().unwrap_or(0));
        let padded = |element: fn(i64) -> i64| {
            texts
                .iter()
                .flat_map(|text| {
                    (0..width).map(move |position| text.get(position).map_or(0, |&id| element(id)))
                })
                .collect()
        };
        Self { rows, width, ids: padded(|id| id), mask: padded(|_| 1), types: vec![0; rows * width], lengths }
    }

    /// The inputs in the order of [`INPUT_NAMES`].
    pub fn inputs(&self) -> [&[i64]; 3] {
        [&self.ids, &self.mask, &self.types]
    }

    /// The input of that name.
    pub fn input(&self, name: &str) -> anyhow::Result<&[i64]> {
        let place = INPUT_NAMES.iter().position(|known| *known == name);
        ensure!(place.is_some(), "the graph asks for an input '{name}', which is not one of BERT's");
        Ok(self.inputs()[place.unwrap_or_default()])
    }

    /// Real tokens, of `rows · width` positions.
    pub fn real_tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Whether there is padding.
    pub fn is_ragged(&self) -> bool {
        self.real_tokens() < self.rows * self.width
    }

    /// The texts sorted by length and cut into batches of at most `size`, each padded to its own longest; with the rows they were.
    pub fn sorted(&self, size: usize) -> Vec<(Vec<usize>, Batch)> {
        let mut rows: Vec<usize> = (0..self.rows).collect();
        rows.sort_by_key(|&row| self.lengths[row]);
        let text = |&row: &usize| self.ids[row * self.width..][..self.lengths[row]].to_vec();
        rows.chunks(size)
            .map(|group| (group.to_vec(), Self::new(&group.iter().map(text).collect::<Vec<_>>())))
            .collect()
    }
}

/// What a model computes for a [`Batch`].
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// `last_hidden_state`, `[rows, width, hidden size]`.
    pub hidden: Vec<f32>,
    /// `pooler_output`, `[rows, hidden size]`; candle-transformers' model has none.
    pub pooled: Option<Vec<f32>>,
}

impl Outputs {
    /// Puts the outputs of [`Batch::sorted`] back in order; 0 where nothing was computed.
    pub fn unsorted(batch: &Batch, parts: &[(&[usize], usize, Self)]) -> anyhow::Result<Self> {
        let computed: usize = parts.iter().map(|(rows, width, _)| rows.len() * width).sum();
        let elements: usize = parts.iter().map(|(.., part)| part.hidden.len()).sum();
        ensure!(
            computed > 0 && elements.is_multiple_of(computed),
            "{elements} elements are not {computed} hidden states"
        );
        let size = elements / computed;
        let mut hidden = vec![0.; batch.rows * batch.width * size];
        let mut pooled =
            parts.iter().all(|(.., part)| part.pooled.is_some()).then(|| vec![0.; batch.rows * size]);
        for (rows, width, part) in parts {
            let part_pooled = part.pooled.as_deref().unwrap_or_default();
            ensure!(
                part.hidden.len() == rows.len() * width * size,
                "a part's hidden states are of another size"
            );
            for (place, row) in rows.iter().enumerate() {
                let length = width * size;
                hidden[row * batch.width * size..][..length]
                    .copy_from_slice(&part.hidden[place * length..][..length]);
                if let Some(pooled) = &mut pooled {
                    ensure!(
                        part_pooled.len() == rows.len() * size,
                        "a part's pooler_output is of another size"
                    );
                    pooled[row * size..][..size].copy_from_slice(&part_pooled[place * size..][..size]);
                }
            }
        }
        Ok(Self { hidden, pooled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ragged() -> Batch {
        Batch::new(&[vec![7, 8, 9], vec![5], vec![3, 4]])
    }

    #[test]
    fn texts_are_padded_to_the_longest() {
        let batch = ragged();
        assert_eq!((batch.rows, batch.width, batch.real_tokens()), (3, 3, 6));
        assert_eq!(batch.ids, [7, 8, 9, 5, 0, 0, 3, 4, 0]);
        assert_eq!(batch.mask, [1, 1, 1, 1, 0, 0, 1, 1, 0]);
        assert!(batch.is_ragged());
        assert!(!Batch::new(&[vec![1, 2]]).is_ragged());
    }

    #[test]
    fn what_was_sorted_comes_back_in_order() {
        let batch = ragged();
        let groups = batch.sorted(2);
        assert_eq!(groups[0].0, [1, 2]);
        assert_eq!(groups[0].1.ids, [5, 0, 3, 4]);
        assert_eq!(groups[1].1.ids, [7, 8, 9]);
        // A model of hidden size 2 that gives each id, and its negative.
        let outputs: Vec<_> = groups
            .iter()
            .map(|(rows, part)| {
                let states = |ids: &[i64]| ids.iter().flat_map(|&id| [id as f32, -id as f32]).collect();
                let first: Vec<i64> = part.ids.chunks(part.width).map(|row| row[0]).collect();
                (&rows[..], part.width, Outputs { hidden: states(&part.ids), pooled: Some(states(&first)) })
            })
            .collect();
        let outputs = Outputs::unsorted(&batch, &outputs).unwrap();
        assert_eq!(
            outputs.hidden,
            [7., -7., 8., -8., 9., -9., 5., -5., 0., 0., 0., 0., 3., -3., 4., -4., 0., 0.]
        );
        assert_eq!(outputs.pooled.unwrap(), [7., -7., 5., -5., 3., -3.]);
    }
}
