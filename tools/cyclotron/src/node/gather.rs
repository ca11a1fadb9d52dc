//! How requests come together: many are checked at once for little more than a few, so whoever has few waits for more, if they come fast
//! enough for that. What one thread admitted, all threads answer.

use crossbeam::channel::{Receiver, Sender, bounded, select, unbounded};
use cyclotron_admission::Admitted;
use cyclotron_net::{Reply, Request};
use std::time::{Duration, Instant};

/// Requests whose signatures are checked in lanes; more of them gain little.
const ENOUGH: usize = 32;
/// Requests checked together at most: the first of them waits for all.
const BATCH_MAX: usize = 256;
/// How long a request waits for others at most.
const WAIT_MAX: Duration = Duration::from_millis(2);
/// How far back the rate of requests looks.
const RATE_SPAN: Duration = Duration::from_millis(10);
/// Batches that nobody waits for after waits that were in vain, at most.
const IN_VAIN_MAX: u32 = 1_024;
/// How often an idle thread looks whether the node stops.
const STOP_POLL: Duration = Duration::from_millis(200);

/// A request that was admitted, and who waits for the answer.
type Left = (Admitted, Reply);

/// What a thread has to do next.
#[allow(clippy::large_enum_variant, reason = "made and taken apart at once")]
pub enum Next {
    /// Requests are in the batch.
    Admit,
    /// A request that was admitted, and who waits for the answer.
    Answer(Admitted, Reply),
    /// Nothing came for a while.
    Idle,
    /// No request will come.
    Gone,
}

/// Where requests wait for threads. One thread at a time gathers: it has the rhythm.
pub struct Gathering {
    threads: usize,
    turns: (Sender<Rhythm>, Receiver<Rhythm>),
    /// Bounded by what the threads gather: each answers until nothing is left before it gathers again.
    admitted: (Sender<Left>, Receiver<Left>),
}

impl Gathering {
    /// For so many threads; at least one.
    pub fn new(threads: usize) -> Self {
        let turns = bounded(1);
        turns.0.send(Rhythm::new(Instant::now())).expect("there is room for one, and both ends are here");
        Self { threads, turns, admitted: unbounded() }
    }

    /// Leaves an answer to whichever thread has time.
    pub fn leave(&self, admitted: Admitted, reply: Reply) {
        self.admitted.0.send((admitted, reply)).expect("both ends are here");
    }

    /// Waits for work; requests are put into `batch`, which is empty.
    pub fn next(&self, requests: &Receiver<Request>, batch: &mut Vec<Request>) -> Next {
        let ((turn_ends, turns), (_, admitted)) = (&self.turns, &self.admitted);
        if let Ok((admitted, reply)) = admitted.try_recv() {
            return Next::Answer(admitted, reply);
        }
        let answer = |left: Result<Left, _>| {
            let (admitted, reply) = left.expect("both ends are here");
            Next::Answer(admitted, reply)
        };
        select! {
            recv(turns) -> rhythm => {
                let mut rhythm = rhythm.expect("both ends are here");
                let next = select! {
                    recv(requests) -> first => match first {
                        Ok(first) => {
                            rhythm.gather(first, requests, self.threads, batch);
                            Next::Admit
                        }
                        Err(_) => Next::Gone,
                    },
                    recv(admitted) -> left => answer(left),
                    default(STOP_POLL) => Next::Idle,
                };
                turn_ends.send(rhythm).expect("there is room for one, and both ends are here");
                next
            }
            recv(admitted) -> left => answer(left),
            default(STOP_POLL) => Next::Idle,
        }
    }
}

/// How fast requests come.
#[derive(Debug)]
pub struct Rhythm {
    /// Requests a second, of late.
    rate: f64,
    /// When those that it counts were taken.
    counted: Instant,
    /// Batches that nobody waits for.
    skip: u32,
    /// As many as were skipped after the last wait, if it was in vain: whoever asks may wait for answers first.
    in_vain: u32,
}

impl Rhythm {
    fn new(now: Instant) -> Self {
        Self { rate: 0.0, counted: now, skip: 0, in_vain: 0 }
    }

