//! Sizes that are known before anything runs, as far as they are: a number times the sizes of some inputs' dimensions.

use onnx_graph::shape::{self, Size};

/// The size of an input's dimension, known only in a run: its place among the graph's symbols.
pub type Symbol = usize;

/// A product of a number and symbols: `2`, `batch`, `12·batch·sequence`.
///
/// Sums have no place here: where one would be needed, the size counts as unknown, and what depends on it is computed in the general way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dim {
    factor: usize,
    /// In ascending order; a square is a symbol twice.
    symbols: Vec<Symbol>,
}

impl Dim {
    /// The size of an input's dimension.
    pub fn symbol(symbol: Symbol) -> Self {
        Self { factor: 1, symbols: vec![symbol] }
    }

    /// The number that it is a multiple of, whatever the symbols are.
    pub fn factor(&self) -> usize {
        self.factor
    }

    /// The symbol, if it is nothing else.
    pub fn as_symbol(&self) -> Option<Symbol> {
        (self.factor == 1 && self.symbols.len() == 1).then(|| self.symbols[0])
    }

    /// The size, given the symbols'; `None` if it overflows.
    pub fn size(&self, symbols: &[usize]) -> Option<usize> {
        self.symbols.iter().try_fold(self.factor, |size, &symbol| size.checked_mul(*symbols.get(symbol)?))
    }
}

/// What holds of it holds whatever the symbols are.
impl Size for Dim {
    fn fixed(factor: usize) -> Self {
        Self { factor, symbols: Vec::new() }
    }

    fn known(&self) -> Option<usize> {
        (self.symbols.is_empty() || self.factor == 0).then_some(self.factor)
    }

    fn times(&self, other: &Self) -> Option<Self> {
        let factor = self.factor.checked_mul(other.factor)?;
        let mut symbols = [&self.symbols[..], &other.symbols[..]].concat();
        symbols.sort_unstable();
        Some(Self { factor, symbols })
    }

    fn plus(&self, other: &Self) -> Option<Self> {
        self.known()?.checked_add(other.known()?).map(Self::fixed)
    }

    fn divided(&self, other: &Self) -> Option<Self> {
        let factor = self.factor.divided(&other.factor)?;
        let mut symbols = self.symbols.clone();
        for symbol in &other.symbols {
            let place = symbols.iter().position(|own| own == symbol)?;
            symbols.remove(place);
        }
        Some(Self { factor, symbols })
    }
}

/// An element of a shape that the graph computes with.
pub type Int = shape::Int<Dim>;

#[cfg(test)]
mod tests {
    use onnx_graph::shape::{broadcast, volume};

    use super::*;

    const BATCH: Symbol = 0;
    const SEQUENCE: Symbol = 1;

    #[test]
    fn sizes_multiply_and_divide() {
        let rows = Dim::symbol(SEQUENCE).times(&Dim::symbol(BATCH)).unwrap();
        let all = volume(&[Dim::symbol(BATCH), Dim::symbol(SEQUENCE), Dim::fixed(384)]).unwrap();
        assert_eq!(all.divided(&rows), Some(Dim::fixed(384)));
        assert_eq!(all.divided(&Dim::fixed(5)), None);
        assert_eq!(rows.divided(&all), None);
        assert_eq!(all.divided(&Dim::fixed(0)), None);
        assert_eq!(all.size(&[2, 3]), Some(2 * 3 * 384));
        assert_eq!(all.size(&[usize::MAX, 2]), None);
        assert_eq!(Dim::fixed(usize::MAX).times(&Dim::fixed(2)), None);
    }

    #[test]
    fn only_what_always_fits_is_broadcast() {
        let (b, s, one) = (Dim::symbol(BATCH), Dim::symbol(SEQUENCE), Dim::fixed(1));
        let (rows, keys) = (vec![b.clone(), one], vec![s.clone()]);
        assert_eq!(broadcast(&rows, &keys), Some(vec![b.clone(), s]));
        let batch = vec![b];
        assert_eq!(broadcast(&batch, &keys), None);
        assert_eq!(broadcast(&[], &batch), Some(batch));
    }
}
