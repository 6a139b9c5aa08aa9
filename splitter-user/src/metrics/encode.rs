//! A snapshot as text: OpenMetrics, and Prometheus' classic format for those who don't ask for it.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{self, Registry},
};

use super::{
    snapshot::Snapshot,
    table::{Kind, METRICS, Metric, Sample, Unit, Value},
};

/// The content type of [`open_metrics`].
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of [`classic`].
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// In the format of OpenMetrics 1.0.
///
/// # Errors
/// Never with the metrics of the table; the encoder's signature allows it.
pub fn open_metrics(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Reader(snapshot)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// In Prometheus' text format 0.0.4. It has no units and no type `info`, and the name of a family is that of its samples.
///
/// # Errors
/// See [`open_metrics`].
pub fn classic(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut text = String::new();
    for line in open_metrics(snapshot)?.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "EOF"] | ["#", "UNIT", ..] => {}
            ["#", word, family, rest] => {
                let metric = METRICS.iter().find(|metric| metric.name == family).ok_or(fmt::Error)?;
                let rest = if word == "TYPE" { classic_type(metric.kind) } else { rest };
                text += &format!("# {word} {} {rest}\n", metric.sample_name());
            }
            _ => {
                text += line;
                text.push('\n');
            }
        }
    }
    Ok(text)
}

const fn classic_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge | Kind::Info => "gauge",
        Kind::Histogram => "histogram",
    }
}

/// Reads the table's metrics out of a snapshot.
#[derive(Debug)]
struct Reader(Snapshot);

impl Collector for Reader {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for metric in METRICS {
            let samples = (metric.read)(&self.0);
            if samples.is_empty() {
                continue;
            }
            let unit = metric.unit.map(registry_unit);
            let mut family =
                encoder.encode_descriptor(bare_name(metric), metric.help, unit.as_ref(), metric_type(metric.kind))?;
            for sample in samples {
                encode_sample(&mut family, metric, sample)?;
            }
        }
        Ok(())
    }
}

fn encode_sample(family: &mut MetricEncoder, metric: &Metric, sample: Sample) -> Result<(), fmt::Error> {
    let labels: Vec<_> = metric.labels.iter().copied().zip(sample.labels).collect();
    if metric.kind == Kind::Info {
        return family.encode_info(&labels);
    }
    if labels.is_empty() {
        return encode_value(family, metric.kind, sample.value);
    }
    encode_value(&mut family.encode_family(&labels)?, metric.kind, sample.value)
}

fn encode_value(encoder: &mut MetricEncoder, kind: Kind, value: Value) -> Result<(), fmt::Error> {
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        (Kind::Counter, Value::Real(value)) => encoder.encode_counter::<NoLabelSet, _, f64>(&value, None),
        (Kind::Gauge | Kind::Info, Value::Whole(value)) => encoder.encode_gauge(&value),
        (Kind::Gauge | Kind::Info, Value::Real(value)) => encoder.encode_gauge(&value),
        (Kind::Histogram, Value::Times { sum, buckets }) => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        }
        // The table has no such metric; a test reads each.
        (Kind::Counter | Kind::Gauge | Kind::Info, Value::Times { .. }) | (Kind::Histogram, Value::Whole(_) | Value::Real(_)) => {
            Err(fmt::Error)
        }
    }
}

const fn metric_type(kind: Kind) -> MetricType {
    match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Info => MetricType::Info,
        Kind::Histogram => MetricType::Histogram,
    }
}

fn registry_unit(unit: Unit) -> registry::Unit {
    match unit {
        Unit::Bytes => registry::Unit::Bytes,
        Unit::Seconds => registry::Unit::Seconds,
        Unit::Entries | Unit::Ratio => registry::Unit::Other(unit.as_str().to_owned()),
    }
}

/// The encoder writes the unit itself.
fn bare_name(metric: &Metric) -> &'static str {
    let without = metric.unit.and_then(|unit| metric.name.strip_suffix(unit.as_str())?.strip_suffix('_'));
    without.unwrap_or(metric.name)
}
