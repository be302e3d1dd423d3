//! Hints about memory: cache lines before they are needed, and large pages.
//!
//! Hints only: they change nothing that a program can observe.

use std::mem::{MaybeUninit, size_of_val};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Starts loading the cache lines that `value` lies in.
#[inline]
pub fn prefetch<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    let last = size_of::<T>().saturating_sub(1);
    for at in (0..=last).step_by(LINE) {
        prefetch_line(start.wrapping_add(at));
    }
    // A value that does not start with a line may end in one more.
    if align_of::<T>() < LINE {
        prefetch_line(start.wrapping_add(last));
    }
}

#[inline]
fn prefetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetcht0 is part of SSE, which every x86-64 processor has; it never faults and
        // writes nothing, whatever the address.
        #[expect(unsafe_code, reason = "the prefetch instruction has no safe wrapper")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// So many copies of `value` in memory that the kernel is asked to map by large pages: a table that
/// is walked at random costs the processor one page walk less an access.
pub fn reserved<T: Clone>(value: T, count: usize) -> Box<[T]> {
    let mut memory = Vec::with_capacity(count);
    // Before the first write: a page that is there stays as small as it is.
    ask_for_large_pages(memory.spare_capacity_mut());
    memory.resize(count, value);
    memory.into_boxed_slice()
}

/// As madvise(2) with `MADV_HUGEPAGE`. What the kernel makes of it does not matter.
fn ask_for_large_pages<T>(memory: &mut [MaybeUninit<T>]) {
    const PAGE: usize = 4096;
    let start = (memory.as_mut_ptr() as usize).next_multiple_of(PAGE);
    let end = memory.as_mut_ptr() as usize + size_of_val(memory);
    let Some(len) = end.checked_sub(start).filter(|len| *len >= PAGE) else {
        return;
    };
    // SAFETY: the range lies within memory that is borrowed mutably, and the advice changes neither
    // what is in it nor who may use it.
    #[expect(unsafe_code, reason = "advice about memory has no safe wrapper")]
    unsafe {
        libc::madvise(start as *mut libc::c_void, len, libc::MADV_HUGEPAGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_memory_holds_the_value_everywhere() {
        for count in [0, 1, 5000, 3 << 20] {
            let memory = reserved(7u32, count);
            assert_eq!(memory.len(), count);
            assert!(memory.iter().all(|value| *value == 7));
        }
    }
}
