//! Sizes that are known before anything runs, as far as they are: a number times the sizes of some inputs' dimensions.

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
    /// A size that is always the same.
    pub fn fixed(factor: usize) -> Self {
        Self { factor, symbols: Vec::new() }
    }

    /// The size of an input's dimension.
    pub fn symbol(symbol: Symbol) -> Self {
        Self { factor: 1, symbols: vec![symbol] }
    }

    /// The number, if no symbol is in it.
    pub fn known(&self) -> Option<usize> {
        (self.symbols.is_empty() || self.factor == 0).then_some(self.factor)
    }

    /// Whether it is always 1.
    pub fn is_one(&self) -> bool {
        self.known() == Some(1)
    }

    /// The symbol, if it is nothing else.
    pub fn as_symbol(&self) -> Option<Symbol> {
        (self.factor == 1 && self.symbols.len() == 1).then(|| self.symbols[0])
    }

    /// The product; `None` if it overflows.
    pub fn times(&self, other: &Self) -> Option<Self> {
        let factor = self.factor.checked_mul(other.factor)?;
        let mut symbols = [&self.symbols[..], &other.symbols[..]].concat();
        symbols.sort_unstable();
        Some(Self { factor, symbols })
    }

    /// The quotient, if it is a size whatever the symbols are.
    pub fn divided(&self, other: &Self) -> Option<Self> {
        if other.factor == 0 || !self.factor.is_multiple_of(other.factor) {
            return None;
        }
        let mut symbols = self.symbols.clone();
        for symbol in &other.symbols {
            let place = symbols.iter().position(|own| own == symbol)?;
            symbols.remove(place);
        }
        Some(Self { factor: self.factor / other.factor, symbols })
    }

    /// The size, given the symbols'; `None` if it overflows.
    pub fn size(&self, symbols: &[usize]) -> Option<usize> {
        self.symbols.iter().try_fold(self.factor, |size, &symbol| size.checked_mul(*symbols.get(symbol)?))
    }
}

/// The number of elements of a shape; `None` if it overflows.
pub fn product(dims: &[Dim]) -> Option<Dim> {
    dims.iter().try_fold(Dim::fixed(1), |product, dim| product.times(dim))
}

/// The shape that two can be broadcast to, if it is the same whatever the symbols are: sizes are aligned at the end, and are equal, or one of them
/// is 1.
pub fn broadcast(left: &[Dim], right: &[Dim]) -> Option<Vec<Dim>> {
    let rank = left.len().max(right.len());
    let at = |dims: &[Dim], axis: usize| {
        (axis + dims.len()).checked_sub(rank).map_or_else(|| Dim::fixed(1), |axis| dims[axis].clone())
    };
    (0..rank)
        .map(|axis| match (at(left, axis), at(right, axis)) {
            (a, b) if a == b => Some(a),
            (a, b) if a.is_one() => Some(b),
            (a, b) if b.is_one() => Some(a),
            _ => None,
        })
        .collect()
}

/// An element of a shape that the graph computes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Int {
    /// A number.
    Known(i64),
    /// A size with symbols in it.
    Size(Dim),
}

impl Int {
    /// A size, as the number that it may be.
    pub fn from_dim(dim: &Dim) -> Self {
        match dim.known().map(i64::try_from) {
            Some(Ok(number)) => Int::Known(number),
            _ => Int::Size(dim.clone()),
        }
    }

    /// As a size; `None` if it is negative.
    pub fn to_dim(&self) -> Option<Dim> {
        match self {
            Int::Known(number) => usize::try_from(*number).ok().map(Dim::fixed),
            Int::Size(dim) => Some(dim.clone()),
        }
    }

    /// The number, if it is one.
    pub fn known(&self) -> Option<i64> {
        match self {
            Int::Known(number) => Some(*number),
            Int::Size(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: Symbol = 0;
    const SEQUENCE: Symbol = 1;

    #[test]
    fn sizes_multiply_and_divide() {
        let rows = Dim::symbol(SEQUENCE).times(&Dim::symbol(BATCH)).unwrap();
        let all = product(&[Dim::symbol(BATCH), Dim::symbol(SEQUENCE), Dim::fixed(384)]).unwrap();
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
