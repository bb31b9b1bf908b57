//! Tokens: what is accepted, and each reason to refuse beside it.
#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;

fn key() -> TokenKey {
    TokenKey::from_pem(&generate_pem().unwrap()).unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn claims() -> TokenClaims {
    TokenClaims::for_pod(
        &PodRef::new("default", "web-1"),
        "web",
        at(NOW),
        Duration::from_secs(100),
    )
}

/// A token with a header and claims of the test's choice, properly signed.
fn signed(key: &TokenKey, header: &Value, claims: &Value) -> String {
    let signed = format!(
        "{}.{}",
        base64url(header.to_string().as_bytes()),
        base64url(claims.to_string().as_bytes())
    );
    let signature = base64url(key.0.sign(signed.as_bytes()).as_ref());
    format!("{signed}.{signature}")
}

#[test]
fn a_token_tells_its_pod_and_account() {
    let key = key();
    let token = key.issue(&claims()).unwrap();
    let read = key.verify(&token, at(NOW)).unwrap();
    assert_eq!(
        (read.pod(), read.account()),
        (PodRef::new("default", "web-1"), "web")
    );
    assert_eq!(read, claims());
    assert!(
        key.verify(&format!("{token}\n"), at(NOW)).is_ok(),
        "files end with a newline"
    );
}

#[test]
fn time_counts_with_a_minute_of_skew() {
    let key = key();
    let token = key.issue(&claims()).unwrap();
    let table = [
        (NOW - 61, Err(TokenError::NotYet)),
        (NOW - 60, Ok(())),
        (NOW + 159, Ok(())),
        (NOW + 160, Err(TokenError::Expired)),
        (0, Err(TokenError::NotYet)),
    ];
    for (now, expected) in table {
        assert_eq!(key.verify(&token, at(now)).map(drop), expected, "{now}");
    }
}

#[test]
fn claims_that_are_not_for_us_are_refused() {
    let (key, header) = (key(), json!({"alg": "EdDSA", "typ": "JWT"}));
    let good = serde_json::to_value(claims()).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut claims = good.clone();
        *claims.pointer_mut(pointer).unwrap() = value;
        claims
    };
    let table = [
        (good.clone(), Ok(())),
        (with("/aud", json!(TOKEN_AUDIENCE)), Ok(())),
        (with("/aud", json!(["other", TOKEN_AUDIENCE])), Ok(())),
        (
            with("/aud", json!("https://kubernetes.default.svc")),
            Err(TokenError::Audience),
        ),
        (with("/aud", json!([])), Err(TokenError::Audience)),
        (with("/iss", json!("somebody")), Err(TokenError::Audience)),
        (
            with("/sub", json!("system:serviceaccount:default:admin")),
            Err(TokenError::Subject),
        ),
        (
            with("/kubernetes.io/namespace", json!("other")),
            Err(TokenError::Subject),
        ),
        (
            with("/kubernetes.io/serviceaccount/name", json!("admin")),
            Err(TokenError::Subject),
        ),
        (with("/exp", json!(-1)), Err(TokenError::Malformed)),
        (json!({"aud": TOKEN_AUDIENCE}), Err(TokenError::Malformed)),
        (json!([]), Err(TokenError::Malformed)),
    ];
    for (claims, expected) in table {
        assert_eq!(
            key.verify(&signed(&key, &header, &claims), at(NOW))
                .map(drop),
            expected,
            "{claims}"
        );
    }
}

#[test]
fn only_our_algorithm_is_taken() {
    let (key, good) = (key(), serde_json::to_value(claims()).unwrap());
    let table = [
        (json!({"alg": "EdDSA"}), Ok(())),
        (json!({"alg": "EdDSA", "typ": "jwt", "kid": "any"}), Ok(())),
        (json!({"alg": "none"}), Err(TokenError::Algorithm)),
        (
            json!({"alg": "HS256", "typ": "JWT"}),
            Err(TokenError::Algorithm),
        ),
        (json!({"alg": "eddsa"}), Err(TokenError::Algorithm)),
        (
            json!({"alg": "EdDSA", "crit": ["b64"], "b64": false}),
            Err(TokenError::Algorithm),
        ),
        (
            json!({"alg": "EdDSA", "typ": "at+jwt"}),
            Err(TokenError::Algorithm),
        ),
        (json!({}), Err(TokenError::Malformed)),
    ];
    for (header, expected) in table {
        assert_eq!(
            key.verify(&signed(&key, &header, &good), at(NOW)).map(drop),
            expected,
            "{header}"
        );
    }
}

#[test]
fn another_key_or_a_changed_byte_breaks_the_signature() {
    let key = key();
    let token = key.issue(&claims()).unwrap();
    let foreign = self::key().issue(&claims()).unwrap();
    assert_eq!(key.verify(&foreign, at(NOW)), Err(TokenError::Signature));
    let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
    assert_eq!(key.verify(&unsigned, at(NOW)), Err(TokenError::Signature));
    for place in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        assert!(
            key.verify(&String::from_utf8(changed).unwrap(), at(NOW))
                .is_err(),
            "byte {place}"
        );
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let key = key();
    for text in [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c",
        "é.é.é",
        "e30.e30.e30",
        "e30=.e30.e30",
        "e30.e30.e30.e30",
    ] {
        assert_eq!(
            key.verify(text, at(NOW)),
            Err(TokenError::Malformed),
            "{text}"
        );
    }
    assert_eq!(
        key.verify(&"a".repeat(MAX_TOKEN + 1), at(NOW)),
        Err(TokenError::TooLong)
    );
    assert_eq!(
        key.verify(&"a".repeat(MAX_TOKEN), at(NOW)),
        Err(TokenError::Malformed)
    );
}

#[test]
fn base64url_is_the_one_of_the_standard() {
    let table = [
        ("", ""),
        ("f", "Zg"),
        ("fo", "Zm8"),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg"),
        ("fooba", "Zm9vYmE"),
    ];
    for (plain, text) in table {
        assert_eq!(base64url(plain.as_bytes()), text);
        assert_eq!(unbase64url(text).as_deref(), Some(plain.as_bytes()));
    }
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(unbase64url(&base64url(&all)), Some(all));
    assert!(base64url(&[0xfb, 0xff]).contains(['-', '_']));
    for wrong in ["Z", "Zg=", "Zg==", "Zh", "Zm9vY", "+/+/", "Zg\n"] {
        assert_eq!(unbase64url(wrong), None, "{wrong}");
    }
}

#[test]
fn the_key_is_made_once_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    let tokens: Vec<String> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    issue_for_pod(&state, &PodRef::new("a", "b"), "c", DEFAULT_TTL).unwrap()
                })
            })
            .collect();
        started
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let key = TokenKey::open_or_create(&state).unwrap();
    assert!(
        tokens
            .iter()
            .all(|token| key.verify(token, SystemTime::now()).is_ok())
    );
    state.write(TOKEN_KEY, Secrecy::Private, "junk").unwrap();
    assert!(format!("{:#}", TokenKey::open_or_create(&state).unwrap_err()).contains("token.key"));
    assert!(!format!("{key:?}").contains("seed"));
}
