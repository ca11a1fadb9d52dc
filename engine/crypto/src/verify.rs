//! One call that checks many signatures.

use crate::bls::{BlsTask, Suite};
use crate::ed25519::{Kernel, Signed};
use crate::gpu::{self, Failed, Gpu, Width};
use crate::key::PublicKey;
use crate::{bls, ecdsa, ed25519};
use std::time::{Duration, Instant};

/// One signature to check.
#[derive(Clone, Copy, Debug)]
pub struct SignatureTask<'a> {
    /// Who is said to have signed.
    pub key: &'a PublicKey,
    /// What is said to be signed, domain separator included.
    pub message: &'a [u8],
    /// The signature: 64 bytes `R || S` (Ed25519) or `r || s` big-endian (ECDSA over SHA-256), 48 bytes compressed G1 (BLS).
    pub signature: &'a [u8],
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The key's holder signed the message.
    Valid,
    /// Not so, for whatever reason: wrong length, no point on the curve, wrong signature.
    Invalid,
}

impl From<bool> for Verdict {
    fn from(valid: bool) -> Self {
        if valid { Self::Valid } else { Self::Invalid }
    }
}

/// The machinery that a batch runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// One signature after the other on this thread; defines what is valid.
    Scalar,
    /// Ed25519 and BLS signatures by one random linear combination of each kind, on this thread; the others one after the other, by what is faster.
    Combined,
    /// As `Combined`, Ed25519, ECDSA and the points of BLS signatures by our own arithmetic, without lanes.
    Portable,
    /// As `Combined`, these in four lanes of AVX2.
    Avx2,
    /// What `Avx2` computes, on arrays: for tests.
    Avx2Twin,
    /// As `Combined`, these in eight lanes of AVX-512 IFMA.
    Ifma,
    /// What `Ifma` computes, on arrays: for tests.
    IfmaTwin,
    /// One signature a thread of a GPU; BLS signatures as the fastest of the others.
    Gpu,
    /// What `Gpu` computes where there are 32-bit integers alone, by Vulkan's software driver: for tests.
    GpuTwin32,
    /// What `Gpu` computes where there are 64-bit integers, by Vulkan's software driver: for tests.
    GpuTwin64,
}

/// Which rule a signature is checked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Ed25519 by the rule of ZIP 215.
    Ed25519,
    /// ECDSA over SHA-256 on P-256.
    EcdsaP256,
    /// ECDSA over SHA-256 on secp256k1.
    EcdsaSecp256k1,
    /// BLS12-381 with signatures in G1.
    Bls12381,
}

impl Scheme {
    const ALL: [Self; 4] = [Self::Ed25519, Self::EcdsaP256, Self::EcdsaSecp256k1, Self::Bls12381];

    /// As in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256 => "ecdsa_p256",
            Self::EcdsaSecp256k1 => "ecdsa_secp256k1",
            Self::Bls12381 => "bls12_381",
        }
    }

    pub(crate) fn of(key: &PublicKey) -> Self {
        match key {
            PublicKey::Ed25519(_) => Self::Ed25519,
            PublicKey::EcdsaP256(_) => Self::EcdsaP256,
            PublicKey::EcdsaSecp256k1(_) => Self::EcdsaSecp256k1,
            PublicKey::Bls12381(_) => Self::Bls12381,
        }
    }
}

/// The signatures of one scheme in a batch, and what it took to check them. For metrics: nothing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Their scheme.
    pub scheme: Scheme,
    /// What checked them.
    pub backend: Backend,
    /// How many.
    pub signatures: usize,
    /// How many of them are valid.
    pub valid: usize,
    /// Time on this thread's clock.
    pub elapsed: Duration,
}

impl Backend {
    const ALL: [Self; 7] =
        [Self::Scalar, Self::Combined, Self::Portable, Self::Avx2Twin, Self::Avx2, Self::IfmaTwin, Self::Ifma];

