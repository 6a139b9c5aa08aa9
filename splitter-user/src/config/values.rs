//! Single values: from what TOML gives to what it means. An error says what was expected and how to write it.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use hyper::Uri;
use ipnet::IpNet;
use toml::de::{DeInteger, DeValue};

use super::{PortRange, step};
use crate::model::{Factor, Gate, ModelError, Seed, ServiceName, Step, Weight};

pub(super) fn text<'v>(value: &'v DeValue<'_>, such_as: &str) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| expected(&format!("a text such as \"{such_as}\""), value))
}

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| expected("true or false", value))
}

pub(super) fn integer(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number = value.as_integer().ok_or_else(|| expected("an integer", value))?;
    let (low, high) = (range.start(), range.end());
    let out = || {
        let bounds = if *high == u64::MAX { format!("at least {low}") } else { format!("{low} to {high}") };
        format!("{} is out of range: use {bounds}", shown(number))
    };
    u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| range.contains(n)).ok_or_else(out)
}

/// A number, whole or not.
pub(super) fn number(value: &DeValue<'_>) -> Result<f64, String> {
    let whole = value.as_integer().and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok());
    // Above 2^53 the nearest number that there is.
    let number = value.as_float().and_then(|number| number.as_str().parse().ok()).or(whole.map(|whole| whole as f64));
    number.filter(|number: &f64| number.is_finite()).ok_or_else(|| expected("a finite number such as 0.01", value))
}

/// A chance of being wrong that somebody can want.
pub(super) fn false_alarm_rate(value: &DeValue<'_>) -> Result<f64, String> {
    let rate = number(value)?;
    if rate > 0.0 && rate <= 0.5 { Ok(rate) } else { Err(format!("{rate} is out of range: use above 0, and at most 0.5")) }
}

/// An integer of at most 32 bits.
pub(super) fn size(value: &DeValue<'_>, range: RangeInclusive<u32>) -> Result<u32, String> {
    let wide = integer(value, u64::from(*range.start())..=u64::from(*range.end()))?;
    u32::try_from(wide).map_err(|_| format!("{wide} is out of range"))
}

pub(super) fn word<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let listed = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let written = value.as_str().ok_or_else(|| expected(&format!("one of {listed}"), value))?;
    let known = words.iter().find(|(word, _)| *word == written).map(|(_, meaning)| *meaning);
    known.ok_or_else(|| format!("\"{written}\" is unknown: use one of {listed}"))
}

pub(super) fn duration(value: &DeValue<'_>, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    parse_duration(text(value, "3s")?, range)
}

/// A duration as a text by itself, or as a part of one.
pub(super) fn parse_duration(written: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = humantime::parse_duration(written)
        .map_err(|why| format!("\"{written}\" is not a duration ({why}): write it as \"250ms\", \"3s\" or \"2h\""))?;
    if !range.contains(&duration) {
        let shown = |d: &Duration| humantime::format_duration(*d).to_string().replace(' ', "");
        return Err(format!("\"{written}\" is out of range: use {} to {}", shown(range.start()), shown(range.end())));
    }
    Ok(duration)
}

/// A time that the data plane counts, whose clock ticks in seconds.
pub(super) fn seconds(value: &DeValue<'_>, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = duration(value, range)?;
    if duration.subsec_nanos() != 0 {
        return Err(format!(
            "\"{}\" is finer than the data plane's clock: use whole seconds",
            value.as_str().unwrap_or_default()
        ));
    }
    Ok(duration)
}

pub(super) fn weight(value: &DeValue<'_>) -> Result<Weight, String> {
    text(value, "5%")?.parse().map_err(|why: ModelError| why.to_string())
}

/// How many times something else.
pub(super) fn factor(value: &DeValue<'_>) -> Result<Factor, String> {
    text(value, "2x")?.parse().map_err(|why: ModelError| why.to_string())
}

