//! Quantities as Kubernetes writes them, exactly: `100`, `10m`, `1.5`, `1e3`, `2Ki`.

/// Parts of one.
pub(super) const UNIT: u128 = 1_000_000_000;

/// Digits that count: what a 64-bit whole part and nine decimals have.
const MAX_DIGITS: usize = 28;

/// A quantity in billionths; what is smaller counts as one billionth, as in Kubernetes. The error says why it is none.
pub(crate) fn nanos(text: &str) -> Result<u128, String> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let has_digits = !decimals.contains('.') && (!whole.is_empty() || !decimals.is_empty());
    let (factor, exponent) = scale(suffix)
        .filter(|_| has_digits)
        .ok_or("is not a quantity such as 100, 10m or 1.5")?;
    let digits = format!("{whole}{decimals}");
    let power = exponent - i64::try_from(decimals.len()).map_err(|_| "is too long")?;
    let value = exact(&digits, factor, power)?;
    match negative && value > 0 {
        true => Err("must not be negative".to_owned()),
        false => Ok(value),
    }
}

/// What a suffix multiplies with: a power of two, and a power of ten.
fn scale(suffix: &str) -> Option<(u128, i64)> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [(&str, i64); 10] = [
        ("n", -9),
        ("u", -6),
        ("m", -3),
        ("", 0),
        ("k", 3),
        ("M", 6),
        ("G", 9),
        ("T", 12),
        ("P", 15),
        ("E", 18),
    ];
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((1, *power));
    }
    if let Some(place) = (0u32..).zip(BINARY).find(|(_, name)| *name == suffix) {
        return Some((1024u128.pow(place.0 + 1), 0));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((1, i64::from(exponent)))
}

/// `digits · factor · 10^power` in billionths, rounded up.
fn exact(digits: &str, factor: u128, power: i64) -> Result<u128, String> {
    let short = digits.trim_start_matches('0');
    let trimmed = short.trim_end_matches('0');
    if trimmed.is_empty() {
        return Ok(0);
    }
    let zeros = i64::try_from(short.len() - trimmed.len()).map_err(|_| "is too long")?;
    if trimmed.len() > MAX_DIGITS {
        return Err(format!("has more than {MAX_DIGITS} digits"));
    }
    let value: u128 = trimmed.parse().map_err(|_| "is not a number")?;
    let value = value.checked_mul(factor).ok_or("is too large")?;
    let power = power.saturating_add(zeros).saturating_add(9);
    let ten = u32::try_from(power.unsigned_abs())
        .ok()
        .and_then(|power| 10u128.checked_pow(power));
    match (power < 0, ten) {
        (false, Some(ten)) => Ok(value.checked_mul(ten).ok_or("is too large")?),
        (false, None) => Err("is too large".to_owned()),
        (true, Some(ten)) => Ok(value.div_ceil(ten)),
        (true, None) => Ok(1),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_spelling_of_kubernetes() {
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("0m", 0),
            ("1", UNIT),
            ("+1", UNIT),
            ("001", UNIT),
            ("1000m", UNIT),
            ("10m", UNIT / 100),
            ("1500m", UNIT * 3 / 2),
            ("1.5", UNIT * 3 / 2),
            ("1.", UNIT),
            (".5", UNIT / 2),
            ("1e3", UNIT * 1000),
            ("1E3", UNIT * 1000),
            ("1e+3", UNIT * 1000),
            ("5e-1", UNIT / 2),
            ("1000e-3", UNIT),
            ("2k", UNIT * 2000),
            ("1M", UNIT * 1_000_000),
            ("2Ki", UNIT * 2048),
            ("0.5Ki", UNIT * 512),
            ("1E", UNIT * 10u128.pow(18)),
            ("1Ei", UNIT << 60),
            ("1n", 1),
            ("1u", 1000),
            ("1e-30", 1),
            ("1e-1000000", 1),
            ("0e999999", 0),
            ("9223372036854775807", UNIT * (i64::MAX as u128)),
        ] {
            assert_eq!(nanos(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity() {
        for text in [
            "",
            "m",
            ".",
            "-",
            "1.2.3",
            "1 ",
            " 1",
            "1mm",
            "1ki",
            "1KI",
            "1e",
            "1e1.5",
            "e3",
            "0x1",
            "1_000",
            "NaN",
            "inf",
            "50%",
            "1e99999999999",
            "--1",
            "+-1",
            "１",
        ] {
            assert!(nanos(text).is_err(), "{text}");
        }
        for text in ["-1", "-1m", "-0.1"] {
            assert!(nanos(text).unwrap_err().contains("negative"), "{text}");
        }
        for text in ["1e60", "1e999999", "99999999999999999999999999999Ei"] {
            assert!(nanos(text).is_err(), "{text}");
        }
        let many = "1".repeat(10_000);
        assert!(nanos(&many).is_err() && nanos(&format!("0.{many}")).is_err());
    }
}
