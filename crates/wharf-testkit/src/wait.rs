//! Waiting for something to become true, with a deadline and without fixed sleeps.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Asks again and again until `attempt` gives a value; panics with `what` after five seconds.
#[track_caller]
pub fn eventually<T>(what: &str, attempt: impl FnMut() -> Option<T>) -> T {
    eventually_within(Duration::from_secs(5), what, attempt)
}

/// [`eventually`] with a deadline of one's own.
#[track_caller]
pub fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < limit, "still not after {limit:?}: {what}");
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
