//! The rules that each combination of arguments gives, kept as files: what others rely on must not change unseen.
//! `WEFT_BLESS=1 cargo test -p weft-init` writes them anew.
#![allow(clippy::unwrap_used)]

use clap::Parser;
use std::path::Path;
use weft_init::args::Args;
use weft_init::backend::Backend;
use weft_init::rules::{Family, Plan};

const CASES: [(&str, &[&str]); 4] = [
    ("default", &[]),
    ("mark", &["--proxy-mark", "0x539"]),
    (
        "uid-gid-and-ports",
        &[
            "--proxy-uid",
            "3000",
            "--proxy-gid",
            "3001",
            "--inbound-port",
            "1",
            "--outbound-port",
            "2",
        ],
    ),
    (
        "skips",
        &[
            "--skip-inbound-ports",
            "22,9000-9100",
            "--skip-outbound-ports",
            "25,1,2,3,4,5,6,7,8,9,11,13,15,17,19,21,23,27",
            "--skip-subnets",
            "169.254.0.0/16,fd00::/8,192.0.2.9",
        ],
    ),
];

#[test]
fn rules_are_as_recorded() {
    for (name, args) in CASES {
        let plan = Plan::from_args(&Args::try_parse_from([&["weft-init"], args].concat()).unwrap());
        for backend in [Backend::IptablesNft, Backend::Nft] {
            let text = backend.render(&plan, &[Family::V4, Family::V6]);
            let file = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("rules/{name}.{backend}.golden"));
            if std::env::var_os("WEFT_BLESS").is_some() {
                std::fs::write(&file, &text).unwrap();
            }
            assert_eq!(
                std::fs::read_to_string(&file).unwrap_or_default(),
                text,
                "{}",
                file.display()
            );
        }
    }
}
