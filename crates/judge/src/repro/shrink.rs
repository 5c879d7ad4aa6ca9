//! The smallest input that still shows a fault.

use crate::inputs::grid::Grid;
use crate::inputs::{Case, FixedShape};

/// Makes a failing input smaller and plainer, as long as it fails: fewer rows, then fewer tokens, then one id in place of many, no padding, no
/// second token type.
///
/// `fails` says whether an input still shows the fault; it is called at most `budget` times, and never with the input as it was given or one
/// without any real token, which shows nothing. What a graph fixes of its shape is kept. The result is the same in every run if `fails` is, and is the given input where nothing smaller fails, or
/// where its inputs are not all int64 of one shape `[batch, sequence]`.
pub fn shrink(case: &Case, fixed: FixedShape, mut fails: impl FnMut(&Case) -> bool, budget: usize) -> Case {
    let Some(grid) = Grid::of(&case.inputs) else { return case.clone() };
    let name = format!("{}, shrunk", case.name);
    let as_case = |grid: &Grid| Some(Case { name: name.clone(), inputs: grid.to_inputs().ok()? });
    let mut search = Search {
        best: grid.clone(),
        budget,
        fails: |grid: &Grid| as_case(grid).is_some_and(|case| fails(&case)),
    };
    // What one step leaves may give another one room: a row without its padding, a row that is now like its neighbour.
    loop {
        let before = search.best.clone();
        if fixed.batch.is_none() {
            search.drop_rows();
        }
        if fixed.sequence.is_none() {
            search.drop_tokens();
        }
        search.one_id();
        search.set("attention_mask", 1);
        search.set("token_type_ids", 0);
        if search.best == before || search.budget == 0 {
            break;
        }
    }
    let best = search.best;
    if best == grid { case.clone() } else { as_case(&best).unwrap_or_else(|| case.clone()) }
}

struct Search<F> {
    best: Grid,
    budget: usize,
    fails: F,
}

impl<F: FnMut(&Grid) -> bool> Search<F> {
    /// Takes a candidate if it is another than the best, and fails as well.
    fn takes(&mut self, candidate: Grid) -> bool {
        if self.budget == 0 || candidate == self.best || !has_real_token(&candidate) {
            return false;
        }
        self.budget -= 1;
        let takes = (self.fails)(&candidate);
        if takes {
            self.best = candidate;
        }
        takes
    }

    /// Leaves out as many rows at once as it can: halves of them first, single ones at last, from the end to the start.
    fn drop_rows(&mut self) {
        let mut size = self.best.batch() / 2;
        while size > 0 {
            let mut end = self.best.batch();
            while end > 0 && self.best.batch() > 1 {
                let start = end.saturating_sub(size);
                let mut rows = self.best.rows.clone();
                rows.drain(start..end);
                if !rows.is_empty() {
                    let candidate = self.best.with_rows(rows);
                    self.takes(candidate);
                }
                end = start;
            }
            size /= 2;
        }
    }

    /// Leaves out tokens of all rows: halves of what is left from the end, then from the start, and less where that is too much.
    fn drop_tokens(&mut self) {
        let mut size = self.best.sequence() / 2;
        while size > 0 {
            let length = self.best.sequence();
            let left = length.saturating_sub(size);
            let took = left > 0
                && (self.takes(self.best.at_positions(&Vec::from_iter(0..left)))
                    || self.takes(self.best.at_positions(&Vec::from_iter(size..length))));
            if !took {
                size /= 2;
            } else {
                size = size.min(self.best.sequence() / 2).max(usize::from(self.best.sequence() > 1));
            }
        }
    }

    /// The first id everywhere, or in as many places as it can.
    fn one_id(&mut self) {
        if let Some(input) = self.best.input("input_ids") {
            self.set("input_ids", self.best.rows[0][input][0]);
        }
    }

    /// One value for all tokens of an input; else for all of a row; else for a token.
    fn set(&mut self, input: &str, value: i64) {
        let Some(input) = self.best.input(input) else { return };
        let mut all = self.best.clone();
        all.rows.iter_mut().for_each(|row| row[input].fill(value));
        if all == self.best || self.takes(all) {
            return;
        }
        for row in 0..self.best.batch() {
            let mut whole = self.best.clone();
            whole.rows[row][input].fill(value);
            if whole == self.best || self.takes(whole) {
                continue;
            }
            for at in 0..self.best.sequence() {
                let mut one = self.best.clone();
                one.rows[row][input][at] = value;
                self.takes(one);
            }
        }
    }
}

/// Whether something decides in these inputs.
fn has_real_token(grid: &Grid) -> bool {
    grid.input("attention_mask").is_none_or(|mask| grid.rows.iter().any(|row| row[mask].contains(&1)))
}

#[cfg(test)]
mod tests {
    use engine::{NamedValues, Value};

    use super::*;

    /// More than any of these searches needs.
    const PLENTY: usize = 10_000;

