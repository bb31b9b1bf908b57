//! The committed code is what the protobuf file generates.

#[allow(dead_code)]
#[path = "../examples/generate.rs"]
mod generate;

#[test]
fn generated_code_is_fresh() -> Result<(), Box<dyn std::error::Error>> {
    let fresh = generate::generate()?;
    let committed = include_str!("../src/wire/generated.rs");
    assert!(
        fresh == committed,
        "src/wire/generated.rs is stale: cargo run -p weft-proxy-api --example generate"
    );
    Ok(())
}
