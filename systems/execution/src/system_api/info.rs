//! What a canister can learn and set besides calls, cycles and memory: time, timers, certified data, environment variables, logs.

use super::{Answered, NOTHING, SystemApi, arguments, copy_out, take};
use crate::reject::{Blame, Failure};
use cyclotron_types::Principal;
use cyclotron_types::canister::LogRecord;
use cyclotron_types::limits::{CERTIFIED_DATA_BYTES_MAX, ENVIRONMENT_VARIABLE_BYTES_MAX};
use cyclotron_types::units::Time;
use cyclotron_wasm::runtime::Caller;

/// Longest message kept of `ic0.trap`. A `system_api/src/lib.rs`.
const TRAP_BYTES_MAX: u64 = 16 << 10;

impl SystemApi {
    pub(super) fn performance_counter(&self, caller: &Caller<'_>, which: u64) -> Answered {
        let used = caller.instructions_used();
        match which {
            0 => Ok(used.0),
            1 => Ok(self.identity.context_instructions.saturating_add(used).0),
            other => Err(Failure::toolchain(format!("Error getting performance counter type {other}")).into()),
        }
    }

    pub(super) fn global_timer_set(&mut self, at: u64) -> u64 {
        let before = std::mem::replace(&mut self.written.timer_now, Time(at));
        self.written.timer = Some(Time(at));
        before.0
    }

    pub(super) fn is_controller(&self, caller: &Caller<'_>, src: u64, size: u64) -> Answered {
        let bytes = take(caller, "is_controller", src, size)?;
        let principal = Principal::try_from_slice(bytes).map_err(|_| Failure::InvalidPrincipal)?;
        Ok(u64::from(self.identity.controllers().contains(&principal)))
    }

    pub(super) fn certified_data_set(&mut self, caller: &Caller<'_>, src: u64, size: u64) -> Answered {
        if size > CERTIFIED_DATA_BYTES_MAX as u64 {
            return Err(Failure::Contract {
                error: format!(
                    "ic0_certified_data_set failed because the passed data must be no larger than {CERTIFIED_DATA_BYTES_MAX} bytes. \
                     Found {size} bytes."
                ),
                blame: Blame::Author("Try certifying just the hash of your data instead of the full structure.", "certified-data-too-large"),
            }
            .into());
        }
        let bytes = take(caller, "certified_data_set", src, size)?;
        let mut data = [0; CERTIFIED_DATA_BYTES_MAX];
        data[..bytes.len()].copy_from_slice(bytes);
        self.written.certified_data = Some((bytes.len() as u8, data));
        NOTHING
    }

    fn certificate(&self) -> Result<&[u8], Failure> {
        self.message.certificate.as_deref().ok_or_else(|| {
            Failure::toolchain("ic0.data_certificate: no data certificate is available in this execution")
        })
    }

    pub(super) fn data_certificate_size(&self) -> Answered {
        Ok(self.certificate()?.len() as u64)
    }

    pub(super) fn data_certificate_copy(&mut self, caller: &mut Caller<'_>, args: &[u64]) -> Answered {
        self.written.certificate_seen = true;
        copy_out(caller, "data_certificate_copy", args, self.certificate()?)
    }

    pub(super) fn environment(&self) -> &[(String, String)] {
        self.identity.environment.as_deref().unwrap_or(&[])
    }

    fn variable_at(&self, index: u64) -> Result<&str, Failure> {
        let variables = self.environment();
        let found = usize::try_from(index).ok().and_then(|index| variables.get(index));
        found.map(|(name, _)| name.as_str()).ok_or_else(|| {
            Failure::toolchain(format!(
                "environment variable index {index} out of bounds, number of variables: {}",
                variables.len()
            ))
        })
    }

    /// The value of a variable whose name lies in the heap; `None` when there is none of this name.
    fn variable_named(&self, caller: &Caller<'_>, what: &str, src: u64, size: u64) -> Answered<Option<&str>> {
        if size > ENVIRONMENT_VARIABLE_BYTES_MAX as u64 {
            return Err(Failure::toolchain(format!(
                "ic0.{what}: environment variable name of {size} bytes exceeds the limit of {ENVIRONMENT_VARIABLE_BYTES_MAX}"
            ))
            .into());
        }
        let name = take(caller, what, src, size)?;
        let name = std::str::from_utf8(name)
            .map_err(|_| Failure::toolchain(format!("ic0.{what}: environment variable name is not valid UTF-8")))?;
        let found = self.environment().binary_search_by(|(known, _)| known.as_str().cmp(name)).ok();
        Ok(found.and_then(|at| self.environment().get(at)).map(|(_, value)| value.as_str()))
    }

    pub(super) fn env_var_name_size(&self, index: u64) -> Answered {
        Ok(self.variable_at(index)?.len() as u64)
    }

    pub(super) fn env_var_name_copy(&self, caller: &mut Caller<'_>, args: &[u64]) -> Answered {
        let [index, rest @ ..] = args else { return Err(arguments("env_var_name_copy")) };
        copy_out(caller, "env_var_name_copy", rest, self.variable_at(*index)?.as_bytes())
    }

    pub(super) fn env_var_name_exists(&self, caller: &Caller<'_>, src: u64, size: u64) -> Answered {
        Ok(u64::from(self.variable_named(caller, "env_var_name_exists", src, size)?.is_some()))
    }

    pub(super) fn env_var_value_size(&self, caller: &Caller<'_>, src: u64, size: u64) -> Answered {
        match self.variable_named(caller, "env_var_value_size", src, size)? {
            Some(value) => Ok(value.len() as u64),
            None => Err(no_variable("env_var_value_size").into()),
        }
    }

    pub(super) fn env_var_value_copy(&self, caller: &mut Caller<'_>, args: &[u64]) -> Answered {
        let [src, size, rest @ ..] = args else { return Err(arguments("env_var_value_copy")) };
        match self.variable_named(caller, "env_var_value_copy", *src, *size)? {
            Some(value) => copy_out(caller, "env_var_value_copy", rest, value.as_bytes()),
            None => Err(no_variable("env_var_value_copy").into()),
        }
    }

    pub(super) fn debug_print(&mut self, caller: &Caller<'_>, src: u64, size: u64) -> Answered {
        let line = caller.read(src, size).unwrap_or(b"(debug_print message out of memory bounds)");
        self.written.add_line(line);
        NOTHING
    }

    pub(super) fn trap(&self, caller: &Caller<'_>, src: u64, size: u64) -> Answered {
        let message = match caller.read(src, size.min(TRAP_BYTES_MAX)) {
            Ok(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Err(_) => "(trap message out of memory bounds)".to_string(),
        };
        Err(Failure::CalledTrap { message, backtrace: Vec::new() }.into())
    }
}

fn no_variable(what: &str) -> Failure {
    Failure::toolchain(format!("ic0.{what}: there is no environment variable of this name"))
}

impl super::Written {
    /// Adds a line to the message's part of the log, cut to the room that is left for it; a line without any room is dropped.
    pub(crate) fn add_line(&mut self, line: &[u8]) {
        let Some(room) = self.log_room.remaining.checked_sub(LogRecord::OVERHEAD) else { return };
        let kept = (line.len() as u64).min(room) as usize;
        self.log_room.remaining = room - kept as u64;
        self.log.push(line[..kept].to_vec());
    }
}
