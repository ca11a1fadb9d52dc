//! Says which extensions the processor has that the tests will run on, so that a test of what it has not is reported as ignored, not as passed.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(host_sha, host_avx2, host_avx512, host_ifma)");
    #[cfg(target_arch = "x86_64")]
    for (name, has) in [
        ("host_sha", is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1")),
        ("host_avx2", is_x86_feature_detected!("avx2")),
        ("host_avx512", is_x86_feature_detected!("avx512f")),
        ("host_ifma", is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma")),
    ] {
        if has {
            println!("cargo::rustc-cfg={name}");
        }
    }
}
