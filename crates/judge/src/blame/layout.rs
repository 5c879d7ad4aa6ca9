//! How a graph may hold the values of another side: the same numbers in another order or shape.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Where in a graph's value each element of another side's is. Cloning shares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout(Rc<[usize]>);

impl Layout {
    pub fn new(places: Vec<usize>) -> Self {
        Self(places.into())
    }

    /// Whether the elements are in the other's own order, and nothing else is there.
    pub fn is_plain(&self) -> bool {
        self.0.iter().enumerate().all(|(index, &at)| index == at)
    }

    /// The elements in the other's order. The value must be of the shape that the layout was made
    /// for.
    pub fn gather(&self, value: &[f64]) -> Vec<f64> {
        self.elements(value).collect()
    }

    /// The elements in the other's order, one by one.
    pub fn elements<'a>(&'a self, value: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        self.0.iter().map(|&at| value.get(at).copied().unwrap_or(f64::NAN))
    }

    /// The value with the other's elements in it; what the layout does not cover stays.
    pub fn scatter(&self, elements: &[f64], value: &[f64]) -> Vec<f64> {
        let mut changed = value.to_vec();
        for (&at, &element) in self.0.iter().zip(elements) {
            if let Some(place) = changed.get_mut(at) {
                *place = element;
            }
        }
        changed
    }
}

/// Makes the layouts that two shapes allow, the other side's first.
type Make<'a> = dyn Fn(&[usize], &[usize]) -> Vec<Layout> + 'a;

/// The shapes of both sides.
type Shapes = [Vec<usize>; 2];

/// The layouts that two shapes allow, each pair made once.
pub(crate) struct Layouts<'a> {
    make: &'a Make<'a>,
    made: RefCell<HashMap<Shapes, Rc<[Layout]>>>,
}

impl<'a> Layouts<'a> {
    pub fn new(make: &'a Make<'a>) -> Self {
        Self { make, made: RefCell::default() }
    }

    pub fn of(&self, other: &[usize], found: &[usize]) -> Rc<[Layout]> {
        let make = || (self.make)(other, found).into();
        let shapes = [other.to_vec(), found.to_vec()];
        self.made.borrow_mut().entry(shapes).or_insert_with(make).clone()
    }
}

/// The ways in which a value of shape `found` may hold a module's output of shape `[batch, sequence, width]` or `[batch, width]`.
///
/// Apart from the same order under any shape: heads split and moved forward, keys transposed, batch and sequence exchanged, a third of a fused
/// projection, and one that all rows or all positions share.
pub(crate) fn layouts(tap: &[usize], found: &[usize], heads: usize) -> Vec<Layout> {
    let (elements, total) = (tap.iter().product::<usize>(), found.iter().product::<usize>());
    if elements == 0 || total == 0 {
        return Vec::new();
    }
    let &[batch, sequence, width] = tap else {
        let same = elements == total;
        return if same { vec![Layout((0..elements).collect())] } else { Vec::new() };
    };
    let all = |at: &dyn Fn(usize, usize, usize) -> usize| {
        let mut places = Vec::with_capacity(elements);
        for b in 0..batch {
            for s in 0..sequence {
                places.extend((0..width).map(|w| at(b, s, w)));
            }
        }
        Layout(places.into())
    };
    let mut layouts = Vec::new();
    if total == elements {
        layouts.push(Layout((0..elements).collect()));
        if width % heads.max(1) == 0 && heads > 1 {
            let size = width / heads;
            let tail = |n: usize| &found[found.len().saturating_sub(n)..];
            if tail(2) == [sequence, size] {
                layouts.push(all(&|b, s, w| ((b * heads + w / size) * sequence + s) * size + w % size));
            }
            if tail(2) == [size, sequence] {
                layouts.push(all(&|b, s, w| ((b * heads + w / size) * size + w % size) * sequence + s));
            }
        }
        if found == [sequence, batch, width] && batch > 1 {
            layouts.push(all(&|b, s, w| (s * batch + b) * width + w));
        }
        if found == [batch, width, sequence] {
            layouts.push(all(&|b, s, w| (b * width + w) * sequence + s));
        }
    } else if total == 3 * elements && found.last() == Some(&(3 * width)) {
        layouts.extend((0..3).map(|part| all(&|b, s, w| ((b * sequence + s) * 3 + part) * width + w)));
    } else if total == sequence * width && found.last() == Some(&width) {
        layouts.push(all(&|_, s, w| s * width + w));
    } else if total == width && found.last() == Some(&width) {
        layouts.push(all(&|_, _, w| w));
    }
    layouts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tap of [2, 3, 4] whose elements are their own places.
    fn tap() -> Vec<f64> {
        (0..24).map(f64::from).collect()
    }

    #[test]
    fn heads_that_moved_forward_are_seen() {
        // [batch, heads, sequence, size] of two heads.
        let mut moved = vec![0.0; 24];
        for (place, element) in moved.iter_mut().enumerate() {
            let (b, h, s, d) = (place / 12, place / 6 % 2, place / 2 % 3, place % 2);
            *element = ((b * 3 + s) * 4 + h * 2 + d) as f64;
        }
        let found = layouts(&[2, 3, 4], &[2, 2, 3, 2], 2);
        assert!(found.iter().any(|layout| layout.gather(&moved) == tap()));
    }

    #[test]
    fn what_is_scattered_is_gathered_again() {
        for shape in
            [&[2, 3, 4][..], &[6, 4], &[2, 2, 3, 2], &[2, 2, 2, 3], &[3, 2, 4], &[2, 4, 3], &[2, 3, 12]]
        {
            let found = layouts(&[2, 3, 4], shape, 2);
            assert!(!found.is_empty(), "{shape:?}");
            let empty = vec![-1.0; shape.iter().product()];
            for layout in found {
                assert_eq!(layout.gather(&layout.scatter(&tap(), &empty)), tap(), "{shape:?}");
            }
        }
    }

    #[test]
    fn what_all_rows_share_is_seen() {
        let shared = layouts(&[2, 3, 4], &[1, 3, 4], 2);
        assert_eq!(shared[0].gather(&tap()[..12])[12..], tap()[..12]);
        assert_eq!(layouts(&[2, 3, 4], &[4], 2).len(), 1);
        assert!(layouts(&[2, 3, 4], &[5], 2).is_empty());
        assert!(layouts(&[2, 3, 4], &[0, 4], 2).is_empty());
    }
}
