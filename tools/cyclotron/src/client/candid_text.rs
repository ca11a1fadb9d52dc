//! Candid arguments and replies as people write and read them.
//!
//! With a canister's interface, numbers get the types that it wants and records show their field names; without it, types are
//! guessed from the text (`1 : nat` helps) and field names are hashes, because they are not in the bytes.

use candid::types::{Function, Type};
use candid::{IDLArgs, TypeEnv};
use candid_parser::utils::CandidSource;

/// Longest text that is parsed: larger arguments come from programs.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// A canister's interface, or none.
#[derive(Default)]
pub struct Interface(Option<(TypeEnv, Type)>);

impl Interface {
    /// Reads an interface description (.did).
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("it is {} bytes long; at most {TEXT_BYTES_MAX} are read", text.len()));
        }
        let (env, actor) = CandidSource::Text(text).load().map_err(|error| error.to_string())?;
        Ok(Self(actor.map(|actor| (env, actor))))
    }

    fn method(&self, name: &str) -> Result<Option<(&TypeEnv, Function)>, String> {
        let Some((env, actor)) = &self.0 else { return Ok(None) };
        match env.get_method(actor, name) {
            Ok(function) => Ok(Some((env, function.clone()))),
            Err(_) => Err(format!("the canister's interface has no method {name:?}")),
        }
    }

    /// The bytes of a method's arguments, written such as `(42, "x")`.
    pub fn encode(&self, method: &str, text: &str) -> Result<Vec<u8>, String> {
        let args = parse(text)?;
        match self.method(method)? {
            None => args.to_bytes(),
            Some((env, function)) => args.to_bytes_with_types(env, &function.args),
        }
        .map_err(|error| format!("arguments {text}: {error}"))
    }

    /// The text of a method's reply.
    pub fn decode(&self, method: &str, bytes: &[u8]) -> Result<String, String> {
        match self.method(method)? {
            None => IDLArgs::from_bytes(bytes),
            Some((env, function)) => IDLArgs::from_bytes_with_types(bytes, env, &function.rets),
        }
        .map(|args| args.to_string())
        .map_err(|error| format!("the reply is not the Candid that was expected ({error}); see its bytes with --raw"))
    }
}

/// The bytes of arguments whose types are guessed from the text.
pub fn encode(text: &str) -> Result<Vec<u8>, String> {
    Interface::default().encode("", text)
}

fn parse(text: &str) -> Result<IDLArgs, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("the arguments are {} bytes long; at most {TEXT_BYTES_MAX} are read", text.len()));
    }
    candid_parser::parse_idl_args(text).map_err(|error| format!("arguments {text}: {error}"))
}
