//! Dying on purpose, for tests: builds with debug assertions end at the n-th step of their work, without any warning
//! and as if by `kill -9`, when `WHARF_FAIL_AT` is n.
//!
//! A step is one change to the kernel, to a store or to `/run/netns`. Release builds know nothing of this.

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static STEPS: AtomicU64 = AtomicU64::new(0);

    fn last_step() -> Option<u64> {
        static LAST: OnceLock<Option<u64>> = OnceLock::new();
        *LAST.get_or_init(|| std::env::var("WHARF_FAIL_AT").ok()?.parse().ok())
    }

    pub(crate) fn is_armed() -> bool {
        last_step().is_some()
    }

    pub(crate) fn step() {
        let Some(last) = last_step() else {
            return;
        };
        if STEPS.fetch_add(1, Ordering::SeqCst) + 1 == last {
            // SAFETY: raise takes no pointers.
            unsafe { libc::raise(libc::SIGKILL) };
        }
    }
}

#[cfg(not(debug_assertions))]
mod armed {
    pub(crate) const fn is_armed() -> bool {
        false
    }

    pub(crate) const fn step() {}
}

/// Whether the process is to die: then what is usually sent together goes one by one.
pub(crate) use armed::is_armed;
/// The process dies here if its time has come.
pub(crate) use armed::step;
