//! Bodies of answers, as far as whoever drives a node must understand them.
//!
//! Enters: bytes from a node. Leaves: what became of a request. Never here: a check of a signature; who drives a node for its speed trusts
//! what it says.
//!
//! Spec: ic-interface-spec #http-call, #http-query, #http-read-state, #certification-encoding.

use cyclotron_wire::{DecodeError, Reader};

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The canister replied with these bytes.
    Replied(Vec<u8>),
    /// It was rejected, before or after it came to the canister.
    Rejected {
        /// Such as `IC0503`; empty where the node says none.
        code: String,
        /// For people.
        message: String,
    },
    /// Not yet known.
    Pending,
}

/// Nesting of a hash tree at most; a path of the state tree with its forks is far less deep.
const DEPTH_MAX: usize = 128;

/// Fields of the maps that answers are.
#[derive(Default)]
struct Fields<'a> {
    status: Option<&'a str>,
    reply: Option<&'a [u8]>,
    certificate: Option<&'a [u8]>,
    error_code: Option<&'a str>,
    reject_message: Option<&'a str>,
}

/// Reads an answer's fields up to the first that it does not know: those that matter come before.
fn fields(body: &[u8]) -> Result<Fields<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    reader.self_describe_tag()?;
    let mut map = reader.map("answer")?;
    let mut fields = Fields::default();
    while reader.next(&mut map)? {
        match reader.text("field name")? {
            "status" => fields.status = Some(reader.text("status")?),
            "certificate" => fields.certificate = Some(reader.bytes("certificate")?),
            "error_code" => fields.error_code = Some(reader.text("error_code")?),
            "reject_message" => fields.reject_message = Some(reader.text("reject_message")?),
            "reject_code" => drop(reader.unsigned("reject_code")?),
            "reply" => {
                let mut reply = reader.map("reply")?;
                while reader.next(&mut reply)? {
                    reader.text("field name")?;
                    fields.reply = Some(reader.bytes("arg")?);
                }
            }
            _ => break,
        }
    }
    Ok(fields)
}

impl Fields<'_> {
    fn rejected(&self) -> Answer {
        let text = |field: Option<&str>| field.unwrap_or_default().to_owned();
        Answer::Rejected { code: text(self.error_code), message: text(self.reject_message) }
    }
}

/// Reads the answer to a query.
pub fn of_query(body: &[u8]) -> Result<Answer, DecodeError> {
    let fields = fields(body)?;
    Ok(match (fields.status, fields.reply) {
        (Some("replied"), Some(reply)) => Answer::Replied(reply.to_vec()),
        _ => fields.rejected(),
    })
}

/// Reads the answer to a call or to a look at its status: a certificate, or a rejection.
pub fn of_update(body: &[u8], id: &[u8; 32]) -> Result<Answer, DecodeError> {
    let fields = fields(body)?;
    match fields.certificate {
        Some(certificate) => certified(certificate, id),
        None => Ok(fields.rejected()),
    }
}

fn certified(certificate: &[u8], id: &[u8; 32]) -> Result<Answer, DecodeError> {
    let mut reader = Reader::new(certificate);
    reader.self_describe_tag()?;
    let mut map = reader.map("certificate")?;
    while reader.next(&mut map)? {
        if reader.text("field name")? != "tree" {
            reader.bytes("field")?;
            continue;
        }
        let leaf = |name: &'static str| {
            // Each look begins at the tree again: it is small.
            lookup(&mut reader.clone(), Some(&[b"request_status", id, name.as_bytes()]), DEPTH_MAX)
        };
        let text = |name| {
            leaf(name).map(|leaf| leaf.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default())
        };
        return Ok(match leaf("status")? {
            Some(b"replied") => Answer::Replied(leaf("reply")?.unwrap_or_default().to_vec()),
            Some(b"rejected") => Answer::Rejected { code: text("error_code")?, message: text("reject_message")? },
            Some(b"done") => Answer::Rejected { code: "done".into(), message: "the answer is dropped".into() },
            _ => Answer::Pending,
        });
    }
    Err(DecodeError::MissingField { map: "certificate", field: "tree" })
}

