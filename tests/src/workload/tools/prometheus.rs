//! A Prometheus server that scrapes inside a namespace.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};

use serde::Deserialize;
use tempfile::TempDir;

use super::{comes_up, program};
use crate::{
    lab::{LabError, Namespace, Process, Result},
    workload::http,
};

const ANSWERS: Duration = Duration::from_secs(10);

/// A running Prometheus that scrapes its targets every second; killed when dropped.
#[derive(Debug)]
pub struct Prometheus {
    namespace: Namespace,
    address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

/// One element of the result of a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels, `__name__` among them where the query kept it.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Prometheus {
    /// Starts it on a free port of the namespace's loopback; it scrapes `/metrics` of these addresses.
    ///
    /// # Errors
    /// When it is not installed or does not come up, with what it wrote.
    pub fn start(namespace: &Namespace, targets: &[SocketAddr]) -> Result<Self> {
        // Free at this moment, and nobody else takes ports in a lab's namespace.
        let free = namespace.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr())?;
        Self::start_at(namespace, free.map_err(LabError::io("find a free port"))?, targets)
    }

    /// The same, on an address of one's own.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn start_at(namespace: &Namespace, address: SocketAddr, targets: &[SocketAddr]) -> Result<Self> {
        let mut command = program("prometheus", "prometheus")?;
        let directory = tempfile::Builder::new().prefix("prometheus").tempdir().map_err(LabError::io("make a directory"))?;
        let root = directory.path();
        let (configuration, log) = (root.join("prometheus.yml"), root.join("log"));
        let quoted = targets.iter().map(|target| format!("'{target}'")).collect::<Vec<_>>().join(", ");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: lab\n  static_configs:\n  - targets: [{quoted}]\n"
        );
        fs::write(&configuration, text).map_err(LabError::io(format!("write {}", configuration.display())))?;
        let log_file = File::create(&log).map_err(LabError::io(format!("create {}", log.display())))?;
        command.arg(format!("--config.file={}", configuration.display()));
        command.arg(format!("--storage.tsdb.path={}", root.join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        command.stdout(log_file.try_clone().map_err(LabError::io("duplicate a descriptor"))?).stderr(log_file);
        let mut process = namespace.spawn(command)?;
        comes_up(namespace, "prometheus", &mut process, &log, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let answer = runtime.block_on(http::get(address, "/-/ready", ANSWERS)).map_err(io::Error::other)?;
            if answer.status().is_success() { Ok(()) } else { Err(io::Error::other(answer.status().to_string())) }
        })?;
        Ok(Self { namespace: namespace.clone(), address, _process: process, _directory: directory })
    }

    /// Where its HTTP interface is, inside the namespace.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The instant vector (or the scalar, as one element without labels) of a `PromQL` expression.
    ///
    /// # Errors
    /// When Prometheus refuses the expression, or the result is of another type.
    pub fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        let unexpected = |why: String| LabError::Unexpected { what: format!("prometheus, asked for {expression}"), why };
        let path = format!("/api/v1/query?query={}", escaped(expression));
        let answer = self.namespace.block_on(http::get(self.address, &path, ANSWERS))?;
        let body = answer.map_err(|error| unexpected(error.to_string()))?.into_body();
        parse(&body).map_err(unexpected)
    }
}

fn parse(body: &[u8]) -> std::result::Result<Vec<Sample>, String> {
    #[derive(Deserialize)]
    struct Answer {
        data: Option<Data>,
        error: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
    enum Data {
        Vector(Vec<Element>),
        Scalar((f64, String)),
    }
    #[derive(Deserialize)]
    struct Element {
        metric: BTreeMap<String, String>,
        value: (f64, String),
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a number"));
    match (answer.error, answer.data) {
        (Some(error), _) => Err(error),
        (None, None) => Err("neither data nor an error".into()),
        (None, Some(Data::Scalar((_, value)))) => Ok(vec![Sample { labels: BTreeMap::new(), value: number(&value)? }]),
        (None, Some(Data::Vector(elements))) => {
            elements.into_iter().map(|element| Ok(Sample { labels: element.metric, value: number(&element.value.1)? })).collect()
        }
    }
}

/// For a URL's query: every byte but the unreserved ones (RFC 3986, section 2.3) by its number.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            0..=255 => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_survives_the_url() {
        assert_eq!(escaped("sum(a{b=\"c d\"}) / 2"), "sum%28a%7Bb%3D%22c%20d%22%7D%29%20%2F%202");
    }

    #[test]
    fn a_vector_a_scalar_and_an_error_are_told_apart() {
        let vector =
            br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.5,"NaN"]}]}}"#;
        let samples = parse(vector).expect("a vector");
        assert_eq!(samples[0].labels, BTreeMap::from([("a".into(), "b".into())]));
        assert!(samples[0].value.is_nan());
        let scalar = parse(br#"{"status":"success","data":{"resultType":"scalar","result":[1,"42"]}}"#);
        assert_eq!(scalar, Ok(vec![Sample { labels: BTreeMap::new(), value: 42.0 }]));
        assert_eq!(parse(br#"{"status":"error","errorType":"bad_data","error":"no"}"#), Err("no".into()));
        let matrix = br#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        assert!(parse(matrix).is_err());
    }
}
