//! Microseconds of a signature on each backend this machine has, for the choice of backends by batch size; hashes in MB/s.
//!
//! `cargo run --release -p cyclotron-crypto --example measure [SIZE ...]`. What peers take is in `bench crypto`.

use cyclotron_crypto::{Backend, PublicKey, SignatureTask, Verdict, sha256_batch, sha512_batch};
use ed25519_dalek::{Signer, SigningKey};
use std::time::{Duration, Instant};

/// Processor time of this thread, as Linux counts it: others may use the machine, too. Units: us.
fn processor_time() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds first") / 1e3
}

/// The least time of some rounds. Units: us.
fn best(mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(300) {
        let (start, mut count) = (processor_time(), 0.0);
        // The counter moves when the scheduler looks: some milliseconds at least.
        while processor_time() - start < 20_000.0 {
            run();
            count += 1.0;
        }
        best = best.min((processor_time() - start) / count);
    }
    best
}

fn seed(n: usize) -> [u8; 32] {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    seed
}

fn main() {
    let mut sizes: Vec<usize> = std::env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1, 8, 16, 32, 64, 128, 256, 1_024, 4_096, 16_384];
    }
    let twins = [Backend::Avx2Twin, Backend::IfmaTwin];
    let only = std::env::var("BACKEND").ok();
    let backends: Vec<_> = Backend::available()
        .into_iter()
        .filter(|backend| !twins.contains(backend))
        .filter(|backend| only.as_ref().is_none_or(|only| format!("{backend:?}") == *only))
        .collect();
    for (name, keys) in [("known distinct", usize::MAX), ("16", 16)] {
        println!("ed25519, {name} keys, us each: {backends:?}");
        for size in &sizes {
            let signed: Vec<_> = (0..*size)
                .map(|n| {
                    // Other keys for each size: none is known from the one before.
                    let key = SigningKey::from_bytes(&seed(n % keys + size * 100_000));
                    let message = [n as u8; 43];
                    (PublicKey::Ed25519(key.verifying_key().to_bytes()), message, key.sign(&message).to_bytes())
                })
                .collect();
            let tasks: Vec<_> =
                signed.iter().map(|(key, message, signature)| SignatureTask { key, message, signature }).collect();
            let mut verdicts = Vec::new();
            print!("{size:>8}");
            for backend in &backends {
                let time = best(|| {
                    backend.verify(&tasks, &mut verdicts);
                    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Valid));
                });
                print!(" {:>9.2}", time / *size as f64);
            }
            println!();
        }
    }
    for length in [64usize, 128, 1_000, 1 << 20] {
        let count = (1 << 21) / length.max(256);
        let messages = vec![vec![7u8; length]; count];
        let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let (mut short, mut long) = (vec![[0; 32]; count], vec![[0; 64]; count]);
        let short = best(|| sha256_batch(&slices, &mut short));
        let long = best(|| sha512_batch(&slices, &mut long));
        let bytes = (length * count) as f64;
        println!("{length:>8} bytes: SHA-256 {:.0} MB/s, SHA-512 {:.0} MB/s", bytes / short, bytes / long);
    }
}
