//! What takes long is read by a thread of its own, while the rest is read.

use std::panic::resume_unwind;
use std::thread::{Builder, JoinHandle};

/// Something that is being read, in the namespace of the thread that began it.
pub(super) enum Aside<T> {
    Begun(JoinHandle<T>),
    /// No thread could be had: it is read when it is asked for.
    Later(Box<dyn FnOnce() -> T>),
}

impl<T: Send + 'static> Aside<T> {
    pub(super) fn begin(read: impl FnOnce() -> T + Clone + Send + 'static) -> Self {
        let later = read.clone();
        match Builder::new().spawn(read) {
            Ok(thread) => Self::Begun(thread),
            Err(_) => Self::Later(Box::new(later)),
        }
    }

    /// What was read. The calling thread must be where it was at the beginning.
    pub(super) fn end(self) -> T {
        match self {
            Self::Begun(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Self::Later(read) => read(),
        }
    }
}