/// Reads one node of a hash tree to its end; the leaf at `path` below it. Without a path, nothing is looked for.
fn lookup<'a>(reader: &mut Reader<'a>, path: Option<&[&[u8]]>, depth: usize) -> Result<Option<&'a [u8]>, DecodeError> {
    let unsupported = DecodeError::Unsupported { what: "this hash tree", at: reader.position() };
    let Some(depth) = depth.checked_sub(1) else { return Err(unsupported) };
    let mut node = reader.array("hash tree")?;
    let mut more = |reader: &mut Reader<'a>| match reader.next(&mut node) {
        Ok(true) => Ok(()),
        Ok(false) => Err(unsupported.clone()),
        Err(error) => Err(error),
    };
    more(reader)?;
    match reader.unsigned("kind of node")? {
        0 => Ok(None),
        1 => {
            more(reader)?;
            let left = lookup(reader, path, depth)?;
            more(reader)?;
            let right = lookup(reader, path, depth)?;
            Ok(left.or(right))
        }
        2 => {
            more(reader)?;
            let label = reader.bytes("label")?;
            more(reader)?;
            let below = match path {
                Some([first, rest @ ..]) if *first == label => Some(rest),
                _ => None,
            };
            lookup(reader, below, depth)
        }
        3 => {
            more(reader)?;
            let leaf = reader.bytes("leaf")?;
            Ok(path.filter(|path| path.is_empty()).map(|_| leaf))
        }
        4 => {
            more(reader)?;
            reader.bytes("pruned")?;
            Ok(None)
        }
        _ => Err(unsupported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cyclotron_wire::{
        QueryAnswer, Rejection, Writer, encode_call_certificate, encode_certificate, encode_query_response,
        encode_rejection_sync,
    };

    const REJECTION: Rejection<'_> =
        Rejection { reject_code: 3, reject_message: "no such canister", error_code: Some("IC0301") };

    fn rejected() -> Answer {
        Answer::Rejected { code: "IC0301".into(), message: "no such canister".into() }
    }

    /// A labelled leaf.
    fn leaf(writer: &mut Writer, label: &str, bytes: &[u8]) {
        writer.array(3).unsigned(2).bytes(label.as_bytes()).array(2).unsigned(3).bytes(bytes);
    }

    /// A tree as nodes send it: forks, pruned parts, and the status in the middle.
    fn answer_with(status: &[(&str, &[u8])], id: &[u8; 32]) -> Vec<u8> {
        let mut tree = Writer::default();
        tree.array(3).unsigned(1).array(2).unsigned(4).bytes(&[9; 32]);
        tree.array(3).unsigned(1).array(3).unsigned(2).bytes(b"request_status");
        tree.array(3).unsigned(1).array(2).unsigned(4).bytes(&[8; 32]).array(3).unsigned(2).bytes(id);
        for (at, (name, value)) in status.iter().enumerate() {
            if at + 1 < status.len() {
                tree.array(3).unsigned(1);
            }
            leaf(&mut tree, name, value);
        }
        if status.is_empty() {
            tree.array(1).unsigned(0);
        }
        leaf(&mut tree, "time", &[1]);
        encode_call_certificate(&encode_certificate(&tree.finish(), &[7; 48], None))
    }

    #[test]
    fn an_updates_answer_is_its_certified_status() {
        let id = [5; 32];
        let check = |status: &[(&str, &[u8])], expected: Answer| {
            assert_eq!(of_update(&answer_with(status, &id), &id).unwrap(), expected);
        };
        check(&[("reply", b"hello"), ("status", b"replied")], Answer::Replied(b"hello".to_vec()));
        check(
            &[("error_code", b"IC0301"), ("reject_message", b"no such canister"), ("status", b"rejected")],
            rejected(),
        );
        check(&[("status", b"processing")], Answer::Pending);
        check(&[], Answer::Pending);
        let other = answer_with(&[("reply", b"hello"), ("status", b"replied")], &[6; 32]);
        assert_eq!(of_update(&other, &id).unwrap(), Answer::Pending, "another request's status is not this one's");
    }

    #[test]
    fn rejections_and_queries_are_read_from_the_answer_itself() {
        assert_eq!(of_update(&encode_rejection_sync(&REJECTION), &[0; 32]).unwrap(), rejected());
        let query = |answer| of_query(&encode_query_response(&answer, &[])).unwrap();
        assert_eq!(query(QueryAnswer::Replied(b"n")), Answer::Replied(b"n".to_vec()));
        assert_eq!(query(QueryAnswer::Rejected(REJECTION)), rejected());
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(of_query(b"<html>").is_err() && of_update(&[], &[0; 32]).is_err());
        // Nested beyond any tree: an error, not the end of the stack.
        let deep: Vec<u8> = [0x83, 2, 0x40].repeat(100_000);
        assert!(of_update(&encode_call_certificate(&encode_certificate(&deep, &[], None)), &[0; 32]).is_err());
    }
}
