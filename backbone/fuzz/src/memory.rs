//! Counts the memory that a piece of code takes, by an allocator that the test program installs. Each thread counts for
//! itself, so tests may run side by side.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counted. Install it with `#[global_allocator]`.
#[derive(Debug, Clone, Copy)]
pub struct Counting;

fn count(bytes: isize) {
    // Cells without destructors are there as long as the thread is: neither access can fail or allocate.
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    if bytes > 0 {
        PEAK.set(PEAK.get().max(live));
        CALLS.set(CALLS.get() + 1);
    }
}

// SAFETY: every call is handed to the system's allocator as it came; counting touches nothing but this thread's cells.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // While it moves, both are there.
        count(bytes as isize);
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(place, layout, bytes) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(place, layout) }
    }
}

/// What a piece of code took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// The most bytes that it held at once, beyond what was there before.
    pub peak_bytes: usize,
    /// How often it asked for memory.
    pub allocations: u64,
}

/// Runs the code and tells what it took on this thread. All zero unless [`Counting`] is installed. May be nested.
pub fn spend<T>(code: impl FnOnce() -> T) -> (T, Spent) {
    let (live, calls, outer_peak) = (LIVE.get(), CALLS.get(), PEAK.get());
    PEAK.set(live);
    let value = code();
    let peak_bytes = usize::try_from(PEAK.get() - live).unwrap_or_default();
    PEAK.set(PEAK.get().max(outer_peak));
    (value, Spent { peak_bytes, allocations: CALLS.get() - calls })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static MEMORY: Counting = Counting;

    #[test]
    fn the_peak_counts_what_was_given_back_and_not_what_was_there_before() {
        let before = vec![0u8; 1 << 20];
        let (kept, spent) = spend(|| {
            drop(vec![0u8; 3000]);
            vec![0u8; 1000]
        });
        assert_eq!(spent, Spent { peak_bytes: 3000, allocations: 2 });
        let ((), outer) = spend(|| {
            drop(vec![0u8; 5000]);
            assert_eq!(spend(|| drop(vec![0u8; 10])).1.peak_bytes, 10);
        });
        assert_eq!(outer.peak_bytes, 5000, "a measurement inside another does not hide from it");
        drop((before, kept));
    }

    #[test]
    fn other_threads_do_not_count() {
        let (handle, spent) = spend(|| std::thread::spawn(|| vec![1u8; 1 << 20].len()));
        assert_eq!(handle.join().expect("ends"), 1 << 20);
        assert!(spent.peak_bytes < 1 << 20);
    }
}
