// What must hold for all bytes that a profiled program may send; shared by the fuzz target and the test that replays its corpus.

use cyclotron_zones::{Events, Totals};

/// Takes the bytes for the frames of a connection, and for one frame as it was before compression.
pub fn check(input: &[u8]) {
    let mut events = Events::default();
    let mut rest = input;
    while events.read(&mut rest).is_ok() {
        asks(&mut events);
    }
    adds_up(&events.totals(1.0));
    adds_up(&read_frame(input).0);
}

/// What the bytes add up to as one frame, and whether they are a whole one that leaves no question.
pub fn read_frame(input: &[u8]) -> (Totals, bool) {
    let mut events = Events::default();
    let whole = events.add(input).is_ok();
    asks(&mut events);
    (events.totals(1.0), whole && events.are_complete())
}

fn asks(events: &mut Events) {
    // A question names what it is for: a string, a thread, a place or a plot.
    assert!(events.questions().all(|question| (1..=4).contains(&question[0]) && question[9..] == [0; 4]));
}

fn adds_up(totals: &Totals) {
    for place in &totals.places {
        assert!(place.ns >= 0.0 && place.self_ns <= place.ns && (place.count > 0 || place.ns == 0.0), "{place:?}");
    }
    for plot in &totals.plots {
        assert!(plot.count > 0, "{plot:?}");
    }
}