    fn gather(&mut self, first: Request, requests: &Receiver<Request>, threads: usize, batch: &mut Vec<Request>) {
        let before = 1 + requests.len();
        if let Some(wait) = self.wait(before) {
            std::thread::sleep(wait);
            self.waited(before, 1 + requests.len());
        }
        let share = share(1 + requests.len(), threads);
        batch.push(first);
        batch.extend(requests.try_iter().take(share - 1));
        self.count(batch.len(), Instant::now());
    }

    /// How long to wait for others if there are so many; `None` if that does not pay.
    fn wait(&mut self, present: usize) -> Option<Duration> {
        let missing = ENOUGH.checked_sub(present).filter(|missing| *missing > 0)?;
        let seconds = missing as f64 / self.rate;
        if seconds > WAIT_MAX.as_secs_f64() {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(Duration::from_secs_f64(seconds))
    }

    /// Notes what a wait brought: fewer than half of what was missing is in vain.
    fn waited(&mut self, before: usize, after: usize) {
        let in_vain = after.saturating_sub(before) < (ENOUGH - before).div_ceil(2);
        self.in_vain = if in_vain { (2 * self.in_vain).clamp(1, IN_VAIN_MAX) } else { 0 };
        self.skip = self.in_vain;
    }

    /// Takes requests that came since the last count into the rate.
    fn count(&mut self, requests: usize, now: Instant) {
        let seconds = now.saturating_duration_since(self.counted).as_secs_f64().max(1e-9);
        let old = (-seconds / RATE_SPAN.as_secs_f64()).exp();
        self.rate = self.rate * old + requests as f64 / seconds * (1.0 - old);
        self.counted = now;
    }
}

/// How many of the `waiting` requests one of `threads` threads takes: the others have work too, if there is enough.
fn share(waiting: usize, threads: usize) -> usize {
    waiting.div_ceil(threads).max(waiting.min(ENOUGH)).clamp(1, BATCH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rhythm after batches of `requests` at this distance.
    fn rhythm(requests: usize, distance: Duration) -> Rhythm {
        let mut now = Instant::now();
        let mut rhythm = Rhythm::new(now);
        let end = now + 10 * RATE_SPAN;
        while now < end {
            now += distance;
            rhythm.count(requests, now);
        }
        rhythm
    }

    #[test]
    fn nobody_waits_when_few_come_or_enough_are_there() {
        assert_eq!(rhythm(1, Duration::from_millis(1)).wait(1), None, "a thousand a second");
        assert_eq!(Rhythm::new(Instant::now()).wait(1), None, "nothing is known yet");
        let mut busy = rhythm(1, Duration::from_micros(20));
        assert_eq!((busy.wait(ENOUGH), busy.wait(ENOUGH + 1)), (None, None));
    }

    #[test]
    fn the_wait_is_as_long_as_the_missing_take_to_come() {
        let wait = rhythm(1, Duration::from_micros(50)).wait(12).expect("20,000 a second");
        assert!((wait.as_secs_f64() - 0.001).abs() < 0.000_05, "{wait:?}");
        let wait = rhythm(32, Duration::from_micros(2_000)).wait(1).expect("16,000 a second");
        assert!(wait <= WAIT_MAX, "{wait:?}");
    }

    #[test]
    fn waits_in_vain_become_rare_and_those_that_help_do_not() {
        let mut rhythm = rhythm(4, Duration::from_micros(100));
        let mut waits = |brought: usize, batches: usize| {
            let waited = (0..batches).filter(|_| {
                let waits = rhythm.wait(4).is_some();
                if waits {
                    rhythm.waited(4, 4 + brought);
                }
                waits
            });
            waited.count()
        };
        assert!(waits(0, 10_000) < 25, "whoever asks waits for answers");
        let _until_it_is_tried_again = waits(28, 2 * IN_VAIN_MAX as usize);
        assert_eq!(waits(14, 100), 100);
    }

    #[test]
    fn a_thread_leaves_the_others_their_share_but_takes_enough() {
        for (waiting, threads, taken) in
            [(1, 4, 1), (4, 4, 4), (40, 4, 32), (300, 1, 256), (300, 2, 150), (5_000, 4, 256)]
        {
            assert_eq!(share(waiting, threads), taken, "{waiting} requests, {threads} threads");
        }
    }
}
