//! The inputs of a case as rows of tokens, so that rows and tokens can be dropped, added and exchanged.

use engine::{NamedValues, Value, ValueError};

/// Inputs of one shape `[batch, sequence]`, all i64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grid {
    names: Vec<String>,
    /// By row, then by input, then by position.
    pub(crate) rows: Vec<Vec<Vec<i64>>>,
}

impl Grid {
    /// The rows of these inputs; nothing unless all are i64 and of one shape `[batch, sequence]` with at least one token.
    pub(crate) fn of(inputs: &NamedValues) -> Option<Self> {
        let shape = inputs.iter().next()?.1.shape();
        let &[batch, sequence] = shape else { return None };
        if batch == 0 || sequence == 0 || inputs.iter().any(|(_, value)| value.shape() != shape) {
            return None;
        }
        let columns: Vec<&[i64]> =
            inputs.iter().map(|(_, value)| value.as_slice().ok()).collect::<Option<_>>()?;
        let row = |row: usize| {
            columns.iter().map(move |data| data.iter().skip(row * sequence).take(sequence).copied().collect())
        };
        Some(Self {
            names: inputs.names().map(String::from).collect(),
            rows: (0..batch).map(|index| row(index).collect()).collect(),
        })
    }

    /// The inputs that these rows are.
    pub(crate) fn to_inputs(&self) -> Result<NamedValues, ValueError> {
        let shape = [self.batch(), self.sequence()];
        let value = |input: usize| {
            let data: Vec<i64> = self.rows.iter().flat_map(|row| row[input].iter().copied()).collect();
            Value::new(shape, data)
        };
        (0..self.names.len()).map(|input| Ok((self.names[input].clone(), value(input)?))).collect()
    }

    pub(crate) fn batch(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn sequence(&self) -> usize {
        self.rows.first().and_then(|row| row.first()).map_or(0, Vec::len)
    }

    /// At which place of a row the input of that name stands.
    pub(crate) fn input(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// The same inputs with other rows.
    pub(crate) fn with_rows(&self, rows: Vec<Vec<Vec<i64>>>) -> Self {
        Self { names: self.names.clone(), rows }
    }

    /// The same inputs at some of their positions, in the order given.
    pub(crate) fn at_positions(&self, positions: &[usize]) -> Self {
        let pick = |tokens: &Vec<i64>| positions.iter().filter_map(|&at| tokens.get(at).copied()).collect();
        self.with_rows(self.rows.iter().map(|row| row.iter().map(pick).collect()).collect())
    }

    /// The same inputs with more positions at the end of every row, filled with what `fill` gives for the input at that place.
    pub(crate) fn padded(&self, more: usize, fill: impl Fn(usize) -> i64) -> Self {
        let mut padded = self.clone();
        for row in &mut padded.rows {
            for (input, tokens) in row.iter_mut().enumerate() {
                tokens.resize(tokens.len() + more, fill(input));
            }
        }
        padded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(names: &[&str], shape: [usize; 2]) -> NamedValues {
        let data: Vec<i64> = (0..).take(shape[0] * shape[1]).collect();
        names.iter().map(|&name| (name, Value::new(shape, data.as_slice()).unwrap())).collect()
    }

    #[test]
    fn inputs_round_trip() {
        let inputs = inputs(&["a", "b"], [2, 3]);
        let grid = Grid::of(&inputs).unwrap();
        assert_eq!((grid.batch(), grid.sequence(), grid.input("b")), (2, 3, Some(1)));
        assert_eq!(grid.to_inputs().unwrap(), inputs);
    }

    #[test]
    fn rows_and_positions_are_picked_and_added() {
        let grid = Grid::of(&inputs(&["a"], [2, 3])).unwrap();
        assert_eq!(grid.at_positions(&[2, 0]).rows, [[[2, 0]], [[5, 3]]]);
        assert_eq!(grid.padded(1, |_| 9).rows, [[[0, 1, 2, 9]], [[3, 4, 5, 9]]]);
    }

    #[test]
    fn what_is_no_grid_is_none() {
        assert_eq!(Grid::of(&NamedValues::new()), None);
        assert_eq!(Grid::of(&inputs(&["a"], [0, 3])), None);
        let mut unlike = inputs(&["a"], [2, 3]);
        unlike.insert("b", Value::new([3, 2], vec![0i64; 6]).unwrap());
        assert_eq!(Grid::of(&unlike), None);
        let choices = NamedValues::from_iter([("a", Value::new([1, 1, 2], vec![0i64; 2]).unwrap())]);
        assert_eq!(Grid::of(&choices), None);
        let narrow = NamedValues::from_iter([("a", Value::new([1, 2], vec![0i32; 2]).unwrap())]);
        assert_eq!(Grid::of(&narrow), None);
    }
}
