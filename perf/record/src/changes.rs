//! What is not as it was: counted, listed and put into words.

use cyclotron_types::reject::Reject;
use serde::Serialize;

/// Changes of each kind that are listed; all are counted.
const LISTED_MAX: usize = 10_000;
/// Bytes of an answer that are shown.
const SHOWN_BYTES: usize = 64;

/// Something that is not as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Height of the round in which the candidate's side became known, or of the state that a query ran on.
    pub height: u64,
    /// Whose.
    pub canister: String,
    /// Of which method; a callback or a task in parentheses. Empty for lines that a canister printed about a trap.
    pub method: String,
    /// As recorded.
    pub recorded: String,
    /// With the candidate; or without one, as it is now.
    pub candidate: String,
}

/// Changes of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// How many were compared.
    pub compared: u64,
    /// How many of these are not alike.
    pub changed: u64,
    /// The first of them.
    pub listed: Vec<Change>,
}

impl Changes {
    pub(crate) fn compare(&mut self, same: bool, change: impl FnOnce() -> Change) {
        self.compared += 1;
        if !same {
            self.changed += 1;
            if self.listed.len() < LISTED_MAX {
                self.listed.push(change());
            }
        }
    }
}

/// An answer.
pub(crate) type Answer<'a> = Result<&'a [u8], &'a Reject>;

pub(crate) fn words_of_answer(answer: Answer<'_>) -> String {
    match answer {
        Ok(bytes) => format!("reply of {} bytes: {}", bytes.len(), hex(bytes)),
        Err(reject) => format!("reject: {reject}"),
    }
}

/// Two answers in words; where these are alike, the place where the answers begin to differ is shown.
pub(crate) fn words_of_both(was: Answer<'_>, is: Answer<'_>) -> (String, String) {
    let (recorded, candidate) = (words_of_answer(was), words_of_answer(is));
    let (Ok(was), Ok(is)) = (was, is) else { return (recorded, candidate) };
    if recorded != candidate {
        return (recorded, candidate);
    }
    let at = was.iter().zip(is).take_while(|(a, b)| a == b).count();
    let from = |bytes: &[u8]| format!("reply of {} bytes, from byte {at} on {}", bytes.len(), hex(&bytes[at..]));
    (from(was), from(is))
}

fn hex(bytes: &[u8]) -> String {
    let shown: String = bytes.iter().take(SHOWN_BYTES).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > SHOWN_BYTES { shown + "…" } else { shown }
}
