//! Answering: `msg_reply*`, `msg_reject`, `accept_message`.

use super::{Answer, Answered, Entry, NOTHING, SystemApi, take};
use crate::reject::{Blame, Failure};
use cyclotron_types::message::ResponsePayload;
use cyclotron_types::reject::Reject;
use cyclotron_types::units::Bytes;
use cyclotron_wasm::runtime::Caller;

impl SystemApi {
    fn reply_bytes_max(&self) -> Bytes {
        if matches!(
            self.identity.entry,
            Entry::Query | Entry::CompositeQuery | Entry::CompositeReply | Entry::CompositeReject
        ) {
            self.subnet.limits.query_reply_bytes
        } else {
            self.subnet.limits.reply_bytes
        }
    }

    pub(super) fn reply_data_append(&mut self, caller: &Caller<'_>, src: u64, size: u64) -> Answered {
        if self.answer != Answer::Owed {
            return Err(Failure::toolchain("ic0.msg_reply_data_append: the call is already replied.").into());
        }
        let (total, max) = ((self.reply_data.len() as u64).saturating_add(size), self.reply_bytes_max());
        if total > max.0 {
            return Err(Failure::Contract {
                error: format!(
                    "ic0.msg_reply_data_append: application payload size ({total}) cannot be larger than {max}."
                ),
                blame: Blame::Author(
                    "Consider checking the response size and returning an error if it is too long.",
                    "msg_reply_data_append-payload-too-large",
                ),
            }
            .into());
        }
        self.reply_data.extend_from_slice(take(caller, "msg_reply_data_append", src, size)?);
        NOTHING
    }

    pub(super) fn reply(&mut self) -> Answered {
        if self.answer != Answer::Owed {
            return Err(Failure::toolchain("ic0.msg_reply: the call is already replied").into());
        }
        let data = std::mem::take(&mut self.reply_data);
        self.give(ResponsePayload::Reply(data));
        NOTHING
    }

    pub(super) fn reject(&mut self, caller: &Caller<'_>, src: u64, size: u64) -> Answered {
        if self.answer != Answer::Owed {
            return Err(Failure::toolchain("ic0.msg_reject: the call is already replied").into());
        }
        let max = self.reply_bytes_max();
        if size > max.0 {
            return Err(Failure::Contract {
                error: format!("ic0.msg_reject: application payload size ({size}) cannot be larger than {max}."),
                blame: Blame::Author(
                    "Try truncating the error messages that are too long.",
                    "msg_reject-payload-too-large",
                ),
            }
            .into());
        }
        let bytes = take(caller, "msg_reject", src, size)?;
        let Ok(message) = std::str::from_utf8(bytes) else {
            return Err(Failure::toolchain("ic0.msg_reject: invalid UTF-8 string provided").into());
        };
        let reject = Reject::by_canister(message);
        self.reply_data.clear();
        self.give(ResponsePayload::Reject(reject));
        NOTHING
    }

    fn give(&mut self, payload: ResponsePayload) {
        self.answer = Answer::Given(payload);
        // Cycles not accepted go back with the answer.
        self.funds.refund = std::mem::take(&mut self.funds.available);
    }

    pub(super) fn accept_message(&mut self) -> Answered {
        if self.written.accepted {
            return Err(Failure::toolchain("ic0.accept_message: the function was already called.").into());
        }
        self.written.accepted = true;
        NOTHING
    }
}
