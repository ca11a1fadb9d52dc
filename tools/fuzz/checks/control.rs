// What must hold for all bytes that come through the socket for operators; shared by the fuzz target and the test that replays its corpus.

use cyclotron_wire::{
    CONTROL_ANSWER_BYTES_MAX, CONTROL_REQUEST_BYTES_MAX, CONTROL_VERSION, ControlAnswer, ControlCommand, ControlError,
};

/// Takes the bytes for a request and for an answer: what is understood must be the same when it is said again.
pub fn check(input: &[u8]) {
    match ControlCommand::decode(input) {
        Ok(command) => {
            let again = command.encode();
            assert!(input.len() <= CONTROL_REQUEST_BYTES_MAX && again.len() <= CONTROL_REQUEST_BYTES_MAX);
            assert_eq!(ControlCommand::decode(&again), Ok(command));
        }
        Err(error) => refused(&error, input.len() > CONTROL_REQUEST_BYTES_MAX),
    }
    match ControlAnswer::decode(input) {
        Ok(answer) => assert_eq!(ControlAnswer::decode(&answer.encode()), Ok(answer)),
        Err(error) => refused(&error, input.len() > CONTROL_ANSWER_BYTES_MAX),
    }
}

/// Whether they are a request or an answer.
pub fn is_understood(input: &[u8]) -> bool {
    ControlCommand::decode(input).is_ok() || ControlAnswer::decode(input).is_ok()
}

fn refused(error: &ControlError, is_long: bool) {
    assert_eq!(*error == ControlError::TooLong, is_long);
    assert!(*error != ControlError::Version(u64::from(CONTROL_VERSION)));
    assert!(!error.to_string().is_empty());
}
