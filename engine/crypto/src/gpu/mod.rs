//! Signatures and hashes on a GPU: a thread a signature, each checked by itself.
//!
//! Hashes of messages and numbers modulo a group's order are made here; points are the device's. A device that fails is not asked again: whoever gets an error
//! finds the verdicts on the processor instead, and nothing is lost.

mod jobs;
mod learn;

use crate::ecdsa;
use crate::verify::{Scheme, SignatureTask};
use cyclotron_gpu::{Device, Kernel};
use cyclotron_shaders::{Curve, EcdsaJob, Ed25519Job, LevelJob, LevelParams, Params, Program, VALID};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub use cyclotron_gpu::{Choice, Failed};
pub use cyclotron_shaders::Width;
pub use learn::{Learned, learn, measure};
pub(crate) use learn::{forget, wins};

/// Jobs at once. A job takes 6.3 KB of the device, those of Ed25519 with 32-bit limbs; all kernels together half a gigabyte.
const PLACES_HARDWARE: usize = 32_768;
const PLACES_SOFTWARE: usize = 256;

/// A device, and the kernels that were asked for so far.
#[derive(Debug)]
pub struct Gpu {
    device: Arc<Device>,
    places: usize,
    ed25519: Lane<Params, Ed25519Job, u32>,
    p256: Lane<Params, EcdsaJob, u32>,
    secp256k1: Lane<Params, EcdsaJob, u32>,
    level: Lane<LevelParams, LevelJob, [u8; 32]>,
    checked: AtomicU64,
}

/// A kernel, once it is asked for.
#[derive(Debug)]
struct Lane<P, J, R>(OnceLock<Result<Shared<P, J, R>, Failed>>);

/// One batch at a time.
type Shared<P, J, R> = Mutex<Loaded<P, J, R>>;

/// A kernel, and buffers of the host that keep their memory.
#[derive(Debug)]
struct Loaded<P, J, R> {
    kernel: Kernel<P, J, R>,
    jobs: Vec<J>,
    results: Vec<R>,
}

impl<P, J, R> Lane<P, J, R>
where
    P: IntoBytes + Immutable,
    J: IntoBytes + Immutable,
    R: FromBytes + IntoBytes + Immutable,
{
    /// Runs the jobs that `fill` makes, and shows their results to `take` in the same order, with what `fill` returned.
    fn run<T>(
        &self,
        load: impl FnOnce() -> Result<Kernel<P, J, R>, Failed>,
        fill: impl FnOnce(&mut Vec<J>) -> T,
        params: impl Fn(u32, u32) -> P,
        take: impl FnOnce(T, &[R]),
    ) -> Result<(), Failed> {
        let loaded = self.0.get_or_init(|| {
            let kernel = load()?;
            Ok(Mutex::new(Loaded { kernel, jobs: Vec::new(), results: Vec::new() }))
        });
        // Whoever panicked left buffers that are filled anew.
        let mut loaded = loaded.as_ref().map_err(Failed::clone)?.lock().unwrap_or_else(PoisonError::into_inner);
        let Loaded { kernel, jobs, results } = &mut *loaded;
        jobs.clear();
        let places = fill(jobs);
        results.clear();
        results.resize_with(jobs.len(), R::new_zeroed);
        kernel.run(params, jobs, results)?;
        take(places, results);
        Ok(())
    }
}

impl Gpu {
    /// Opens a device, and compiles nothing yet. Errors: there is none.
    pub fn open(choice: Choice, width: Option<Width>) -> Result<Self, Failed> {
        let places = match choice {
            Choice::Hardware => PLACES_HARDWARE,
            Choice::Software => PLACES_SOFTWARE,
        };
        Ok(Self {
            device: Arc::new(Device::open(choice, width)?),
            places,
            ed25519: Lane(OnceLock::new()),
            p256: Lane(OnceLock::new()),
            secp256k1: Lane(OnceLock::new()),
            level: Lane(OnceLock::new()),
            checked: AtomicU64::new(0),
        })
    }

    /// The device that [`crate::Backend::Gpu`] stands for; opened when it is asked for first.
    pub fn hardware() -> Result<&'static Self, &'static Failed> {
        static HARDWARE: OnceLock<Result<Gpu, Failed>> = OnceLock::new();
        HARDWARE.get_or_init(|| Self::open(Choice::Hardware, None)).as_ref()
    }

