//! Numbers to test with.

/// Numbers between −1 and 1, the same for the same seed.
pub(crate) fn numbers(len: usize, seed: u64) -> Vec<f32> {
    // Steele, Lea and Flood's SplitMix64.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..len).map(|_| (next() >> 40) as f32 / 8_388_608.0 - 1.0).collect()
}
