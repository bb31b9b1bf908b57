//! Weights of a split, exactly (D17, D18).

use crate::manifest::report::{Field, Report};
use crate::manifest::yaml::Value;

/// The largest weight: what a signed 64-bit number holds, as in Kubernetes.
pub(super) const MAX: u64 = i64::MAX as u64;

/// Largest whole number that a floating point number holds exactly.
const EXACT: f64 = (1u64 << 53) as f64;

/// A whole number from 0 to [`MAX`]; anything else is refused.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Option<u64> {
    let message = match field.value() {
        None => "is missing".to_owned(),
        Some(Value::Int(number)) => match u64::try_from(*number) {
            Ok(weight) if weight <= MAX => return Some(weight),
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
            return Some(*number as u64);
        }
        Some(Value::Float(number)) if *number > EXACT => {
            format!("must be a whole number of at most {MAX}")
        }
        Some(other) => format!(
            "must be a whole number of at least 0, not {}",
            other.describe()
        ),
    };
    report.error(field, message);
    None
}
