//! The few things that depend on the processor: entering compiled code, reading and redirecting a signal's machine context.
//!
//! Enters: addresses, a `ucontext_t`. Leaves: registers by meaning. Never here: a decision.

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{CallerFrame, Context, enter, jump, pass_caller_frame};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("compiled code runs on x86-64 only so far: this module is what another processor needs");

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use corosensei::trap::TrapHandlerRegs;
    use libc::{REG_R15, REG_RBP, REG_RDI, REG_RIP, REG_RSI, REG_RSP};

    use crate::abi::VmCtx;

    /// Calls an entry trampoline: `trampoline(vmctx, code, args)`.
    ///
    /// # Safety
    /// `trampoline` and `code` are of one live module and fit each other; `vmctx` is a seat prepared for it; `args` has room for the
    /// parameters and for the results.
    #[inline]
    pub(crate) unsafe fn enter(trampoline: *const u8, vmctx: *mut VmCtx, code: *const u8, args: *mut u128) {
        // SAFETY: the caller's promise. The trampoline follows the C convention except that it leaves the pinned register changed,
        // hence the clobber of r15.
        unsafe {
            core::arch::asm!(
                "call {trampoline}",
                trampoline = in(reg) trampoline,
                in("rdi") vmctx,
                in("rsi") code,
                in("rdx") args,
                out("r15") _,
                clobber_abi("sysv64"),
            );
        }
    }

    /// Where the compiled code that called a libcall stands.
    #[repr(C)]
    #[derive(Clone, Copy)]
    pub(crate) struct CallerFrame {
        /// Return address.
        pub(crate) pc: usize,
        /// Frame pointer.
        pub(crate) fp: usize,
    }

    /// Body of a naked function of two arguments that calls `$real(first, second, CallerFrame)`: two words in rdx and rcx.
    macro_rules! pass_caller_frame {
        ($real:path) => {
            core::arch::naked_asm!("mov rdx, [rsp]", "mov rcx, rbp", "jmp {real}", real = sym $real)
        };
    }
    pub(crate) use pass_caller_frame;

    /// Goes on at what corosensei prepared, abandoning the current frames.
    ///
    /// # Safety
    /// We run on the coroutine's stack and no abandoned frame needs a destructor.
    pub(crate) unsafe fn jump(registers: TrapHandlerRegs) -> ! {
        let TrapHandlerRegs { rip, rsp, rbp, rdi, rsi } = registers;
        // SAFETY: the caller's promise; all registers that corosensei names are set.
        unsafe {
            core::arch::asm!(
                "mov rsp, {rsp}",
                "mov rbp, {rbp}",
                "jmp {rip}",
                rsp = in(reg) rsp,
                rbp = in(reg) rbp,
                rip = in(reg) rip,
                in("rdi") rdi,
                in("rsi") rsi,
                options(noreturn),
            )
        }
    }

    /// The interrupted thread's registers.
    pub(crate) struct Context(*mut libc::ucontext_t);

    impl Context {
        /// # Safety
        /// `context` is the third argument of a running `SA_SIGINFO` handler.
        pub(crate) unsafe fn new(context: *mut libc::c_void) -> Context {
            Context(context.cast())
        }

        fn get(&self, register: i32) -> usize {
            // SAFETY: `new`'s promise; the register numbers are indexes of gregs.
            unsafe { (*self.0).uc_mcontext.gregs[register as usize] as usize }
        }

        fn set(&mut self, register: i32, value: u64) {
            // SAFETY: `new`'s promise; the kernel restores what the handler leaves here.
            unsafe { (*self.0).uc_mcontext.gregs[register as usize] = value as i64 }
        }

        /// Address of the interrupted instruction.
        pub(crate) fn pc(&self) -> usize {
            self.get(REG_RIP)
        }

        /// Stack pointer.
        pub(crate) fn sp(&self) -> usize {
            self.get(REG_RSP)
        }

        /// Frame pointer.
        pub(crate) fn fp(&self) -> usize {
            self.get(REG_RBP)
        }

        /// The instruction counter, in Cranelift's pinned register.
        pub(crate) fn counter(&self) -> i64 {
            self.get(REG_R15) as i64
        }

        /// Continues as if the code at `resume` had just been reached and called `thunk`, a
        /// [`CompiledModule::check_thunk`](crate::compiled::CompiledModule::check_thunk), with `vmctx`.
        ///
        /// # Safety
        /// Compiled code was interrupted at a check: nothing lives below its stack pointer, which is aligned to 16 bytes, and the stack has
        /// room for a call.
        pub(crate) unsafe fn call_for_check(&mut self, thunk: usize, resume: usize, vmctx: *mut VmCtx) {
            // A frame as any function begins it, and the register that is about to hold the argument.
            let frame = [0, self.get(REG_RDI), self.fp(), resume];
            let bottom = self.sp() - size_of_val(&frame);
            // SAFETY: the caller's promise.
            unsafe { (bottom as *mut [usize; 4]).write(frame) };
            self.set(REG_RSP, bottom as u64);
            self.set(REG_RBP, bottom as u64 + 16);
            self.set(REG_RDI, vmctx as u64);
            self.set(REG_RIP, thunk as u64);
        }

        /// Continues at what corosensei prepared, instead of at the fault.
        pub(crate) fn redirect(&mut self, registers: TrapHandlerRegs) {
            let TrapHandlerRegs { rip, rsp, rbp, rdi, rsi } = registers;
            self.set(REG_RIP, rip);
            self.set(REG_RSP, rsp);
            self.set(REG_RBP, rbp);
            self.set(REG_RDI, rdi);
            self.set(REG_RSI, rsi);
        }
    }
}
