//! A target that is really asked, over HTTP.

use std::{fs, path::Path};

use hyper::header;

use super::*;
use crate::http::fake::{Says, Server};

#[tokio::test]
async fn a_target_gets_json_by_post_with_its_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let token = written(directory.path(), "token", "hunter2\n");
    let server = Server::start([Says::ok("ok")]).await;
    let target = Notify { to: NotifyTo::Url(format!("{}/hook", server.url)), token_file: Some(token), ..notify("a") };
    Client::default().deliver(&target, &message()).await.expect("told");
    let [asked] = &server.asked()[..] else { panic!("one request") };
    assert_eq!((asked.method.as_str(), asked.uri.path()), ("POST", "/hook"));
    assert_eq!(asked.header(header::CONTENT_TYPE), Some("application/json"));
    assert_eq!(asked.header(header::AUTHORIZATION), Some("Bearer hunter2"));
    assert_eq!(asked.json(), serde_json::to_value(message()).expect("JSON"));
}

#[tokio::test]
async fn a_url_in_a_file_is_read_each_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let (one, other) = (Server::start([Says::ok("")]).await, Server::start([Says::ok("")]).await);
    let file = written(directory.path(), "url", &format!(" {}/hunter2\n", one.url));
    let target = Notify { to: NotifyTo::File(file), ..notify("a") };
    let client = Client::default();
    client.deliver(&target, &message()).await.expect("told");
    written(directory.path(), "url", &format!("{}/hunter3", other.url));
    client.deliver(&target, &message()).await.expect("told");
    let paths = |server: &Server| server.asked().iter().map(|asked| asked.uri.path().to_owned()).collect::<Vec<_>>();
    assert_eq!((paths(&one), paths(&other)), (vec!["/hunter2".to_owned()], vec!["/hunter3".to_owned()]));
}

#[tokio::test]
async fn why_a_target_was_not_told_names_no_url() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str, text: &str| written(directory.path(), name, text);
    let failing = Server::start([Says::Status(503, "hunter2".to_owned())]).await;
    let refusing = Server::start([Says::Status(403, "hunter2".to_owned())]).await;
    let moved = Server::start([Says::Redirect("http://127.0.0.1:1/hunter2".to_owned())]).await;
    let silent = Server::start([Says::Never]).await;
    let to = |server: &Server| NotifyTo::Url(format!("{}/hunter2?key=hunter2", server.url));
    let rows = [
        (to(&failing), true, "it answered 503 Service Unavailable"),
        (to(&refusing), false, "it answered 403 Forbidden"),
        (to(&moved), false, "it answered 307 Temporary Redirect, and redirects are not followed"),
        (to(&silent), true, "no answer within 300ms"),
        (NotifyTo::Url("http://127.0.0.1:1/hunter2".to_owned()), true, "could not connect: Connection refused (os error 111)"),
        (NotifyTo::Url("hunter2".to_owned()), true, "its URL: it is not a URL like http://127.0.0.1:9090"),
        (
            NotifyTo::File(path("url", "http://alice:hunter2@a/")),
            true,
            "its URL: it has a user name in it; a secret belongs into a file, see `token_file`",
        ),
        (NotifyTo::File("/nonexistent/url".into()), true, "cannot read /nonexistent/url: No such file or directory (os error 2)"),
    ];
    for (to, may_pass, why) in rows {
        let target = Notify { to, timeout: Duration::from_millis(300), ..notify("a") };
        let untold = Client::default().deliver(&target, &message()).await.expect_err("untold");
        assert_eq!((untold.to_string().as_str(), untold.may_pass), (why, may_pass));
        assert!(!format!("{untold:?} {target:?}").contains("hunter2"));
    }
}

fn message() -> Message {
    Message::of(event(moved(step_of(1))), "node1").expect("worth it")
}

fn written(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).expect("written");
    path
}