pub(super) fn service_name(value: &DeValue<'_>) -> Result<ServiceName, String> {
    text(value, "checkout")?.parse().map_err(|why: ModelError| why.to_string())
}

/// A name that isn't a service's, of the same letters: it stands in the same output and labels.
pub(super) fn name(value: &DeValue<'_>, such_as: &str) -> Result<String, String> {
    parse_name(text(value, such_as)?)
}

fn parse_name(written: &str) -> Result<String, String> {
    let named: Result<ServiceName, ModelError> = written.parse();
    named
        .map(String::from)
        .map_err(|_| format!("`{written}` is not a name: use 1 to {} letters, digits, `-`, `_` or `.`", ServiceName::MAX_LENGTH))
}

/// A step as a text, without its gate.
pub(super) fn step(value: &DeValue<'_>) -> Result<Step, String> {
    step::parse(text(value, "5% for 15m")?)
}

/// `manual` or `check:NAME`.
pub(super) fn gate(value: &DeValue<'_>) -> Result<Gate, String> {
    let written = text(value, "manual")?;
    match written.strip_prefix("check:") {
        Some(name) => Ok(Gate::Check(parse_name(name)?)),
        None if written == "manual" => Ok(Gate::Manual),
        None => Err(format!("\"{written}\" is unknown: use \"manual\", or \"check:NAME\" with the name of a check")),
    }
}

/// An expression that isn't empty; whether it is one, its Prometheus says.
pub(super) fn promql(value: &DeValue<'_>) -> Result<String, String> {
    let written = text(value, "rate(errors_total[1m])")?.trim();
    if written.is_empty() {
        Err("the expression is empty: write what Prometheus is asked".to_owned())
    } else {
        Ok(written.to_owned())
    }
}

/// An `http` or `https` URL, held to what the client that will use it can read. Its path may be a secret: no message repeats it.
pub(super) fn url(value: &DeValue<'_>) -> Result<String, String> {
    let such_as = "https://hooks.example.com/release";
    let written = text(value, such_as)?;
    let uri: Uri = written.parse().map_err(|why| format!("this is not a URL ({why}): write one such as \"{such_as}\""))?;
    let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err("this is not a URL of http or https: begin it with \"http://\" or \"https://\"".to_owned());
    };
    if authority.as_str().contains('@') {
        return Err("a user or a password in a URL gets into lists and logs: write it without, and name a file with token_file"
            .to_owned());
    }
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    if authority.host().is_empty() || !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(format!("this URL names no host, or a port that isn't 1 to 65535: write one such as \"{such_as}\""));
    }
    Ok(written.to_owned())
}

/// Where a Prometheus is: what the path of its API is put behind.
pub(super) fn prometheus(value: &DeValue<'_>) -> Result<String, String> {
    /// The only path that is asked.
    const API: &str = "/api/v1/query";
    let url = url(value)?;
    let base = url.trim_end_matches('/');
    if base.contains(['?', '#']) || base.ends_with(API) {
        return Err(format!("this is more than where the Prometheus is: leave out {API} and what comes behind it"));
    }
    Ok(base.to_owned())
}

pub(super) fn seed(value: &DeValue<'_>) -> Result<Seed, String> {
    let remedy = || ModelError::Seed.to_string();
    // A seed is secret: the message doesn't repeat what was written.
    Seed::try_from(value.as_str().ok_or_else(remedy)?.to_owned()).map_err(|why| why.to_string())
}

pub(super) fn socket_address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let written = text(value, "10.0.0.10:80")?;
    written.parse().map_err(|_| {
        format!("\"{written}\" is not an address with a port: write it as \"10.0.0.10:80\" or \"[fd00::10]:80\" (names aren't resolved)")
    })
}

pub(super) fn address(value: &DeValue<'_>) -> Result<IpAddr, String> {
    let written = text(value, "10.0.0.5")?;
    written.parse().map_err(|_| format!("\"{written}\" is not an address: write it as \"10.0.0.5\" or \"fd00::5\""))
}

