//! TrafficSplit: weights are quantities in v1alpha1, and conditions exist since v1alpha3.

use super::preserved::{Preserved, WEIGHTS, broken};
use super::{Fields, Refused, Version, items, refuse, spec};
use crate::smi::quantity::{UNIT, nanos};
use crate::smi::weight::{MAX, scaled};
use serde_json::{Value, json};

/// To the layout of v1alpha4.
pub(super) fn raise(
    object: &mut Fields,
    from: Version,
    kept: &mut Preserved,
) -> Result<(), Refused> {
    if from < Version::V1Alpha3 {
        restore_matches(object, kept)?;
    }
    if from == Version::V1Alpha1 {
        kept.remove(WEIGHTS);
        raise_weights(object, kept)?;
    }
    Ok(())
}

/// From the layout of v1alpha4.
pub(super) fn lower(object: &mut Fields, to: Version, kept: &mut Preserved) -> Result<(), Refused> {
    let matches = (to < Version::V1Alpha3)
        .then(|| spec(object).map(|spec| spec.shift_remove("matches")))
        .transpose()?
        .flatten();
    match matches {
        Some(matches) => kept.keep("matches", matches),
        None => drop(kept.remove("matches")),
    }
    lower_weights(object, to, kept)
}

/// The condition comes back whatever else was changed: without it the split would apply to every request.
fn restore_matches(object: &mut Fields, kept: &mut Preserved) -> Result<(), Refused> {
    let spec = spec(object)?;
    if spec.get("matches").is_some_and(|shown| !shown.is_null()) {
        return refuse("spec.matches", "is known since v1alpha3");
    }
    let Some(matches) = kept.remove("matches") else {
        return Ok(());
    };
    let named = |item: &Value| {
        let text = |name| item.get(name).is_some_and(Value::is_string);
        text("kind") && text("name")
    };
    let is_sound = match &matches {
        Value::Null => true,
        Value::Array(list) => list.iter().all(named),
        _ => false,
    };
    if !is_sound {
        return broken();
    }
    spec.insert("matches".to_owned(), matches);
    Ok(())
}

fn backends(object: &mut Fields) -> Result<&mut [Value], Refused> {
    let backends = items(spec(object)?, "backends", "spec.backends")?;
    Ok(backends.map_or(&mut [], |list| &mut list[..]))
}

fn weight_field(index: usize) -> String {
    format!("spec.backends[{index}].weight")
}

/// Quantities become whole numbers in the same ratio (D17). How they were written is kept where it was otherwise.
fn raise_weights(object: &mut Fields, kept: &mut Preserved) -> Result<(), Refused> {
    let backends = backends(object)?;
    let mut exact = Vec::with_capacity(backends.len());
    for (index, backend) in backends.iter().enumerate() {
        exact.push(quantity(backend.get("weight"), index)?);
    }
    let whole = scaled(&exact);
    let mut written = Vec::with_capacity(backends.len());
    for (backend, weight) in backends.iter_mut().zip(&whole) {
        let shown = backend
            .get_mut("weight")
            .map(|shown| std::mem::replace(shown, json!(weight)));
        written.push(shown.unwrap_or_default());
    }
    if written
        .iter()
        .zip(&whole)
        .any(|(written, weight)| *written != quantity_of(*weight))
    {
        kept.keep(WEIGHTS, json!({"written": written, "as": whole}));
    }
    Ok(())
}

fn quantity(value: Option<&Value>, index: usize) -> Result<u128, Refused> {
    let exact = match value {
        None | Some(Value::Null) => Err("is missing".to_owned()),
        Some(Value::String(text)) => nanos(text),
        Some(Value::Number(number)) => nanos(&number.to_string()),
        Some(_) => Err("must be a quantity".to_owned()),
    };
    match exact {
        Ok(weight) if weight <= u128::from(MAX) * UNIT => Ok(weight),
        Ok(_) => refuse(weight_field(index), format!("must be at most {MAX}")),
        Err(message) => refuse(weight_field(index), message),
    }
}

/// As Kubernetes' own clients write a quantity.
fn quantity_of(weight: u64) -> Value {
    weight.to_string().into()
}

/// In v1alpha1 the quantities as they were written, as long as nobody changed any of the numbers they became: half of
/// them in another unit would be another ratio.
fn lower_weights(object: &mut Fields, to: Version, kept: &mut Preserved) -> Result<(), Refused> {
    let written = kept.remove(WEIGHTS);
    let backends = backends(object)?;
    let shown: Vec<Value> = backends
        .iter()
        .map(|backend| backend.get("weight").cloned().unwrap_or_default())
        .collect();
    let written = written.filter(|kept| kept["as"] == json!(shown) && became(kept));
    match (to, written) {
        (Version::V1Alpha1, written) => show_quantities(backends, written.as_ref()),
        (_, Some(written)) => {
            kept.keep(WEIGHTS, written);
            Ok(())
        }
        (_, None) => Ok(()),
    }
}

/// Did these quantities become these numbers? Whoever may write the annotation must not change the ratio by it.
fn became(kept: &Value) -> bool {
    let written = kept["written"].as_array().map_or(&[][..], |list| &list[..]);
    let exact = written
        .iter()
        .map(|written| quantity(Some(written), 0).ok());
    let exact: Option<Vec<u128>> = exact.collect();
    exact.is_some_and(|exact| kept["as"] == json!(scaled(&exact)))
}

fn show_quantities(backends: &mut [Value], written: Option<&Value>) -> Result<(), Refused> {
    for (index, backend) in backends.iter_mut().enumerate() {
        let Some(shown) = backend.get_mut("weight").filter(|shown| !shown.is_null()) else {
            continue;
        };
        let number = whole(shown, index)?;
        let written = written.and_then(|kept| kept["written"].get(index));
        *shown = written.cloned().unwrap_or_else(|| quantity_of(number));
    }
    Ok(())
}

fn whole(value: &Value, index: usize) -> Result<u64, Refused> {
    let exact = quantity(Some(value), index)?;
    match u64::try_from(exact / UNIT) {
        Ok(weight) if value.is_number() && exact % UNIT == 0 => Ok(weight),
        _ => refuse(weight_field(index), "must be a whole number"),
    }
}
