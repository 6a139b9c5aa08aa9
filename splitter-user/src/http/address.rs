//! Where a request goes.

use std::fmt;

use hyper::{
    Uri,
    http::uri::{PathAndQuery, Scheme},
};

/// A URL that can be asked. Shown without its path and query, for those of a webhook may be its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Uri);

/// Why a text isn't the URL of something that can be asked. It doesn't repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// No URL, or one without a host.
    #[error("it is not a URL like http://127.0.0.1:9090")]
    NotAUrl,
    /// Another protocol's.
    #[error("it begins neither with http:// nor with https://")]
    Scheme,
    /// Where a password would stand for everyone to see.
    #[error("it has a user name in it; a secret belongs into a file, see `token_file`")]
    UserInfo,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// It isn't one, or not of a kind that can be asked.
    pub fn parse(url: &str) -> Result<Self, BadAddress> {
        let uri: Uri = url.parse().map_err(|_| BadAddress::NotAUrl)?;
        let scheme = uri.scheme().ok_or(BadAddress::NotAUrl)?;
        if ![Scheme::HTTP, Scheme::HTTPS].contains(scheme) {
            return Err(BadAddress::Scheme);
        }
        let authority = uri.authority().ok_or(BadAddress::NotAUrl)?;
        if authority.as_str().contains('@') {
            return Err(BadAddress::UserInfo);
        }
        if authority.host().is_empty() {
            return Err(BadAddress::NotAUrl);
        }
        Ok(Self(uri))
    }

    /// The same with a further path; a query stays.
    ///
    /// # Errors
    /// They don't make a URL.
    pub fn join(&self, path: &str) -> Result<Self, BadAddress> {
        let query = self.0.query().map(|query| format!("?{query}")).unwrap_or_default();
        let joined = format!("{}{path}{query}", self.0.path().trim_end_matches('/'));
        let mut parts = self.0.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(joined).map_err(|_| BadAddress::NotAUrl)?);
        Uri::from_parts(parts).map(Self).map_err(|_| BadAddress::NotAUrl)
    }

    pub(super) const fn uri(&self) -> &Uri {
        &self.0
    }

    pub(super) fn is_tls(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.scheme_str(), self.0.authority()) {
            (Some(scheme), Some(authority)) => write!(f, "{scheme}://{authority}"),
            // `parse` lets neither be absent.
            (None, _) | (_, None) => Ok(()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        let address = Address::parse("https://hooks.example:8443/services/T0/B0/secret?key=secret").expect("a URL");
        assert_eq!(address.to_string(), "https://hooks.example:8443");
        assert_eq!(format!("{address:?}"), "Address(https://hooks.example:8443)");
    }

    #[test]
    fn what_cannot_be_asked_is_refused_without_being_repeated() {
        let rows = [
            ("", BadAddress::NotAUrl),
            ("/hook", BadAddress::NotAUrl),
            ("127.0.0.1:9090", BadAddress::NotAUrl),
            ("http://", BadAddress::NotAUrl),
            ("http://:9090/", BadAddress::NotAUrl),
            ("http://a b/", BadAddress::NotAUrl),
            ("ftp://a/", BadAddress::Scheme),
            ("http://alice:secret@a/", BadAddress::UserInfo),
        ];
        for (url, why) in rows {
            assert_eq!(Address::parse(url), Err(why), "{url}");
        }
    }

    #[test]
    fn a_path_is_joined_before_the_query() {
        let rows = [
            ("http://a:9090", "http://a:9090/api/v1/query"),
            ("http://a:9090/", "http://a:9090/api/v1/query"),
            ("http://[::1]:9090/prometheus/?tenant=b", "http://[::1]:9090/prometheus/api/v1/query?tenant=b"),
        ];
        for (url, joined) in rows {
            let address = Address::parse(url).and_then(|address| address.join("/api/v1/query")).expect("a URL");
            assert_eq!(address.uri().to_string(), joined);
        }
    }
}
