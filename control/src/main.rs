//! The controller as a program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_control::app::main()
}
