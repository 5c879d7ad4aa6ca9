//! No kernel allocates, on any thread. In a binary of its own, since the counter counts everything.
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use kernels::{Attention, Epilogue, Gather, KernelError, Kernels, KeyMask, Rows, RowsMut, Source, Unary};

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it is the system's allocator, which is asked for the same.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::SeqCst);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_kernel_allocates() -> Result<(), KernelError> {
    let (rows, hidden) = (256, 384);
    let x: Vec<f32> = (0..rows * 3 * hidden).map(|i| (i % 101) as f32 * 0.01).collect();
    let ids: Vec<i64> = (0..rows as i64).collect();
    let mut out = vec![0.0; rows * hidden];
    for threads in [1, 2, 3] {
        let kernels = Kernels::new(threads)?;
        let weight = kernels.pack(&[Source::new(&x, hidden, hidden)?])?;
        let mut scratch = vec![0.0; kernels.attention_scratch(32, 128)];
        let mut all = || {
            let a = Rows::new(&x, rows, hidden)?;
            let mut out = RowsMut::new(&mut out, rows, hidden)?;
            let gelu =
                Epilogue { bias: Some(&x[..hidden]), activation: Some(Unary::GeluErf), residual: Some(a) };
            kernels.gemm(a, &weight, &gelu, &mut out)?;
            let attention = Attention {
                q: a,
                k: a,
                v: a,
                heads: 12,
                scale: 0.1,
                offsets: &[0, 128, 256],
                mask: KeyMask::None,
                bias: None,
                rotary: None,
            };
            kernels.attention(&attention, &mut scratch, &mut out)?;
            kernels.layer_norm(a, Some(a), &x[..hidden], None, 1e-12, &mut out)?;
            let lookup = Gather { table: a, indices: &ids };
            kernels.embeddings_layer_norm(&[lookup], &x[..hidden], None, 1e-12, &mut out)?;
            kernels.softmax(&mut out);
            Ok::<_, KernelError>(())
        };
        all()?;
        let before = COUNT.load(Ordering::SeqCst);
        for _ in 0..20 {
            all()?;
        }
        assert_eq!(COUNT.load(Ordering::SeqCst), before, "{threads} threads");
    }
    Ok(())
}
