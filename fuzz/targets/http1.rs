#![cfg_attr(fuzzing, no_main)]
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::http1(bytes));
#[cfg(not(fuzzing))]
fn main() {}