    /// Those that this machine's processor can run; the first defines what is valid.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|backend| backend.is_available()).collect()
    }

    /// Those on devices that Vulkan finds. Cost: loads drivers, the first time.
    pub fn on_devices() -> Vec<Self> {
        let all = [Self::Gpu, Self::GpuTwin32, Self::GpuTwin64];
        all.into_iter().filter(|backend| backend.device().is_some_and(|found| found.is_ok())).collect()
    }

    /// What it runs on, if that is no processor.
    pub fn device(self) -> Option<Result<&'static Gpu, &'static Failed>> {
        match self {
            Self::Gpu => Some(Gpu::hardware()),
            Self::GpuTwin32 => Some(Gpu::software(Width::Bits32)),
            Self::GpuTwin64 => Some(Gpu::software(Width::Bits64)),
            _ => None,
        }
    }

    /// As in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Combined => "combined",
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx2Twin => "avx2_twin",
            Self::Ifma => "ifma",
            Self::IfmaTwin => "ifma_twin",
            Self::Gpu => "gpu",
            Self::GpuTwin32 => "gpu_twin_32",
            Self::GpuTwin64 => "gpu_twin_64",
        }
    }

    /// Whether it computes on arrays what another one does in vector registers: slowly.
    pub const fn is_twin(self) -> bool {
        matches!(self, Self::Avx2Twin | Self::IfmaTwin)
    }

    fn is_available(self) -> bool {
        self.kernel().is_none_or(Kernel::is_available)
    }

    /// What sums up Ed25519 signatures, and computes points of ECDSA and BLS, if not crates.
    pub(crate) fn kernel(self) -> Option<Kernel> {
        match self {
            Self::Scalar | Self::Combined | Self::Gpu | Self::GpuTwin32 | Self::GpuTwin64 => None,
            Self::Portable => Some(Kernel::Single),
            Self::Avx2 => Some(Kernel::Avx2),
            Self::Avx2Twin => Some(Kernel::Avx2Twin),
            Self::Ifma => Some(Kernel::Ifma),
            Self::IfmaTwin => Some(Kernel::IfmaTwin),
        }
    }

    /// Checks every task and writes its verdict to the same place in `verdicts`, whose former content is dropped. Panics: if it is not available.
    pub fn verify(self, tasks: &[SignatureTask<'_>], verdicts: &mut Vec<Verdict>) {
        verify_parts(tasks, verdicts, |_, _| self);
    }

    /// The fastest for so many signatures of the scheme, devices included that were measured.
    pub(crate) fn fastest(scheme: Scheme, count: usize) -> Self {
        if gpu::wins(scheme, count) { Self::Gpu } else { Self::fastest_on_processor(scheme, count) }
    }

    /// The fastest for so many signatures of the scheme that needs no device.
    pub(crate) fn fastest_on_processor(scheme: Scheme, count: usize) -> Self {
        let from = |backend: Self, least: usize| (count >= least && backend.is_available()).then_some(backend);
        match scheme {
            Scheme::Ed25519 => from(Self::Ifma, IFMA_FROM).or(from(Self::Avx2, AVX2_FROM)),
            Scheme::EcdsaP256 => from(Self::Ifma, P256_FROM).or(from(Self::Avx2, P256_FROM)),
            Scheme::EcdsaSecp256k1 => from(Self::Ifma, SECP256K1_FROM).or(from(Self::Avx2, SECP256K1_FROM)),
            // In lanes of AVX2 signatures take as long as by blst.
            Scheme::Bls12381 => from(Self::Ifma, BLS_IFMA_FROM),
        }
        .unwrap_or(Self::Combined)
    }

    /// Checks tasks of one scheme; `valid` is as long. Returns what did it: another backend if a device is gone, or has no kernel for them.
    pub(crate) fn verify_one_scheme(self, scheme: Scheme, tasks: &[SignatureTask<'_>], valid: &mut [bool]) -> Self {
        if let Some(device) = self.device() {
            if device.is_ok_and(|device| device.verify(scheme, tasks, valid).is_ok()) {
                return self;
            }
            if self == Self::Gpu && scheme != Scheme::Bls12381 {
                gpu::forget();
            }
            return Self::fastest_on_processor(scheme, tasks.len()).verify_one_scheme(scheme, tasks, valid);
        }
        if self == Self::Scalar {
            valid.iter_mut().zip(tasks).for_each(|(valid, task)| *valid = verify_scalar(task));
            return self;
        }
        match scheme {
            Scheme::Ed25519 => {
                let signed = of_scheme(tasks, |key, message, signature| match key {
                    PublicKey::Ed25519(key) => Some(Signed { key, message, signature }),
                    _ => None,
                });
                ed25519::verify_batch(self.kernel(), &signed, valid);
            }
            Scheme::Bls12381 => {
                let signed = of_scheme(tasks, |key, message, signature| match key {
                    PublicKey::Bls12381(key) => Some(BlsTask { key, message, signature }),
                    _ => None,
                });
                let mut verdicts = Vec::with_capacity(tasks.len());
                bls::verify_batch_by(self.kernel(), Suite::Basic, &signed, &mut verdicts);
                valid.iter_mut().zip(verdicts).for_each(|(valid, verdict)| *valid = verdict == Verdict::Valid);
            }
            Scheme::EcdsaP256 => {
                let signed = of_scheme(tasks, |key, message, signature| match key {
                    PublicKey::EcdsaP256(key) => Some(ecdsa::Signed { key, message, signature }),
                    _ => None,
                });
                ecdsa::verify_p256_batch(self.kernel(), &signed, valid);
            }
            Scheme::EcdsaSecp256k1 => {
                let signed = of_scheme(tasks, |key, message, signature| match key {
                    PublicKey::EcdsaSecp256k1(key) => Some(ecdsa::Signed { key, message, signature }),
                    _ => None,
                });
                ecdsa::verify_secp256k1_batch(self.kernel(), &signed, valid);
            }
        }
        self
    }
}

/// Tasks in the form that their scheme takes.
fn of_scheme<'a, T>(
    tasks: &[SignatureTask<'a>],
    form: impl Fn(&'a PublicKey, &'a [u8], &'a [u8]) -> Option<T>,
) -> Vec<T> {
    tasks.iter().filter_map(|task| form(task.key, task.message, task.signature)).collect()
}

/// Signatures from which lanes win: with AVX2 by `bench crypto --filter backends` on a Zen 3. IFMA has not been measured.
const AVX2_FROM: usize = 32;
const IFMA_FROM: usize = 32;
const BLS_IFMA_FROM: usize = 4;
const P256_FROM: usize = 2;
const SECP256K1_FROM: usize = 6;

fn verify_scalar(task: &SignatureTask<'_>) -> bool {
    let SignatureTask { key, message, signature } = *task;
    match key {
        PublicKey::Ed25519(key) => ed25519::verify(&Signed { key, message, signature }),
        PublicKey::EcdsaP256(key) => ecdsa::verify_p256(key, message, signature),
        PublicKey::EcdsaSecp256k1(key) => ecdsa::verify_secp256k1(key, message, signature),
        PublicKey::Bls12381(key) => bls::verify(Suite::Basic, key, message, signature),
    }
}

/// Checks a batch, the tasks of each scheme together, on the backend that `choose` names for so many of them.
fn verify_parts(
    tasks: &[SignatureTask<'_>],
    verdicts: &mut Vec<Verdict>,
    choose: impl Fn(Scheme, usize) -> Backend,
) -> Vec<Part> {
    verdicts.clear();
    verdicts.resize(tasks.len(), Verdict::Invalid);
    let mut parts = Vec::new();
    for scheme in Scheme::ALL {
        let places: Vec<_> = (0..tasks.len()).filter(|at| Scheme::of(tasks[*at].key) == scheme).collect();
        if places.is_empty() {
            continue;
        }
        let start = Instant::now();
        let these: Vec<_> = places.iter().map(|at| tasks[*at]).collect();
        let mut valid = vec![false; these.len()];
        let backend = choose(scheme, these.len()).verify_one_scheme(scheme, &these, &mut valid);
        for (at, valid) in places.iter().zip(&valid) {
            verdicts[*at] = (*valid).into();
        }
        let (signatures, valid) = (these.len(), valid.iter().filter(|valid| **valid).count());
        parts.push(Part { scheme, backend, signatures, valid, elapsed: start.elapsed() });
    }
    parts
}

/// Checks a batch, each scheme on the backend that is fastest for so many, and says what ran where. Verdicts are those of [`Backend::verify`].
pub fn verify(tasks: &[SignatureTask<'_>], verdicts: &mut Vec<Verdict>) -> Vec<Part> {
    verify_parts(tasks, verdicts, Backend::fastest)
}
