//! A running message: a coroutine over one seat.
//!
//! Enters: a [`Seated`] instance, an [`Entry`], a host. Leaves: [`Outcome`]. An execution is `Send`; it may resume on any thread,
//! because nothing on its stack is bound to one. Never here: the decision which message runs, or whether its effects are kept.
//!
//! Invariant: between resumptions the coroutine's stack holds frames of compiled code and libcalls only, none of which needs a destructor;
//! dropping a suspended execution therefore discards the stack without unwinding it.

use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;

use corosensei::stack::Stack;
use corosensei::{Coroutine, CoroutineResult};
use cyclotron_heap::DirtyReport;
use cyclotron_types::units::Instructions;

use super::activation::{Activation, Exit};
use super::arch;
use super::host::Host;
use super::instance::Seated;
use super::libcalls::LibcallsFor;
use super::signals;
use super::stack::PooledStack;
use super::trap::{Frame, Trap};
use super::value::{ValType, Value};
use crate::abi::TrapCode;
use crate::calls::{CallCosts, Recorder};
use crate::code::CodeTables;

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The function with this index.
    Function(u32),
    /// The function exported under this name.
    Export(&'a str),
    /// The function that this element of table 0 refers to: a callback.
    TableElement(u64),
}

/// An execution that has ended or stands at the end of a slice.
pub enum Outcome<H: Host> {
    /// The slice is used up; `resume` goes on.
    Suspended(Execution<H>),
    /// The function returned or trapped.
    Finished(Finished<H>),
}

/// What an execution leaves. Until [`Seated::commit`] or [`Seated::rollback`] the changes stand in the seat, uncommitted.
pub struct Finished<H> {
    /// The host, as given.
    pub host: H,
    /// The instance. After a trap everything has been rolled back.
    pub seated: Seated,
    /// Results of the function, or why it stopped.
    pub result: Result<Vec<Value>, Trap>,
    /// Instructions used, across slices. May exceed the limit by what the last block cost.
    pub instructions: Instructions,
    /// Heap pages whose bytes differ from before (counted before a trap's rollback).
    pub dirty_pages: u64,
    /// What its functions were charged since [`Execution::take_calls`], if its code was made to report that: all instructions used, at most the
    /// limit.
    pub calls: Option<CallCosts>,
}

/// A message in execution. Dropping it aborts it: all it did is rolled back and its seat is dropped; [`Execution::abort`] gives both back.
pub struct Execution<H: Host> {
    // Dropped by hand: a suspended coroutine must be reset, not unwound.
    coroutine: ManuallyDrop<Coroutine<(), (), Exit, PooledStack>>,
    // `None` only after finish or abort took it.
    seated: Option<Seated>,
    host: ManuallyDrop<UnsafeCell<H>>,
    results: Results,
}

/// How to read the results out of the argument buffer.
#[derive(Clone, Copy)]
struct Results {
    type_index: u32,
}

// SAFETY: the coroutine's stack holds only compiled frames, libcall frames and the entry closure with raw pointers into the boxed activation,
// all of which are valid on any thread; `H` is `Send`, the activation is owned.
unsafe impl<H: Host> Send for Execution<H> {}

/// The code to enter and how.
#[derive(Clone, Copy)]
struct Target {
    code: *const u8,
    trampoline: *const u8,
    type_index: u32,
}

impl<H: Host> Execution<H> {
    /// Prepares an execution; nothing runs before the first [`Execution::resume`].
    ///
    /// The message has begun on `seated` ([`Seated::begin_message`]). `limit` is its instruction limit, `resume` brings the slices. A callback that is missing, null or of another type, and arguments that
    /// do not fit, end it as a trap at the first `resume`.
    /// Errors: the kernel refuses a stack; the host and the seat come back. Panics: when no message has begun.
    pub fn start(
        mut seated: Seated,
        entry: Entry<'_>,
        args: &[Value],
        host: H,
        limit: Instructions,
    ) -> Result<Execution<H>, StartError<H>> {
        let stack = match PooledStack::take(seated.module().stack_needed()) {
            Ok(stack) => stack,
            Err(error) => return Err(StartError { error, seated, host }),
        };
        let pointer = SendPointer(seated.activation_ptr());
        let activation = seated.activation_mut();
        assert!(activation.seat.is_busy(), "a message begins before it is executed");
        activation.raised = None;
        activation.record.code = None;
        activation.used_before = 0;
        activation.budget = 0;
        activation.limit = limit.0.min(i64::MAX as u64);
        activation.calls = activation.module.reports_calls().then(|| Box::new(Recorder::new()));
        activation.stack = stack.limit().get()..stack.base().get();
        activation.guard = stack.guard();
        // SAFETY: the context is mapped and ours.
        unsafe {
            (*activation.vmctx).instructions = 0;
            (*activation.vmctx).activation = pointer.0.cast();
            (*activation.vmctx).libcalls =
                if activation.calls.is_some() { LibcallsFor::<H>::REPORTING } else { LibcallsFor::<H>::TABLE };
        }
        let target =
            find_target(activation, entry).and_then(|target| set_args(activation, &target, args).map(|()| target));
        let results = Results { type_index: target.map_or(0, |target| target.type_index) };
        let coroutine = Coroutine::with_stack(stack, move |yielder, ()| {
            let SendPointer(activation) = pointer;
            let target = match target {
                Ok(target) => target,
                Err(code) => {
                    // SAFETY: the activation is boxed, alive while the coroutine is, and nobody else touches it while we run.
                    unsafe { (*activation).record_trap_at_entry(code) };
                    return Exit::Trapped;
                }
            };
            // SAFETY: as above; the target is code of the activation's module, its arguments are in place.
            unsafe {
                (*activation).yielder = yielder;
                let args = (*activation).args.as_mut_ptr();
                arch::enter(target.trampoline, (*activation).vmctx, target.code, args);
            }
            Exit::Returned
        });
        Ok(Execution {
            coroutine: ManuallyDrop::new(coroutine),
            seated: Some(seated),
            host: ManuallyDrop::new(UnsafeCell::new(host)),
            results,
        })
    }

