//! Lines on their way from whoever logs to the thread that writes: one buffer, bounded in bytes.
//!
//! A caller holds the lock for as long as it takes to copy its line, and is never made to wait for a disk.

use std::{
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What a buffer may keep allocated after a burst.
const KEPT_BYTES: usize = 64 << 10;

/// The lines that wait.
pub(super) struct Queue {
    capacity: usize,
    pending: Mutex<Pending>,
    /// There is something to do for the thread.
    work: Condvar,
    /// A flush has been answered.
    done: Condvar,
}

#[derive(Default)]
struct Pending {
    /// Whole lines, each with its line end.
    bytes: Vec<u8>,
    /// How many lines did not fit since the last drain.
    dropped: u64,
    /// The number of the last flush that was asked for.
    flush_asked: u64,
    /// The number of the last flush that was answered, and whether it worked.
    flush_done: (u64, bool),
    closed: bool,
}

impl Pending {
    fn wants_flush(&self) -> bool {
        self.flush_asked > self.flush_done.0
    }
}

/// What came with the lines of a drain.
pub(super) struct Drained {
    /// How many lines were dropped after the ones drained.
    pub(super) dropped: u64,
    /// The flush to answer once the lines are written.
    pub(super) flush: Option<u64>,
    /// Whether nobody can log any more.
    pub(super) closed: bool,
}

impl Queue {
    /// A queue that holds at most `capacity` bytes.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, pending: Mutex::default(), work: Condvar::new(), done: Condvar::new() }
    }

    /// Queues a line, which ends in a line feed. When there is no room the line is counted and forgotten.
    pub(super) fn push(&self, line: &[u8]) {
        let mut pending = self.lock();
        // Once a line was dropped, the next ones are too until the drain: no short line overtakes a long one.
        if pending.dropped > 0 || pending.bytes.len() + line.len() > self.capacity {
            pending.dropped += 1;
            return;
        }
        let idle = pending.bytes.is_empty();
        pending.bytes.extend_from_slice(line);
        drop(pending);
        if idle {
            self.work.notify_one();
        }
    }

    /// Asks the thread to write everything, and waits for its answer until `deadline`. Says whether it did.
    pub(super) fn flush(&self, deadline: Instant) -> bool {
        let mut pending = self.lock();
        pending.flush_asked += 1;
        let number = pending.flush_asked;
        self.work.notify_one();
        while pending.flush_done.0 < number {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            pending = self.done.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        pending.flush_done.1
    }

    /// Tells the thread to write what is left and to end.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    /// For the thread: waits for a flush, the close, the end of `patience`, and for lines if `lines` is set.
    pub(super) fn wait(&self, patience: Option<Duration>, lines: bool) {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut pending = self.lock();
        while !(pending.closed || pending.wants_flush() || (lines && !pending.bytes.is_empty())) {
            pending = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => return,
                Some(left) => self.work.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.work.wait(pending).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// For the thread: replaces the contents of `batch` by the lines that wait; by none, if `lines` is not set.
    pub(super) fn drain(&self, batch: &mut Vec<u8>, lines: bool) -> Drained {
        batch.clear();
        batch.shrink_to(KEPT_BYTES);
        let mut pending = self.lock();
        let mut dropped = 0;
        if lines {
            mem::swap(&mut pending.bytes, batch);
            dropped = mem::take(&mut pending.dropped);
        }
        let flush = pending.wants_flush().then_some(pending.flush_asked);
        Drained { dropped, flush, closed: pending.closed }
    }

    /// For the thread: answers the flush `number` and all before it.
    pub(super) fn flushed(&self, number: u64, written: bool) {
        self.lock().flush_done = (number, written);
        self.done.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Every change of the pending lines is complete when the lock is released, even by a panic.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_capacity_are_counted() {
        let queue = Queue::new(10);
        for line in [b"12345\n".as_slice(), b"too long\n", b"ab\n"] {
            queue.push(line);
        }
        let mut batch = Vec::new();
        let drained = queue.drain(&mut batch, true);
        assert_eq!((batch.as_slice(), drained.dropped), (b"12345\n".as_slice(), 2));
        queue.push(b"ab\n");
        let drained = queue.drain(&mut batch, true);
        assert_eq!((batch.as_slice(), drained.dropped), (b"ab\n".as_slice(), 0));
    }

    #[test]
    fn a_flush_that_nobody_answers_ends_at_its_deadline() {
        let queue = Queue::new(10);
        assert!(!queue.flush(Instant::now()));
        queue.flushed(1, true);
        assert!(queue.drain(&mut Vec::new(), true).flush.is_none());
    }
}
