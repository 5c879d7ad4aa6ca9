use super::{Kernel, SUMS, Simd, dispatch, total};
use crate::Isa;

/// Loads and stores the first `count` numbers of what is given, and counts how many of its neighbours changed.
struct Copy<'a> {
    from: &'a [f32],
    to: &'a mut [f32],
}

impl Kernel for Copy<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut at = 0;
        while at < self.from.len() {
            // SAFETY: what is left of either slice bounds the count.
            unsafe {
                let left = self.from.len() - at;
                S::store_first(
                    self.to.as_mut_ptr().add(at),
                    S::load_first(self.from.as_ptr().add(at), left),
                    left,
                );
            }
            at += S::LANES;
        }
    }
}

#[test]
fn the_first_few_and_no_more() {
    let from: Vec<f32> = (1..=40).map(|i| i as f32).collect();
    for &isa in Isa::available() {
        for count in 0..=40 {
            let mut to = vec![-1.0; 60];
            // SAFETY: the CPU offers `isa`.
            unsafe { dispatch(isa, Copy { from: &from[..count], to: &mut to }) };
            assert_eq!(to[..count], from[..count]);
            assert!(to[count..].iter().all(|&x| x == -1.0), "{count} on {isa:?}");
        }
    }
}

#[test]
fn a_total_is_the_sum() {
    assert_eq!(total(std::array::from_fn::<f32, SUMS, _>(|i| i as f32)), 120.0);
}
