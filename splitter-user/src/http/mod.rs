//! What the agent asks others over HTTP: one POST, one bounded answer, one deadline for both.
//!
//! No redirect is followed and no proxy is taken from the environment: what is asked is what the configuration names. Each request has a connection of its
//! own: there is one every few seconds at most, and a kept connection would stay with an address that the name doesn't have any more. hyper drives it in a
//! task that ends with the request, also with one that is dropped.

mod address;
mod secret;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::{error::Error, io, path::Path, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, crypto::ring};
use tokio::{sync::OnceCell, task::spawn_blocking, time::timeout};

pub use address::{Address, BadAddress};
pub use secret::read_secret;

/// No more of an answer's body is taken.
pub const MAX_BODY: usize = 1 << 20;

const AGENT: &str = concat!("splitter/", env!("CARGO_PKG_VERSION"));

type Plain = legacy::Client<HttpConnector, Full<Bytes>>;
type Tls = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Asks others. To be made once.
#[derive(Debug)]
pub struct Client {
    plain: Plain,
    /// Made with the first request that needs it, for many nodes need none, and tried again as long as it can't be.
    tls: OnceCell<Tls>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Post<'a> {
    /// To whom.
    pub to: &'a Address,
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
    /// A file with a bearer token, read each time, for it may be replaced.
    pub token_file: Option<&'a Path>,
    /// How long all of it may take, from the name's look-up to the answer's last byte.
    pub timeout: Duration,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer. Nothing of it is secret; whom it's about is for the caller to say.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A file with a secret can't be used.
    #[error("cannot read {}: {source}", path.display())]
    Secret {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it can't be used.
    #[error("what is in {} {what}", path.display())]
    BadSecret {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// Nobody could be trusted.
    #[error("no root certificate was found on this node ({source}): is the package ca-certificates installed?")]
    Roots {
        /// What was found instead.
        source: io::Error,
    },
    /// There was no connection.
    #[error("could not connect: {why}")]
    Connect {
        /// Why not.
        why: String,
    },
    /// It took too long.
    #[error("no answer within {}", humantime::format_duration(*after))]
    Timeout {
        /// As long as it could take.
        after: Duration,
    },
    /// The answer's body is too long.
    #[error("its answer is longer than {} MiB", MAX_BODY >> 20)]
    TooLong,
    /// Something else went wrong on the way.
    #[error("the exchange failed: {why}")]
    Exchange {
        /// What.
        why: String,
    },
}

impl Default for Client {
    fn default() -> Self {
        Self { plain: unpooled().build_http(), tls: OnceCell::new() }
    }
}

impl Client {
    /// Sends a request and takes the answer.
    ///
    /// # Errors
    /// There is none, or it's too long.
    pub async fn post(&self, post: &Post<'_>) -> Result<Reply, Failure> {
        let after = post.timeout;
        timeout(after, self.exchange(post)).await.unwrap_or(Err(Failure::Timeout { after }))
    }

    async fn exchange(&self, post: &Post<'_>) -> Result<Reply, Failure> {
        let mut request = Request::builder().method(Method::POST).uri(post.to.uri().clone());
        request = request.header(CONTENT_TYPE, post.content_type).header(USER_AGENT, AGENT);
        if let Some(path) = post.token_file {
            request = request.header(AUTHORIZATION, secret::bearer(path).await?);
        }
        let request = request
            .body(Full::new(post.body.clone()))
            .map_err(|error| Failure::Exchange { why: format!("the request can't be written: {error}") })?;

        let response = self.send(post.to, request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() { Failure::TooLong } else { Failure::Exchange { why: innermost(error.as_ref()) } }
        })?;
        Ok(Reply { status, body: body.to_bytes() })
    }

    async fn send(&self, to: &Address, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let response = if to.is_tls() {
            let tls = self.tls.get_or_try_init(|| async { Ok::<_, Failure>(over_tls(trusting_the_system().await?)) }).await?;
            tls.request(request).await
        } else {
            self.plain.request(request).await
        };
        response.map_err(|error| {
            let why = innermost(&error);
            if error.is_connect() { Failure::Connect { why } } else { Failure::Exchange { why } }
        })
    }

    /// One that trusts others than the system does.
    #[cfg(test)]
    pub(crate) fn trusting(roots: rustls::RootCertStore) -> Self {
        let config = tls_versions().expect("ring has them").with_root_certificates(roots).with_no_client_auth();
        Self { tls: OnceCell::new_with(Some(over_tls(config))), ..Self::default() }
    }
}

impl Failure {
    /// Whether another try may fare better.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Secret { .. } | Self::BadSecret { .. } | Self::Roots { .. } => true,
            Self::Connect { .. } | Self::Timeout { .. } | Self::Exchange { .. } => true,
            Self::TooLong => false,
        }
    }
}

impl Reply {
    /// Whether a status says that another try may fare better: the server's own trouble, or too much asked of it at the moment.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.status.is_server_error() || matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
    }
}

/// Text that others wrote, fit for a line of a log or a terminal: nothing that moves the cursor or turns the writing round, and no more than people read.
#[must_use]
pub fn one_line(text: &str) -> String {
    const LONGEST: usize = 300;
    let bad = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut line: String = text.trim().chars().map(|c| if bad(c) { ' ' } else { c }).take(LONGEST + 1).collect();
    if let Some((at, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(at);
        line.push('…');
    }
    line
}

fn unpooled() -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder.pool_max_idle_per_host(0);
    builder
}

fn over_tls(config: ClientConfig) -> Tls {
    unpooled().build(HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build())
}

/// Reads the system's root certificates: files, hence on a thread that may wait.
async fn trusting_the_system() -> Result<ClientConfig, Failure> {
    let config = spawn_blocking(|| {
        let versions = tls_versions().map_err(io::Error::other)?;
        Ok(versions.with_native_roots()?.with_no_client_auth())
    });
    config.await.map_err(io::Error::other).flatten().map_err(|source| Failure::Roots { source })
}

/// By name, for rustls guesses only as long as no other dependency brings another provider.
fn tls_versions() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()
}

/// What went wrong in the first place: the layers above say only where.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    one_line(&innermost.to_string())
}
