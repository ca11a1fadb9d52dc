//! Events added up.
//!
//! Enters: the events of a frame, in their order; answers to questions. Leaves: [`Totals`], and questions for what is not known yet.

use crate::CaptureError;
use crate::protocol::{Bytes, EVENT_BYTES, OFFSET_16_BITS, OFFSET_32_BITS, Query, kind};
use std::collections::{BTreeMap, VecDeque};

/// What is remembered of places, plots, threads and strings, each: a program that names more is not one of ours.
const ENTRIES_MAX: usize = 1 << 20;
/// Zones that are open at a time on one thread.
const DEPTH_MAX: usize = 1 << 16;

/// Zones of one place in the program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlaceTotals {
    /// Its name; empty until the program has told it.
    pub name: String,
    /// Its function.
    pub function: String,
    /// Its file.
    pub file: String,
    /// Its line.
    pub line: u32,
    /// Zones that have ended.
    pub count: u64,
    /// How long they were open.
    pub ns: f64,
    /// Likewise, less the zones within them.
    pub self_ns: f64,
}

/// A plot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlotTotals {
    /// Its name.
    pub name: String,
    /// Values shown.
    pub count: u64,
    /// The last one.
    pub last: f64,
    /// The greatest one.
    pub max: f64,
}

/// All that was read.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Zones by place, in no particular order.
    pub places: Vec<PlaceTotals>,
    /// Plots.
    pub plots: Vec<PlotTotals>,
    /// Names of threads that had zones or plots.
    pub threads: Vec<String>,
    /// Frame marks.
    pub frames: u64,
}

impl Totals {
    /// The zones of this name.
    pub fn place(&self, name: &str) -> Option<&PlaceTotals> {
        self.places.iter().find(|place| place.name == name)
    }

    /// The plot of this name.
    pub fn plot(&self, name: &str) -> Option<&PlotTotals> {
        self.plots.iter().find(|plot| plot.name == name)
    }
}

#[derive(Default)]
struct Place {
    /// Addresses of name, function and file, once they are known; and the line.
    location: Option<([u64; 3], u32)>,
    count: u64,
    ticks: i64,
    self_ticks: i64,
}

#[derive(Clone, Copy)]
struct Open {
    place: u64,
    begun: i64,
    within: i64,
}

#[derive(Default)]
struct Thread {
    name: String,
    open: Vec<Open>,
}

/// What is asked of the program.
#[derive(Default)]
pub(crate) struct Questions {
    /// To be sent.
    pub(crate) unsent: Vec<[u8; 13]>,
    /// Sent or not, and without an answer.
    unanswered: usize,
}

impl Questions {
    fn ask(&mut self, query: Query, address: u64) {
        self.unsent.push(query.encode(address));
        self.unanswered += 1;
    }

    fn answered(&mut self) -> Result<(), CaptureError> {
        self.unanswered =
            self.unanswered.checked_sub(1).ok_or(CaptureError::Malformed("an answer that nobody asked for"))?;
        Ok(())
    }
}

/// What has been read so far.
#[derive(Default)]
pub(crate) struct Reading {
    places: BTreeMap<u64, Place>,
    strings: BTreeMap<u64, Option<String>>,
    plots: BTreeMap<u64, PlotTotals>,
    threads: BTreeMap<u32, Thread>,
    thread: u32,
    /// The time that the next one is told from.
    time: i64,
    frames: u64,
    /// Places that were asked for and not told yet.
    asked: VecDeque<u64>,
    pub(crate) questions: Questions,
    /// The program has said that no events follow; answers may.
    ended: bool,
}

impl Reading {
    /// Adds the events of one frame.
    pub(crate) fn add(&mut self, frame: &[u8]) -> Result<(), CaptureError> {
        let mut rest = Bytes(frame);
        while !rest.0.is_empty() {
            self.event(&mut rest)?;
            if self.places.len() + self.strings.len() + self.plots.len() + self.threads.len() > ENTRIES_MAX {
                return Err(CaptureError::Malformed("more names than a program has"));
            }
        }
        Ok(())
    }

    /// Whether the program has told all that there is.
    pub(crate) fn is_complete(&self) -> bool {
        self.ended && self.questions.unanswered == 0
    }

