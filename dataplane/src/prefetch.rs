//! Asks the processor for a cache line before it is needed.
//!
//! A hint only: it changes nothing that a program can observe, whatever the address.

/// Starts loading the cache line that `value` lies in.
#[inline]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetcht0 is part of SSE, which every x86-64 processor has; it never faults and
        // writes nothing, and the pointer comes from a live reference anyway.
        #[expect(unsafe_code, reason = "the prefetch instruction has no safe wrapper")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
