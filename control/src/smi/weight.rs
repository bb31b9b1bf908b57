//! Weights of a split, exactly (D17, D18).

use super::Version;
use super::quantity::{UNIT, nanos};
use crate::manifest::report::{Field, Report};
use crate::manifest::yaml::Value;

/// The largest weight: what a signed 64-bit number holds, as in Kubernetes.
pub(super) const MAX: u64 = i64::MAX as u64;

/// Largest whole number that a floating point number holds exactly.
const EXACT: f64 = (1u64 << 53) as f64;

/// A weight in billionths. v1alpha1 has quantities of at least 0, the others whole numbers; neither above [`MAX`].
pub(super) fn read(field: &Field<'_>, version: Version, report: &mut Report) -> Option<u128> {
    let read = match version {
        Version::V1Alpha1 => quantity(field.value()),
        _ => whole(field.value()).map(|weight| u128::from(weight) * UNIT),
    };
    match read {
        Ok(weight) => Some(weight),
        Err(message) => {
            report.error(field, message);
            None
        }
    }
}

fn quantity(value: Option<&Value>) -> Result<u128, String> {
    let weight = match value {
        None => return Err("is missing".to_owned()),
        Some(Value::Text(text)) => nanos(text),
        Some(Value::Int(number)) => nanos(&number.to_string()),
        // The shortest decimal number that is read as this one: what was written.
        Some(Value::Float(number)) => nanos(&number.to_string()),
        Some(other) => Err(format!("must be a quantity, not {}", other.describe())),
    };
    match weight? {
        weight if weight <= u128::from(MAX) * UNIT => Ok(weight),
        _ => Err(format!("must be at most {MAX}")),
    }
}

fn whole(value: Option<&Value>) -> Result<u64, String> {
    Err(match value {
        None => "is missing".to_owned(),
        Some(Value::Int(number)) => match u64::try_from(*number) {
            Ok(weight) if weight <= MAX => return Ok(weight),
            Ok(_) => format!("must be at most {MAX}"),
            Err(_) if *number < 0 => "must not be negative".to_owned(),
            Err(_) => format!("must be at most {MAX}"),
        },
        // `1e3` and `5.0` are whole numbers that YAML reads as floating point.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be whole and small"
        )]
        Some(Value::Float(number)) if number.fract() == 0.0 && (0.0..=EXACT).contains(number) => {
            return Ok(*number as u64);
        }
        Some(Value::Float(number)) if *number > EXACT => {
            format!("must be a whole number of at most {MAX}")
        }
        Some(Value::Text(text)) if nanos(text).is_ok() => format!(
            "must be a whole number of at least 0, not the text {text:?}: quantities are of v1alpha1 only"
        ),
        Some(other) => format!(
            "must be a whole number of at least 0, not {}",
            other.describe()
        ),
    })
}

/// Whole numbers in the same ratio as these billionths: the same ones where all are whole, or else multiplied by the
/// smallest power of ten that makes them so. Where they would become larger than [`MAX`], the ratio is kept to a
/// billionth. What is positive stays positive.
pub(super) fn scaled(nanos: &[u128]) -> Vec<u64> {
    let mut divisor = UNIT;
    while nanos.iter().any(|weight| weight % divisor != 0) {
        divisor /= 10;
    }
    let largest = nanos.iter().max().copied().unwrap_or_default();
    let divisor = divisor.max(largest.div_ceil(u128::from(MAX)));
    let scale = |weight: &u128| match (weight / divisor, *weight) {
        (0, 1..) => 1,
        (scaled, _) => u64::try_from(scaled).unwrap_or(MAX),
    };
    nanos.iter().map(scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_stay_and_parts_become_whole() {
        const U: u128 = UNIT;
        for (given, expected) in [
            (vec![], vec![]),
            (vec![0, 0], vec![0, 0]),
            (vec![50 * U, 50 * U], vec![50, 50]),
            (vec![1000 * U, 500 * U], vec![1000, 500]),
            (vec![U, U / 2], vec![10, 5]),
            (vec![U / 100, U / 10, U * 3 / 2], vec![1, 10, 150]),
            (vec![U, 1], vec![1_000_000_000, 1]),
            (vec![U, 0], vec![1, 0]),
        ] {
            assert_eq!(scaled(&given), expected, "{given:?}");
        }
    }

    #[test]
    fn what_is_too_large_keeps_its_ratio_and_nothing_positive_is_lost() {
        let most = u128::from(MAX) * UNIT;
        let weights = scaled(&[most, most / 2, UNIT / 2, 1, 0]);
        assert!(weights.iter().all(|weight| *weight <= MAX));
        assert!(weights[0].abs_diff(2 * weights[1]) < MAX / 1_000_000_000);
        assert_eq!(weights[2..], [1, 1, 0]);
    }
}
