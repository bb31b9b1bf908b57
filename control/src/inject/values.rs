//! The values that annotations and flags may have. What passes consists of harmless characters only: it can become neither
//! YAML nor an argument of its own.

/// A text as it may be shown: short and on one line.
pub(super) fn printable(text: &str) -> String {
    let short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        short + "…"
    } else {
        short
    }
}

/// Ports and ranges of ports: `80,8000-8100`; may be empty.
pub(super) fn ports(text: &str) -> Result<(), String> {
    limit(text, 4096)?;
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .try_for_each(port_range)
}

fn port_range(part: &str) -> Result<(), String> {
    let port = |text: &str| match text.trim().parse::<u16>() {
        Ok(port) if port > 0 && text.trim().bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(format!(
            "{:?} is not a port (1-65535) or a range of ports",
            printable(part)
        )),
    };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    match (port(first)?, port(last)?) {
        (first, last) if first > last => Err(format!("the range {part} runs backwards")),
        _ => Ok(()),
    }
}

/// Networks: `10.0.0.0/8,fd00::/8`; may be empty.
pub(super) fn subnets(text: &str) -> Result<(), String> {
    limit(text, 4096)?;
    let check = |part: &str| match part.parse::<ipnet::IpNet>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "{:?} is not a network such as 10.0.0.0/8 or fd00::/8",
            printable(part)
        )),
    };
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .try_for_each(check)
}

/// A log filter: `info,weft=debug`.
pub(super) fn log_filter(text: &str) -> Result<(), String> {
    one_of(
        "log filter",
        text,
        |b| b.is_ascii_alphanumeric() || b"_=,:.-".contains(&b),
        256,
    )
}

/// The name of an image.
pub(super) fn image(text: &str) -> Result<(), String> {
    one_of(
        "image",
        text,
        |b| b.is_ascii_alphanumeric() || b"._/:@-".contains(&b),
        512,
    )
}

/// On or off.
pub(super) fn switch(text: &str) -> Result<(), String> {
    match text {
        "enabled" | "disabled" => Ok(()),
        _ => Err(format!(
            "{:?} is neither enabled nor disabled",
            printable(text)
        )),
    }
}

/// How access is decided.
pub(super) fn access(text: &str) -> Result<(), String> {
    match text {
        "strict" | "permissive" | "audit" => Ok(()),
        _ => Err(format!(
            "{:?} is not one of strict, permissive, audit",
            printable(text)
        )),
    }
}

/// In how much detail metrics are said.
pub(super) fn metrics_tier(text: &str) -> Result<(), String> {
    let tier = text.parse::<weft_proxy_api::policy::MetricsTier>();
    let wrong = |_| format!("{:?} is not edges, routes or endpoints", printable(text));
    tier.map(drop).map_err(wrong)
}

/// The part of Kubernetes' quantities that people write: 100m, 0.5, 64Mi, 1G.
pub(super) fn quantity(text: &str) -> Result<(), String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[number.len()..];
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| {
        !part.is_empty() && part.len() <= 18 && part.bytes().all(|b| b.is_ascii_digit())
    };
    let units = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"];
    match digits(whole) && digits(fraction) && units.contains(&unit) {
        true => Ok(()),
        false => Err(format!(
            "{:?} is not a quantity such as 100m, 0.5 or 64Mi",
            printable(text)
        )),
    }
}

/// Some text, not empty, of some characters.
pub(super) fn one_of(
    what: &str,
    text: &str,
    allowed: fn(u8) -> bool,
    longest: usize,
) -> Result<(), String> {
    limit(text, longest)?;
    match text.bytes().all(allowed) && !text.is_empty() {
        true => Ok(()),
        false => Err(format!("{:?} is not a valid {what}", printable(text))),
    }
}

fn limit(text: &str, longest: usize) -> Result<(), String> {
    if text.len() > longest {
        Err(format!("longer than {longest} characters"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> Result<(), String>;

    #[test]
    fn values_are_checked() {
        let good: &[(Check, &str)] = &[
            (ports, ""),
            (ports, "80"),
            (ports, "22, 9000-9100,1"),
            (subnets, "10.0.0.0/8,fd00::/8"),
            (log_filter, "info,weft=debug"),
            (image, "registry.io:5000/weft@sha256:ab"),
            (quantity, "100m"),
            (quantity, "0.5"),
            (quantity, "64Mi"),
            (access, "audit"),
        ];
        let bad: &[(Check, &str)] = &[
            (ports, "0"),
            (ports, "65536"),
            (ports, "9-8"),
            (ports, "80;81"),
            (ports, "+80"),
            (ports, "-1"),
            (ports, "1-2-3"),
            (subnets, "10.0.0.0"),
            (subnets, "10.0.0.0/33"),
            (log_filter, "info\nevil: 1"),
            (log_filter, ""),
            (image, "a b"),
            (image, "a\": x"),
            (quantity, "1e3"),
            (quantity, "-1"),
            (quantity, "1.2.3"),
            (quantity, "Mi"),
            (quantity, "1 Mi"),
            (quantity, ""),
            (access, "Strict"),
        ];
        assert_eq!(
            good.iter()
                .filter(|(check, text)| check(text).is_err())
                .map(|(_, t)| t)
                .collect::<Vec<_>>(),
            Vec::<&&str>::new()
        );
        assert_eq!(
            bad.iter()
                .filter(|(check, text)| check(text).is_ok())
                .map(|(_, t)| t)
                .collect::<Vec<_>>(),
            Vec::<&&str>::new()
        );
    }
}
