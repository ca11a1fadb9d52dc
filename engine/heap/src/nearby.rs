//! A place where each thread leaves one item for itself, in front of a pool that all threads share.
//!
//! Never here: a result that depends on which thread finds what.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// Places; threads beyond as many share them.
const PLACES: usize = 32;

/// One item a thread. Neither call ever waits.
#[derive(Debug)]
pub struct Nearby<T> {
    places: [Place<T>; PLACES],
}

/// On cache lines of its own: neighbours belong to other threads.
#[derive(Debug)]
#[repr(align(128))]
struct Place<T>(Mutex<Option<T>>);

impl<T> Default for Nearby<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Nearby<T> {
    /// Empty places.
    pub const fn new() -> Self {
        Self { places: [const { Place(Mutex::new(None)) }; PLACES] }
    }

    fn own(&self) -> Option<MutexGuard<'_, Option<T>>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static NUMBER: Cell<Option<usize>> = const { Cell::new(None) });
        let number = NUMBER.get().unwrap_or_else(|| {
            let number = THREADS.fetch_add(1, Ordering::Relaxed);
            NUMBER.set(Some(number));
            number
        });
        match self.places[number % PLACES].0.try_lock() {
            Ok(place) => Some(place),
            // Critical sections only move an item.
            Err(TryLockError::Poisoned(place)) => Some(place.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// This thread's item, if `fits` says so.
    pub fn take_if(&self, fits: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut place = self.own()?;
        if place.as_ref().is_some_and(fits) { place.take() } else { None }
    }

    /// Leaves an item for this thread's next use; gives back the one that has lain there.
    pub fn put(&self, item: T) -> Option<T> {
        match self.own() {
            Some(mut place) => place.replace(item),
            None => Some(item),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_finds_what_it_left_and_nobody_else_does() {
        let nearby = Nearby::new();
        assert_eq!((nearby.put(1), nearby.put(2)), (None, Some(1)));
        assert_eq!((nearby.take_if(|item| *item == 1), nearby.take_if(|item| *item == 2)), (None, Some(2)));
        assert_eq!((nearby.take_if(|_| true), nearby.put(3)), (None, None));
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(nearby.take_if(|_| true), None)).join()).unwrap();
    }
}
