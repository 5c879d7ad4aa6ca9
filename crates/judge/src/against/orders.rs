//! How two graphs may hold the same numbers: their axes in another order, some of them split, joined, or of size 1.

use crate::blame::layout::Layout;

/// Values of more axes are only compared as they lie.
const MOST_AXES: usize = 4;

/// The ways in which a value of shape `second` may hold the elements of one of shape `first`: as they lie; with the axes of either in any order,
/// read row by row. Each once, and the likeliest first. Heads that are split off `[batch, sequence, width]` and moved forward are among them.
pub(super) fn orders(first: &[usize], second: &[usize]) -> Vec<Layout> {
    let elements: usize = first.iter().product();
    if elements == 0 || elements != second.iter().product::<usize>() {
        return Vec::new();
    }
    let mut orders = vec![Layout::new((0..elements).collect())];
    let mut add = |places: Vec<usize>| {
        let order = Layout::new(places);
        if !orders.contains(&order) {
            orders.push(order);
        }
    };
    for axes in permutations(second.len()) {
        add(read(second, &axes));
    }
    for axes in permutations(first.len()) {
        let mut places = vec![0; elements];
        for (at, from) in read(first, &axes).into_iter().enumerate() {
            places[from] = at;
        }
        add(places);
    }
    orders
}

/// Every order of so many axes; none of too many.
fn permutations(axes: usize) -> Vec<Vec<usize>> {
    if axes > MOST_AXES {
        return Vec::new();
    }
    let mut all = vec![Vec::new()];
    for axis in 0..axes {
        let with = |order: Vec<usize>| {
            (0..=order.len()).map(move |at| {
                let mut longer = order.clone();
                longer.insert(at, axis);
                longer
            })
        };
        all = all.into_iter().flat_map(with).collect();
    }
    all
}

/// The places of a value's elements, read row by row with its axes in that order.
fn read(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    let mut places = vec![0];
    for &axis in axes {
        let stride: usize = shape[axis + 1..].iter().product();
        places =
            places.iter().flat_map(|place| (0..shape[axis]).map(move |at| place + at * stride)).collect();
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_moved_forward_are_among_them() {
        // [batch 2, sequence 3, width 4] as [batch, 2 heads, sequence, 2].
        let first: Vec<f64> = (0..24).map(f64::from).collect();
        let mut second = vec![0.0; 24];
        for (place, element) in second.iter_mut().enumerate() {
            let (b, h, s, d) = (place / 12, place / 6 % 2, place / 2 % 3, place % 2);
            *element = ((b * 3 + s) * 4 + h * 2 + d) as f64;
        }
        for (a, b, shapes) in [
            (&first, &second, [&[2, 3, 4][..], &[2, 2, 3, 2]]),
            (&second, &first, [&[2, 2, 3, 2], &[2, 3, 4]]),
        ] {
            let found = orders(shapes[0], shapes[1]);
            let order = found.iter().find(|order| order.elements(b).eq(a.iter().copied()));
            assert_eq!(&order.unwrap().scatter(a, b), b);
        }
    }

    #[test]
    fn what_is_scattered_is_read_again() {
        let first: Vec<f64> = (0..24).map(f64::from).collect();
        for shape in [&[24][..], &[4, 6], &[2, 3, 4], &[1, 4, 6, 1], &[2, 1, 3, 2, 2]] {
            let found = orders(&[2, 3, 4], shape);
            assert_eq!(found[0].scatter(&first, &first), first, "{shape:?}");
            for order in found {
                assert!(
                    order.elements(&order.scatter(&first, &first)).eq(first.iter().copied()),
                    "{shape:?}"
                );
            }
        }
        assert!(orders(&[2, 3], &[5]).is_empty());
        assert!(orders(&[0, 3], &[0]).is_empty());
        assert_eq!(orders(&[], &[1]).len(), 1);
    }
}
