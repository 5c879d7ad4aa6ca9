//! The ways in which a tensor of the checkpoint can lie in one of the graph.

use super::Layout;
use super::carriers::Carrier;
use super::data::Placement;
use super::weights::Weight;

/// As many tensors as exporters and optimizers join: query, key and value.
const MOST_JOINED: usize = 3;

/// Every way in which the weight could lie in that tensor, judged by shapes alone.
pub(super) fn layouts(weight: &Weight, carrier: &Carrier) -> Vec<(Layout, Placement)> {
    let (rows, columns) = (weight.rows, weight.columns);
    let (size, held) = (rows * columns, carrier.elements.len());
    // A decoder is multiplied with; where rows are looked up, it is the table.
    if size == 0 || held < columns || weight.tied && !carrier.multiplied {
        return Vec::new();
    }
    let dims = carrier.dims();
    let place = |offset, row_step, column_step| Placement {
        first_row: 0,
        rows,
        columns,
        offset,
        row_step,
        column_step,
    };
    let part = |part, of, transposed| Layout::Part { part, of, transposed };
    let mut found = Vec::new();
    if held == size {
        let as_it_is = dims == [rows, columns] || dims.len() != 2 || rows == 1;
        if as_it_is {
            found.push((Layout::Same, place(0, columns, 1)));
        }
        if rows > 1 && columns > 1 && (dims == [columns, rows] || dims.len() > 2) {
            found.push((Layout::Transposed, place(0, 1, rows)));
        }
    } else if held.is_multiple_of(size) && held / size <= MOST_JOINED {
        let of = held / size;
        for at in 0..of {
            // Along an axis of their own, along rows, along columns.
            let outermost = rows == 1 || dims == [of * rows, columns] || dims == [of, rows, columns];
            if outermost {
                found.push((part(at, of, false), place(at * size, columns, 1)));
            }
            if rows == 1 {
                continue;
            }
            if dims == [of * columns, rows] || dims == [of, columns, rows] {
                found.push((part(at, of, true), place(at * size, 1, rows)));
            }
            if dims == [rows, of * columns] {
                found.push((part(at, of, false), place(at * columns, of * columns, 1)));
            }
            if dims == [columns, of * rows] {
                found.push((part(at, of, true), place(at * rows, 1, of * rows)));
            }
        }
    }
    if weight.is_partial_table()
        && held < size
        && held.is_multiple_of(columns)
        && dims.last() == Some(&columns)
    {
        let taken = held / columns;
        for first in 0..=rows - taken {
            let rows = Placement { first_row: first, rows: taken, ..place(0, columns, 1) };
            found.push((Layout::Rows { first, last: first + taken - 1 }, rows));
        }
    }
    found
}
