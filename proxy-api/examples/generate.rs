//! Regenerates `src/wire/generated.rs` from `proto/weft.proto`, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wire/generated.rs");
    std::fs::write(out, generate()?)?;
    Ok(())
}

/// The generated module, formatted as the generator leaves it. `tests/fresh.rs` calls it as well.
pub(crate) fn generate() -> Result<String, Box<dyn std::error::Error>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = protox::compile(["weft.proto"], [&root])?;
    let dir = std::env::temp_dir().join(format!("weft-proto-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(&dir)
        .compile_fds(files)?;
    let text = std::fs::read_to_string(dir.join("weft.v1.rs"))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(text)
}
