//! `weft-init`: see the library.

fn main() -> std::process::ExitCode {
    weft_init::run()
}