pub(super) fn metrics_address(value: &DeValue<'_>) -> Result<Option<SocketAddr>, String> {
    match value.as_str() {
        Some("off") => Ok(None),
        Some(_) | None => socket_address(value).map(Some).map_err(|why| format!("{why}; \"off\" serves no metrics")),
    }
}

pub(super) fn network(value: &DeValue<'_>) -> Result<IpNet, String> {
    parse_network(text(value, "10.9.0.0/16")?)
}

/// A network as written in the configuration or on a line of a file.
pub(super) fn parse_network(written: &str) -> Result<IpNet, String> {
    if let Ok(address) = written.parse::<IpAddr>() {
        return Err(format!("\"{written}\" has no prefix length: for this address alone write \"{}\"", IpNet::from(address)));
    }
    written.parse().map_err(|_| format!("\"{written}\" is not a network: write it as \"10.9.0.0/16\" or \"fd00:9::/32\""))
}

pub(super) fn ports(value: &DeValue<'_>) -> Result<PortRange, String> {
    let written = text(value, "1024-32767")?;
    let syntax = || format!("\"{written}\" is not a port range: write it as \"1024-32767\"");
    let (low, high) = written.split_once('-').ok_or_else(syntax)?;
    let port = |text: &str| text.trim().parse::<u16>().map_err(|_| syntax());
    let (low, high) = (port(low)?, port(high)?);
    if low > high {
        return Err(format!("the port range \"{written}\" is empty: write the lower port first, \"{high}-{low}\""));
    }
    if low < 1024 {
        return Err(format!("the port range \"{written}\" begins below 1024, where services live: begin at 1024 or above"));
    }
    Ok(PortRange { low, high })
}

pub(super) fn absolute_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let written = text(value, "/var/lib/splitter")?;
    let path = PathBuf::from(written);
    if path.is_absolute() { Ok(path) } else { Err(format!("\"{written}\" is not an absolute path: begin it with \"/\"")) }
}

pub(super) fn socket_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    /// `sun_path` of unix(7) holds 108 octets, the last of them zero.
    const MAX: usize = 107;
    let path = absolute_path(value)?;
    let length = path.as_os_str().len();
    if length > MAX {
        return Err(format!("the path has {length} octets, a unix socket's has at most {MAX}: choose a shorter one"));
    }
    Ok(path)
}

pub(super) fn file_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let written = text(value, "networks.txt")?;
    if written.is_empty() { Err("the path is empty: name a file, or leave the key out".to_owned()) } else { Ok(written.into()) }
}

pub(super) fn interface(value: &DeValue<'_>) -> Result<String, String> {
    /// `IFNAMSIZ` of linux/if.h without the final zero.
    const MAX: usize = 15;
    let name = text(value, "eth0")?;
    // What dev_valid_name() in net/core/dev.c refuses.
    let refused = |c: char| c == '/' || c == ':' || c.is_ascii_whitespace();
    if name.is_empty() {
        return Err("the interface's name is empty: name one, `ip link` lists them".to_owned());
    }
    if name.len() > MAX || name == "." || name == ".." || name.contains(refused) {
        return Err(format!(
            "\"{name}\" is not an interface's name: at most {MAX} characters, no blanks, \"/\" or \":\"; `ip link` lists them"
        ));
    }
    Ok(name.to_owned())
}

pub(super) fn group(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value, "splitter")?;
    if name.is_empty() {
        return Err("the group's name is empty: name a group, or leave the key out for root alone".to_owned());
    }
    Ok(name.to_owned())
}

pub(super) fn expected(what: &str, value: &DeValue<'_>) -> String {
    let found = match value {
        DeValue::String(text) => format!("the text \"{text}\""),
        DeValue::Integer(number) => format!("the integer {}", shown(number)),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(boolean) => format!("the boolean {boolean}"),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    format!("expected {what}, found {found}")
}

fn shown(number: &DeInteger<'_>) -> String {
    number.to_string()
}