    fn event(&mut self, rest: &mut Bytes<'_>) -> Result<(), CaptureError> {
        let kind = *rest.0.first().ok_or(CaptureError::Malformed("no event"))?;
        let len = *EVENT_BYTES.get(usize::from(kind)).ok_or(CaptureError::Malformed("an unknown kind of event"))?;
        let mut event = Bytes(&rest.take(usize::from(len))?[1..]);
        match kind {
            kind::ZONE_BEGIN | kind::ZONE_BEGIN_32 | kind::ZONE_BEGIN_16 => {
                let time = self.time(kind - kind::ZONE_BEGIN, &mut event)?;
                self.begin(time, event.u64()?)?;
            }
            kind::ZONE_END | kind::ZONE_END_32 | kind::ZONE_END_16 => {
                let time = self.time(kind - kind::ZONE_END, &mut event)?;
                self.end(time)?;
            }
            kind::PLOT_INT | kind::PLOT_FLOAT | kind::PLOT_DOUBLE => self.plot(kind, &mut event)?,
            kind::THREAD => {
                (self.thread, self.time) = (event.u32()?, 0);
                let questions = &mut self.questions;
                self.threads.entry(self.thread).or_insert_with(|| {
                    questions.ask(Query::ThreadName, u64::from(self.thread));
                    Thread::default()
                });
            }
            kind::FRAME_MARK => self.frames += 1,
            kind::TERMINATE => self.ended = true,
            kind::SOURCE_LOCATION => self.locate(&mut event)?,
            kind::SINGLE_STRING | kind::SECOND_STRING => {
                let len = usize::from(rest.u16()?) + 256;
                rest.take(len)?;
            }
            kind::SINGLE_STRING_8 | kind::SECOND_STRING_8 => {
                let len = usize::from(rest.u8()?);
                rest.take(len)?;
            }
            kind::FRAME_IMAGE | kind::SYMBOL_CODE | kind::SOURCE_CODE => {
                let len = rest.u32()? as usize;
                rest.take(len)?;
            }
            kind::STRING.. => {
                let len = usize::from(rest.u16()?);
                let text = rest.take(len)?;
                self.string(kind, event.u64()?, text)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The time of an event on the current thread: all but the first are told from the one before.
    fn time(&mut self, form: u8, event: &mut Bytes<'_>) -> Result<i64, CaptureError> {
        let since = match form {
            0 => {
                let since = event.i64()?;
                if since < 0 { since } else { since.wrapping_add(OFFSET_32_BITS) }
            }
            1 => i64::from(event.u32()?) + OFFSET_16_BITS,
            _ => i64::from(event.u16()?),
        };
        self.time = self.time.wrapping_add(since);
        Ok(self.time)
    }

    fn begin(&mut self, time: i64, place: u64) -> Result<(), CaptureError> {
        let questions = &mut self.questions;
        let asked = &mut self.asked;
        self.places.entry(place).or_insert_with(|| {
            questions.ask(Query::SourceLocation, place);
            asked.push_back(place);
            Place::default()
        });
        let thread = self.threads.entry(self.thread).or_default();
        if thread.open.len() >= DEPTH_MAX {
            return Err(CaptureError::Malformed("more open zones than a thread has"));
        }
        thread.open.push(Open { place, begun: time, within: 0 });
        Ok(())
    }

    fn end(&mut self, time: i64) -> Result<(), CaptureError> {
        let thread = self.threads.entry(self.thread).or_default();
        let ended = thread.open.pop().ok_or(CaptureError::Malformed("the end of a zone that did not begin"))?;
        let ticks = time.wrapping_sub(ended.begun);
        if ticks < 0 {
            return Err(CaptureError::Malformed("a zone that ends before it begins"));
        }
        if let Some(around) = thread.open.last_mut() {
            around.within = around.within.saturating_add(ticks);
        }
        let place = self.places.entry(ended.place).or_default();
        place.count += 1;
        place.ticks = place.ticks.saturating_add(ticks);
        place.self_ticks = place.self_ticks.saturating_add(ticks - ended.within);
        Ok(())
    }

    fn plot(&mut self, kind: u8, event: &mut Bytes<'_>) -> Result<(), CaptureError> {
        let name = event.u64()?;
        self.time = self.time.wrapping_add(event.i64()?);
        let value = match kind {
            kind::PLOT_INT => event.i64()? as f64,
            kind::PLOT_FLOAT => f64::from(f32::from_bits(event.u32()?)),
            _ => f64::from_bits(event.u64()?),
        };
        let questions = &mut self.questions;
        let plot = self.plots.entry(name).or_insert_with(|| {
            questions.ask(Query::PlotName, name);
            PlotTotals { max: f64::MIN, ..PlotTotals::default() }
        });
        plot.count += 1;
        plot.last = value;
        plot.max = plot.max.max(value);
        Ok(())
    }

    /// Takes the answer to the question for a place. Answers name no place; they come in the order of the questions.
    fn locate(&mut self, event: &mut Bytes<'_>) -> Result<(), CaptureError> {
        self.questions.answered()?;
        let addresses = [event.u64()?, event.u64()?, event.u64()?];
        let line = event.u32()?;
        let asked = self.asked.pop_front().ok_or(CaptureError::Malformed("an answer that nobody asked for"))?;
        self.places.entry(asked).or_default().location = Some((addresses, line));
        for address in addresses.into_iter().filter(|address| *address != 0) {
            let questions = &mut self.questions;
            self.strings.entry(address).or_insert_with(|| {
                questions.ask(Query::String, address);
                None
            });
        }
        Ok(())
    }

    fn string(&mut self, kind: u8, address: u64, text: &[u8]) -> Result<(), CaptureError> {
        let text = String::from_utf8_lossy(text).into_owned();
        if matches!(kind, kind::STRING | kind::THREAD_NAME | kind::PLOT_NAME) {
            self.questions.answered()?;
        }
        match kind {
            kind::STRING => {
                self.strings.insert(address, Some(text));
            }
            kind::THREAD_NAME => {
                if let Some(thread) = u32::try_from(address).ok().and_then(|id| self.threads.get_mut(&id)) {
                    thread.name = text;
                }
            }
            kind::PLOT_NAME => {
                if let Some(plot) = self.plots.get_mut(&address) {
                    plot.name = text;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What has been read, in names as far as they are known, and in nanoseconds.
    pub(crate) fn totals(&self, ns_per_tick: f64) -> Totals {
        let text = |address: u64| self.strings.get(&address).cloned().flatten().unwrap_or_default();
        let places = self.places.values().map(|place| {
            let ([name, function, file], line) = place.location.unwrap_or_default();
            PlaceTotals {
                name: text(name),
                function: text(function),
                file: text(file),
                line,
                count: place.count,
                ns: place.ticks as f64 * ns_per_tick,
                self_ns: place.self_ticks as f64 * ns_per_tick,
            }
        });
        Totals {
            places: places.collect(),
            plots: self.plots.values().cloned().collect(),
            threads: self.threads.values().map(|thread| thread.name.clone()).collect(),
            frames: self.frames,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event of this kind with this content.
    fn event(kind: u8, content: &[&[u8]]) -> Vec<u8> {
        [&[kind], content.concat().as_slice()].concat()
    }

    fn string(kind: u8, address: u64, text: &str) -> Vec<u8> {
        event(kind, &[&address.to_le_bytes(), &(text.len() as u16).to_le_bytes(), text.as_bytes()])
    }

    #[test]
    fn what_was_read_is_complete_once_each_question_is_answered_behind_the_last_event() {
        let mut reading = Reading::default();
        let [place, name, thread] = [0x1000_u64, 0x2000, 7];
        let zone = [
            event(kind::THREAD, &[&(thread as u32).to_le_bytes()]),
            event(kind::ZONE_BEGIN_16, &[&5_u16.to_le_bytes(), &place.to_le_bytes()]),
            event(kind::ZONE_END_16, &[&3_u16.to_le_bytes()]),
            event(kind::TERMINATE, &[]),
        ];
        reading.add(&zone.concat()).unwrap();
        let asked = [Query::ThreadName.encode(thread), Query::SourceLocation.encode(place)];
        assert_eq!(std::mem::take(&mut reading.questions.unsent), asked);
        assert!(!reading.is_complete());
        reading.add(&string(kind::THREAD_NAME, thread, "round")).unwrap();
        let nowhere = [0; 8];
        // Address of the name, none of function and file; line and colour.
        let location = event(kind::SOURCE_LOCATION, &[&name.to_le_bytes(), &nowhere, &nowhere, &[0; 7]]);
        reading.add(&location).unwrap();
        assert_eq!(std::mem::take(&mut reading.questions.unsent), [Query::String.encode(name)]);
        assert!(!reading.is_complete());
        reading.add(&string(kind::STRING, name, "execute")).unwrap();
        assert!(reading.is_complete());
        let totals = reading.totals(2.0);
        let zone = totals.place("execute").unwrap();
        assert_eq!((zone.count, zone.ns, totals.threads), (1, 6.0, vec!["round".into()]));
        // Nothing else was asked.
        assert!(matches!(reading.add(&string(kind::STRING, name, "execute")), Err(CaptureError::Malformed(_))));
    }
}
