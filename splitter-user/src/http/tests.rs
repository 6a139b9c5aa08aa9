//! The client against servers on loopback.

use std::{io::Write, net::SocketAddr, sync::Arc, time::Instant};

use hyper::header;
use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    fake::{Says, Server},
    *,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_body_is_posted_and_the_answer_comes_back_whole() {
    let server = Server::start([Says::Status(201, "x".repeat(MAX_BODY))]).await;
    let reply = post(&Client::default(), &format!("{}/a?b=c", server.url), None, PATIENCE).await.expect("an answer");
    assert_eq!((reply.status, reply.body.len()), (StatusCode::CREATED, MAX_BODY));
    let [asked] = &server.asked()[..] else { panic!("one request") };
    assert_eq!((asked.method.as_str(), asked.uri.to_string()), ("POST", "/a?b=c".to_owned()));
    assert_eq!(&asked.body[..], b"body");
    assert_eq!(asked.header(header::CONTENT_TYPE), Some("text/plain"));
    assert_eq!(asked.header(header::USER_AGENT), Some(AGENT));
    assert_eq!(asked.header(header::AUTHORIZATION), None);
}

#[tokio::test]
async fn a_token_is_read_for_each_request() {
    let server = Server::start([Says::ok("")]).await;
    let token = file("  first\n");
    let client = Client::default();
    post(&client, &server.url, Some(token.path()), PATIENCE).await.expect("an answer");
    std::fs::write(token.path(), "second").expect("replaced");
    post(&client, &server.url, Some(token.path()), PATIENCE).await.expect("an answer");
    let asked = server.asked();
    let sent: Vec<_> = asked.iter().map(|asked| asked.header(header::AUTHORIZATION)).collect();
    assert_eq!(sent, [Some("Bearer first"), Some("Bearer second")]);
}

#[tokio::test]
async fn a_token_that_cannot_be_used_is_told_by_its_file_and_nothing_is_sent() {
    let server = Server::start([Says::ok("")]).await;
    let (empty, lines, long) = (file(" \n"), file("to\nken"), file(&"x".repeat(70_000)));
    let absent = Path::new("/nonexistent/token");
    for (path, what) in [
        (absent, "cannot read /nonexistent/token: No such file or directory (os error 2)".to_owned()),
        (empty.path(), format!("what is in {} is empty", empty.path().display())),
        (lines.path(), format!("what is in {} is no token: it has characters that no header may have", lines.path().display())),
        (long.path(), format!("cannot read {}: it is longer than 64 KiB", long.path().display())),
    ] {
        let failure = post(&Client::default(), &server.url, Some(path), PATIENCE).await.expect_err("no token");
        assert_eq!(failure.to_string(), what);
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_token_is_not_shown() {
    let token = file("hunter2");
    let header = secret::bearer(token.path()).await.expect("a header");
    assert_eq!(format!("{header:?}"), "Sensitive");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let elsewhere = Server::start([Says::ok("")]).await;
    let server = Server::start([Says::Redirect(elsewhere.url.clone())]).await;
    let reply = post(&Client::default(), &server.url, None, PATIENCE).await.expect("an answer");
    assert_eq!(reply.status, StatusCode::TEMPORARY_REDIRECT);
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn an_answer_without_an_end_is_given_up() {
    let server = Server::start([Says::Endless]).await;
    let failure = post(&Client::default(), &server.url, None, PATIENCE).await.expect_err("too long");
    assert!(matches!(failure, Failure::TooLong), "{failure}");
}

#[tokio::test]
async fn whoever_says_nothing_or_stops_in_the_middle_is_waited_for_no_longer_than_said() {
    let silent = Server::start([Says::Never]).await;
    let (halting, _halting) = raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", true).await;
    for url in [&silent.url, &halting] {
        let began = Instant::now();
        let failure = post(&Client::default(), url, None, Duration::from_millis(200)).await.expect_err("no answer");
        assert_eq!(failure.to_string(), "no answer within 200ms");
        assert!(began.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_leaves_no_connection_behind() {
    // Before there is an answer, and in the middle of one.
    for begun in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen_closed = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let read = stream.read(&mut [0; 4096]).await.expect("a request");
            assert!(read > 0);
            stream.write_all(begun.as_bytes()).await.expect("written");
            // Nothing more comes; an error is a reset, which is an end too.
            assert_eq!(stream.read(&mut [0; 4096]).await.unwrap_or(0), 0);
        };
        let client = Client::default();
        let asked = post(&client, &url, None, Duration::from_millis(200));
        let both = timeout(PATIENCE, async { tokio::join!(asked, seen_closed) });
        let (asked, ()) = both.await.expect("the connection is closed");
        assert!(matches!(asked, Err(Failure::Timeout { .. })), "{asked:?}");
    }
}

#[tokio::test]
async fn each_way_to_fail_has_its_words() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let (short, _short) = raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", false).await;
    let (other, _other) = raw("220 mail.example ESMTP\r\n", false).await;
    let rows = [
        (format!("http://{free}"), "could not connect: Connection refused (os error 111)"),
        ("http://no-such-host.invalid".to_owned(), "could not connect: failed to lookup address information"),
        (short, "the exchange failed: end of file before message length reached"),
        (other, "the exchange failed: invalid HTTP version parsed"),
    ];
    for (url, why) in rows {
        let failure = post(&Client::default(), &url, None, PATIENCE).await.expect_err("no answer");
        assert!(failure.to_string().starts_with(why), "{url}: {failure}");
        assert!(failure.may_pass());
    }
}

#[tokio::test]
async fn over_tls_only_a_server_that_the_roots_vouch_for_is_asked() {
    let (address, root, _serving) = tls_server().await;
    let url = format!("https://{address}/");
    let reply = post(&Client::trusting(root), &url, None, PATIENCE).await.expect("an answer");
    assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"ok"[..]));

    // The system's own roots don't know it, and a node may have none.
    let failure = post(&Client::default(), &url, None, PATIENCE).await.expect_err("not trusted");
    let text = failure.to_string();
    let untrusted = text.starts_with("could not connect: invalid peer certificate");
    assert!(untrusted || text.starts_with("no root certificate was found on this node"), "{text}");
}

#[test]
fn others_words_become_one_line_that_a_terminal_may_show() {
    assert_eq!(one_line(" two\nlines\u{1b}[2J \u{202e}x "), "two lines [2J  x");
    let long = one_line(&"é".repeat(1_000));
    assert_eq!((long.chars().count(), long.ends_with('…')), (301, true));
}

async fn post(client: &Client, url: &str, token_file: Option<&Path>, timeout: Duration) -> Result<Reply, Failure> {
    let to = Address::parse(url).expect("a URL");
    client.post(&Post { to: &to, content_type: "text/plain", body: Bytes::from_static(b"body"), token_file, timeout }).await
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

/// Answers one connection with these bytes; then it closes it, or holds it.
async fn raw(answer: &'static str, hold: bool) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        // The request is small, and comes in one piece.
        let read = stream.read(&mut [0; 4096]).await.expect("a request");
        assert!(read > 0);
        stream.write_all(answer.as_bytes()).await.expect("written");
        if hold {
            std::future::pending::<()>().await;
        }
    });
    (url, serving)
}

/// A server with a certificate of its own, and the roots that vouch for it.
async fn tls_server() -> (SocketAddr, RootCertStore, JoinSet<()>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            // An error is a client that doesn't trust it.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let read = stream.read(&mut [0; 4096]).await.expect("a request");
                assert!(read > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("written");
            }
        }
    });
    (address, roots, serving)
}
