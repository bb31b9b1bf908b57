//! One parser for each kind of setting: text in, value or the second half of a sentence ("must be …") out.

use super::{FixedTarget, LogFormat, Workload};
use crate::connection::Direction;
use crate::tell::access::Form;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

type Parsed<T> = Result<T, String>;

pub(super) fn text(value: &str) -> Parsed<String> {
    Ok(value.to_owned())
}

pub(super) fn workload(value: &str) -> Parsed<Workload> {
    match value.split_once('/') {
        Some((namespace, pod))
            if !namespace.is_empty() && !pod.is_empty() && !pod.contains('/') =>
        {
            Ok(Workload {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
            })
        }
        _ => Err("is required, as namespace/name of the pod".to_owned()),
    }
}

pub(super) fn host_port(value: &str) -> Parsed<String> {
    let port = value
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(port)) if port > 0 => Ok(value.to_owned()),
        _ => Err("is required, as host:port".to_owned()),
    }
}

pub(super) fn maybe_host_port(value: &str) -> Parsed<Option<String>> {
    match value.is_empty() {
        true => Ok(None),
        false => host_port(value)
            .map(Some)
            .map_err(|_| "must be host:port".to_owned()),
    }
}

pub(super) fn access_log(value: &str) -> Parsed<Option<Form>> {
    match value {
        "" => Ok(None),
        "common" => Ok(Some(Form::Common)),
        "json" => Ok(Some(Form::Json)),
        _ => Err("must be common or json".to_owned()),
    }
}

pub(super) fn path(value: &str) -> Parsed<Option<PathBuf>> {
    Ok((!value.is_empty()).then(|| value.into()))
}

pub(super) fn required_path(value: &str) -> Parsed<PathBuf> {
    path(value)?.ok_or_else(|| "is required".to_owned())
}

pub(super) fn pem(value: &str) -> Parsed<Vec<Vec<u8>>> {
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(value.as_bytes()).collect();
    let certificates = certificates.map_err(|_| "must be certificates in PEM")?;
    if certificates.is_empty() && !value.is_empty() {
        return Err("must be certificates in PEM".to_owned());
    }
    Ok(certificates.into_iter().map(|der| der.to_vec()).collect())
}

fn list<T>(value: &str, parse: impl Fn(&str) -> Parsed<T>) -> Parsed<Vec<T>> {
    value
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(parse)
        .collect()
}

fn address(value: &str) -> Parsed<SocketAddr> {
    value
        .parse()
        .map_err(|_| "must be addresses like 127.0.0.1:80 or [::1]:80".to_owned())
}

pub(super) fn addresses(value: &str) -> Parsed<Vec<SocketAddr>> {
    list(value, address)
}

pub(super) fn workers(value: &str) -> Parsed<usize> {
    match value.parse() {
        // The standard library looks at the cgroup quota and at the affinity.
        Ok(0) => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        Ok(n) if n <= 1024 => Ok(n),
        _ => Err("must be a number from 0 to 1024".to_owned()),
    }
}

pub(super) fn count(value: &str) -> Parsed<usize> {
    value.parse().map_err(|_| "must be a number".to_owned())
}

pub(super) fn mark(value: &str) -> Parsed<Option<u32>> {
    let parsed = match value.strip_prefix("0x") {
        _ if value.is_empty() => return Ok(None),
        Some(hex) => u32::from_str_radix(hex, 16),
        None => value.parse(),
    };
    parsed
        .map(Some)
        .map_err(|_| "must be a number like 1337 or 0x539".to_owned())
}

pub(super) fn switch(value: &str) -> Parsed<bool> {
    value
        .parse()
        .map_err(|_| "must be true or false".to_owned())
}

pub(super) fn log_format(value: &str) -> Parsed<LogFormat> {
    match value {
        "plain" => Ok(LogFormat::Plain),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be plain or json".to_owned()),
    }
}

pub(crate) fn duration(value: &str) -> Parsed<Duration> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    match number.parse::<u32>() {
        Ok(n) if milliseconds > 0 => Ok(Duration::from_millis(u64::from(n) * milliseconds)),
        _ => Err("must be a duration like 500ms, 30s or 2m".to_owned()),
    }
}

pub(super) fn ports(value: &str) -> Parsed<Vec<(u16, u16)>> {
    list(value, |item| {
        let (from, to) = item.split_once('-').unwrap_or((item, item));
        match (from.trim().parse(), to.trim().parse()) {
            (Ok(from), Ok(to)) if 0 < from && from <= to => Ok((from, to)),
            _ => Err("must be ports like 25,3306,6000-6010".to_owned()),
        }
    })
}

pub(super) fn fixed_targets(value: &str) -> Parsed<Vec<FixedTarget>> {
    list(value, fixed_target)
}

fn fixed_target(item: &str) -> Parsed<FixedTarget> {
    let wrong =
        || "must be entries like outbound LISTEN=TARGET or inbound LISTEN=TARGET=DIAL".to_owned();
    let (direction, rest) = item.split_once(' ').ok_or_else(wrong)?;
    let direction = match direction {
        "inbound" => Direction::Inbound,
        "outbound" => Direction::Outbound,
        _ => return Err(wrong()),
    };
    let parts: Vec<SocketAddr> = rest.trim().split('=').map(address).collect::<Parsed<_>>()?;
    let (listen, target, dial) = match (direction, parts.as_slice()) {
        (_, [listen, target]) => (*listen, *target, *target),
        (Direction::Inbound, [listen, target, dial]) => (*listen, *target, *dial),
        _ => return Err(wrong()),
    };
    Ok(FixedTarget {
        direction,
        listen,
        target,
        dial,
    })
}