    /// 4×16 ids 0, 1, 2, …; the second half of every row masked; types 0, 1, 0, 1, ….
    fn case() -> Case {
        let value = |of: fn(i64) -> i64| Value::new([4, 16], (0..64).map(of).collect::<Vec<i64>>()).unwrap();
        let inputs = NamedValues::from_iter([
            ("input_ids", value(|at| at)),
            ("attention_mask", value(|at| i64::from(at % 16 < 8))),
            ("token_type_ids", value(|at| at % 2)),
        ]);
        Case { name: "case".into(), inputs }
    }

    fn get<'a>(case: &'a Case, input: &str) -> &'a [i64] {
        case.inputs.get(input).unwrap().as_slice().unwrap()
    }

    fn shape(case: &Case) -> &[usize] {
        case.inputs.get("input_ids").unwrap().shape()
    }

    #[test]
    fn what_fails_always_is_one_plain_token() {
        let shrunk = shrink(&case(), FixedShape::default(), |_| true, PLENTY);
        assert_eq!((shape(&shrunk), shrunk.name.as_str()), (&[1, 1][..], "case, shrunk"));
        assert_eq!(["attention_mask", "token_type_ids"].map(|input| get(&shrunk, input)[0]), [1, 0]);
    }

    #[test]
    fn what_the_fault_needs_is_kept() {
        // One id, in whatever row and place.
        let shrunk =
            shrink(&case(), FixedShape::default(), |case| get(case, "input_ids").contains(&37), PLENTY);
        assert_eq!(get(&shrunk, "input_ids"), [37]);
        // A length.
        let shrunk = shrink(&case(), FixedShape::default(), |case| shape(case)[1] >= 5, PLENTY);
        assert_eq!(shape(&shrunk), [1, 5]);
        let ids = get(&shrunk, "input_ids");
        assert!(ids.iter().all(|id| *id == ids[0]));
        // Two rows, with a masked token somewhere.
        let masked = |case: &Case| shape(case)[0] >= 2 && get(case, "attention_mask").contains(&0);
        let shrunk = shrink(&case(), FixedShape::default(), masked, PLENTY);
        assert_eq!(shape(&shrunk), [2, 1]);
        assert_eq!(get(&shrunk, "attention_mask").iter().filter(|&&bit| bit == 0).count(), 1);
        assert_eq!(get(&shrunk, "token_type_ids"), [0, 0]);
        // A mask alone shows nothing: one token stays real.
        let masked = |case: &Case| get(case, "attention_mask").contains(&0);
        let shrunk = shrink(&case(), FixedShape::default(), masked, PLENTY);
        assert_eq!(get(&shrunk, "attention_mask"), [1, 0]);
        // A token type.
        let typed = |case: &Case| get(case, "token_type_ids").contains(&1);
        assert_eq!(get(&shrink(&case(), FixedShape::default(), typed, PLENTY), "token_type_ids"), [1]);
    }

    #[test]
    fn what_a_graph_fixes_is_kept() {
        for (batch, sequence) in [(Some(4), Some(16)), (Some(4), None), (None, Some(16))] {
            let shrunk = shrink(&case(), FixedShape { batch, sequence }, |_| true, PLENTY);
            assert_eq!(shape(&shrunk), [batch.unwrap_or(1), sequence.unwrap_or(1)]);
            assert!(get(&shrunk, "input_ids").iter().all(|id| *id == get(&shrunk, "input_ids")[0]));
            assert!(get(&shrunk, "attention_mask").iter().all(|&bit| bit == 1));
        }
    }

    #[test]
    fn the_budget_bounds_the_calls() {
        for budget in [0, 1, 7, 30] {
            let mut calls = 0;
            let fails = |case: &Case| {
                calls += 1;
                get(case, "input_ids").contains(&37) && shape(case)[1] >= 3
            };
            let shrunk = shrink(&case(), FixedShape::default(), fails, budget);
            assert!(calls <= budget, "{calls} of {budget}");
            assert!(get(&shrunk, "input_ids").contains(&37));
        }
        // Without a limit it ends by itself, well before a call for each subset.
        let mut calls = 0;
        shrink(
            &case(),
            FixedShape::default(),
            |case| {
                calls += 1;
                get(case, "input_ids").contains(&37)
            },
            PLENTY,
        );
        assert!(calls < 200, "{calls}");
    }

    #[test]
    fn nothing_smaller_that_fails_leaves_the_input_as_it_was() {
        let shrunk = shrink(&case(), FixedShape::default(), |_| false, PLENTY);
        assert_eq!((shrunk.name.as_str(), &shrunk.inputs), ("case", &case().inputs));
        let mut choices = case();
        choices.inputs.insert("input_ids", Value::new([1, 1, 1], vec![5i64]).unwrap());
        assert_eq!(shrink(&choices, FixedShape::default(), |_| true, PLENTY).inputs, choices.inputs);
    }

    #[test]
    fn two_runs_shrink_alike() {
        let fails = |case: &Case| get(case, "input_ids").iter().filter(|id| **id % 7 == 3).count() >= 2;
        let [a, b] = [0, 1].map(|_| shrink(&case(), FixedShape::default(), fails, PLENTY));
        assert_eq!(a.inputs, b.inputs);
        assert!(get(&a, "input_ids").len() < 8);
    }
}
