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
    // SAFETY: takes no pointer, and may be called at any time.
    let _ = weft_proxy::footprint::COLLECT.set(|| unsafe { mi_collect(true) });
    weft_proxy::command::main()
}