    /// The same kernels on this processor, by Vulkan's software driver: for tests.
    pub fn software(width: Width) -> Result<&'static Self, &'static Failed> {
        static SOFTWARE: [OnceLock<Result<Gpu, Failed>>; 2] = [const { OnceLock::new() }; 2];
        let of_width = match width {
            Width::Bits32 => &SOFTWARE[0],
            Width::Bits64 => &SOFTWARE[1],
        };
        of_width.get_or_init(|| Self::open(Choice::Software, Some(width))).as_ref()
    }

    /// What computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Signatures that it has checked.
    pub fn checked(&self) -> u64 {
        self.checked.load(Ordering::Relaxed)
    }

    /// Checks tasks of one scheme and writes the verdicts to the same places. Errors: it cannot; nothing in `valid` is a verdict then.
    ///
    /// Panics: if they are not of one length.
    pub fn verify(&self, scheme: Scheme, tasks: &[SignatureTask<'_>], valid: &mut [bool]) -> Result<(), Failed> {
        assert_eq!(tasks.len(), valid.len(), "one verdict a task");
        self.device.check()?;
        valid.fill(false);
        let mut is_complete = true;
        let take = |places: Vec<usize>, verdicts: &[u32]| {
            for (at, verdict) in places.into_iter().zip(verdicts) {
                valid[at] = *verdict == VALID;
                // Zero is what a kernel that did not run leaves.
                is_complete &= *verdict != 0;
            }
        };
        let params = |count, places| Params::new(self.device.width(), count, places);
        match scheme {
            Scheme::Ed25519 => {
                let load =
                    || self.load(cyclotron_shaders::ed25519(self.device.width()), params, &jobs::ed25519_table());
                self.ed25519.run(load, |jobs| jobs::ed25519(tasks, jobs), params, take)?;
            }
            Scheme::EcdsaP256 => {
                let load = || self.load_ecdsa(Curve::P256, params, &jobs::ecdsa_table(&ecdsa::p256_multiples()));
                let fill = |jobs: &mut _| jobs::ecdsa(scheme, tasks, ecdsa::p256_equations, jobs);
                self.p256.run(load, fill, params, take)?;
            }
            Scheme::EcdsaSecp256k1 => {
                let table = || jobs::ecdsa_table(&ecdsa::secp256k1_multiples());
                let load = || self.load_ecdsa(Curve::Secp256k1, params, &table());
                let fill = |jobs: &mut _| jobs::ecdsa(scheme, tasks, ecdsa::secp256k1_equations, jobs);
                self.secp256k1.run(load, fill, params, take)?;
            }
            Scheme::Bls12381 => {
                return Err(Failed(format!("{} has no kernel", scheme.name())));
            }
        }
        if !is_complete {
            return Err(Failed(format!("{} left a batch undone", self.device.name())));
        }
        self.checked.fetch_add(tasks.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// See [`crate::merkle_level`]. Errors: it cannot, or the prefix is too long for it; nothing in `parents` is a hash then.
    ///
    /// Panics: if there are not twice as many children as parents.
    pub fn merkle_level(&self, prefix: &[u8], children: &[[u8; 32]], parents: &mut [[u8; 32]]) -> Result<(), Failed> {
        assert_eq!(children.len(), 2 * parents.len(), "two children a parent");
        let params = LevelParams::new(0, prefix).ok_or_else(|| Failed("a prefix of more than 63 bytes".to_owned()))?;
        self.level.run(
            || self.load(cyclotron_shaders::level(), |count, _| LevelParams { count, ..params }, &[]),
            |jobs| jobs.extend_from_slice(children.as_chunks::<2>().0),
            |count, _| LevelParams { count, ..params },
            |(), hashes| parents.copy_from_slice(hashes),
        )
    }

    fn load_ecdsa(
        &self,
        curve: Curve,
        params: impl Fn(u32, u32) -> Params,
        table: &[EcdsaJob],
    ) -> Result<Kernel<Params, EcdsaJob, u32>, Failed> {
        self.load(cyclotron_shaders::ecdsa(curve, self.device.width()), params, table)
    }

    fn load<P, J, R>(
        &self,
        program: Program,
        params: impl Fn(u32, u32) -> P,
        table: &[J],
    ) -> Result<Kernel<P, J, R>, Failed>
    where
        P: IntoBytes + Immutable,
        J: IntoBytes + Immutable,
        R: FromBytes + IntoBytes + Immutable,
    {
        Kernel::new(&self.device, &program, self.places, params, table)
    }
}