    /// Runs until the function ends or `slice` instructions (and what the last block exceeded them by) are used.
    pub fn resume(mut self, slice: Instructions) -> Outcome<H> {
        signals::prepare_thread();
        let activation = self.seated().activation_ptr();
        // SAFETY: the activation is boxed and ours; from here to the end of the switch only the coroutine and the signal
        // handler use it, through this pointer.
        let result = unsafe {
            (*activation).begin_slice(slice.0);
            (*activation).host = self.host.get().cast();
            (*activation).trap_handler = Some(self.coroutine.trap_handler());
            let outer = signals::set_current(activation);
            let result = self.coroutine.resume(());
            signals::set_current(outer);
            (*activation).trap_handler = None;
            result
        };
        match result {
            CoroutineResult::Yield(()) => Outcome::Suspended(self),
            CoroutineResult::Return(exit) => Outcome::Finished(self.finish(exit)),
        }
    }

    /// Gives an unfinished execution up: the instance as it was before the message, and the host.
    pub fn abort(mut self) -> (Seated, H) {
        let (seated, host) = self.take_apart();
        (seated, host)
    }

    /// Instructions used so far, across slices.
    pub fn instructions_used(&self) -> Instructions {
        let activation = self.seated().activation();
        // SAFETY: the context is mapped and nothing runs.
        Instructions(activation.used(unsafe { (*activation.vmctx).instructions }))
    }

    /// What its functions were charged since this was asked last, if its code was made to report that ([`crate::lower::Config::calls`]).
    pub fn take_calls(&mut self) -> Option<CallCosts> {
        let activation = self.seated_mut().activation_mut();
        // SAFETY: the context is mapped and nothing runs.
        activation.take_calls(unsafe { (*activation.vmctx).instructions })
    }

    /// The instance; its globals and heap are in the middle of the message.
    pub fn seated(&self) -> &Seated {
        match &self.seated {
            Some(seated) => seated,
            None => unreachable!("an execution keeps its instance until it is consumed"),
        }
    }

    fn seated_mut(&mut self) -> &mut Seated {
        match &mut self.seated {
            Some(seated) => seated,
            None => unreachable!("an execution keeps its instance until it is consumed"),
        }
    }

    /// The host of a suspended execution.
    pub fn host(&mut self) -> &mut H {
        self.host.get_mut()
    }

    fn finish(mut self, exit: Exit) -> Finished<H> {
        let results = self.results;
        let activation = self.seated_mut().activation_mut();
        let counter = match exit {
            // SAFETY: the context is mapped and nothing runs.
            Exit::Returned => unsafe { (*activation.vmctx).instructions },
            Exit::Trapped => activation.record.counter,
        };
        let instructions = Instructions(activation.used(counter));
        let calls = activation.take_calls(counter);
        activation.calls = None;
        let DirtyReport { pages_changed: dirty_pages, saved } = activation.seat.finish();
        activation.profile.note(instructions, saved);
        let result = match exit {
            Exit::Returned => Ok(read_results(activation, results)),
            Exit::Trapped => {
                let trap = explain(activation);
                activation.rollback();
                Err(trap)
            }
        };
        let was_deep = matches!(&result, Err(Trap { code: TrapCode::StackOverflow, .. }));
        let mut this = ManuallyDrop::new(self);
        let seated = this.take_seated();
        // SAFETY: `this` is never dropped or used again, so each field is taken once.
        let (coroutine, host) =
            unsafe { (ManuallyDrop::take(&mut this.coroutine), ManuallyDrop::take(&mut this.host).into_inner()) };
        let mut stack = coroutine.into_stack();
        if was_deep {
            stack.trim_after_use();
        }
        drop(stack);
        Finished { host, seated, result, instructions, dirty_pages, calls }
    }

