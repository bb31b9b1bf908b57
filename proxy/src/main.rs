//! The Weft sidecar: allocator, crypto provider, run.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    /// Of mimalloc: gives free memory of this thread back to the system, with `force` at once.
    fn mi_collect(force: bool);
}

fn main() -> std::process::ExitCode {
    // Only fails if there is one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let _ = weft_proxy::footprint::COLLECT.set(collect);
    weft_proxy::command::main()
}

fn collect() {
    // SAFETY: takes no pointer, and may be called at any time.
    unsafe { mi_collect(true) };
    // Cryptography written in C takes its memory from libc, and glibc keeps what is free below what is not: 3 MB after
    // 9,000 connections. Other libraries give it back by themselves.
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called at any time.
    unsafe {
        libc::malloc_trim(0)
    };
}