    fn take_seated(&mut self) -> Seated {
        match self.seated.take() {
            Some(seated) => seated,
            None => unreachable!("an execution keeps its instance until it is consumed"),
        }
    }

    /// Discards the coroutine, rolls back, and moves the parts out; `self` is not dropped afterwards by its callers' contract below.
    fn take_apart(&mut self) -> (Seated, H) {
        let mut seated = self.take_seated();
        // SAFETY: `seated` was there, so nothing was taken yet; from now on `drop` sees `None` and touches neither field. The stack holds
        // nothing that needs a destructor (the module's invariant), so resetting equals leaving it.
        let host = unsafe {
            self.coroutine.force_reset();
            ManuallyDrop::drop(&mut self.coroutine);
            ManuallyDrop::take(&mut self.host).into_inner()
        };
        seated.activation_mut().rollback();
        (seated, host)
    }
}

impl<H: Host> Drop for Execution<H> {
    fn drop(&mut self) {
        if self.seated.is_some() {
            drop(self.take_apart());
        }
    }
}

/// The kernel refused a stack; what was given comes back.
pub struct StartError<H> {
    /// The kernel's error.
    pub error: std::io::Error,
    /// As given.
    pub seated: Seated,
    /// As given.
    pub host: H,
}

impl<H> std::fmt::Debug for StartError<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no stack for an execution: {}", self.error)
    }
}

impl<H> std::fmt::Display for StartError<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no stack for an execution: {}", self.error)
    }
}

impl<H> std::error::Error for StartError<H> {}

/// An address that travels with its execution.
struct SendPointer(*mut Activation);

fn find_target(activation: &Activation, entry: Entry<'_>) -> Result<Target, TrapCode> {
    let module = &activation.module;
    let function = match entry {
        Entry::Function(function) => function,
        Entry::Export(name) => module.export_function(name).ok_or(TrapCode::BadSignature)?,
        Entry::TableElement(element) => {
            let elements = activation.tables.first().ok_or(TrapCode::TableOutOfBounds)?;
            let word = usize::try_from(element).ok().and_then(|element| elements.get(element));
            let word = *word.ok_or(TrapCode::TableOutOfBounds)?;
            match module.value(ValType::FuncRef, u128::from(word)) {
                Value::FuncRef(Some(function)) => function,
                _ => return Err(TrapCode::IndirectCallToNull),
            }
        }
    };
    let type_index = *module.shape().functions.get(function as usize).ok_or(TrapCode::BadSignature)?;
    let code = module.code().function(function).ok_or(TrapCode::BadSignature)?;
    let trampoline = module.code().entry_trampoline(type_index).ok_or(TrapCode::BadSignature)?;
    Ok(Target { code, trampoline, type_index })
}

/// Puts the arguments where the entry trampoline reads them, with room for the results.
fn set_args(activation: &mut Activation, target: &Target, args: &[Value]) -> Result<(), TrapCode> {
    // Not a clone of the module: threads that run the same canister would wait for its count.
    let Activation { module, args: words, .. } = activation;
    let ty = &module.shape().types[target.type_index as usize];
    if ty.params.len() != args.len() || ty.params.iter().zip(args).any(|(ty, arg)| *ty != arg.ty()) {
        return Err(TrapCode::BadSignature);
    }
    words.clear();
    for arg in args {
        words.push(module.word(*arg).ok_or(TrapCode::BadSignature)?);
    }
    words.resize(ty.params.len().max(ty.results.len()), 0);
    Ok(())
}

fn read_results(activation: &Activation, results: Results) -> Vec<Value> {
    let module = &activation.module;
    match module.shape().types.get(results.type_index as usize) {
        Some(ty) => ty.results.iter().zip(&activation.args).map(|(ty, word)| module.value(*ty, *word)).collect(),
        None => Vec::new(),
    }
}

/// The recorded trap in terms of the module.
fn explain(activation: &Activation) -> Trap {
    let record = &activation.record;
    let tables = activation.module.code().tables();
    let mut frames = Vec::new();
    for (depth, pc) in record.pcs().iter().enumerate() {
        if let Some(frame) = explain_frame(activation, tables, *pc, depth == 0 && !record.by_libcall) {
            frames.push(frame);
        }
    }
    Trap { code: record.code.unwrap_or(TrapCode::Unreachable), frames }
}

fn explain_frame(activation: &Activation, tables: &CodeTables, pc: usize, faulted: bool) -> Option<Frame> {
    let offset = tables.offset(pc)?;
    // A return address may be the first byte after its function.
    let function = tables.function_at(if faulted { offset } else { offset.saturating_sub(1) })?;
    let site = tables.trap_site(offset).filter(|_| faulted).map(|site| site.wasm_offset);
    let wasm_offset = site.or_else(|| tables.call_site(offset).map(|site| site.wasm_offset));
    Some(Frame { function, name: activation.module.shape().function_name(function).map(String::from), wasm_offset })
}
