//! Secrets: each in a file of its own, read each time it's needed.

use std::{io, path::Path};

use hyper::header::HeaderValue;
use tokio::{fs::File, io::AsyncReadExt};

use super::Failure;

/// Longer is no secret but a mistake.
const LONGEST: u64 = 64 << 10;

/// What is in a file, without the white space around it.
///
/// # Errors
/// It can't be read, or there is nothing in it.
pub async fn read_secret(path: &Path) -> Result<String, Failure> {
    let text = read(path).await.map_err(|source| Failure::Secret { path: path.to_owned(), source })?;
    match text.trim() {
        "" => Err(bad(path, "is empty")),
        secret => Ok(secret.to_owned()),
    }
}

async fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = File::open(path).await?.take(LONGEST + 1);
    if file.read_to_string(&mut text).await? as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {} KiB", LONGEST >> 10)));
    }
    Ok(text)
}

/// The header that a token becomes; it isn't shown by `Debug`.
pub(super) async fn bearer(path: &Path) -> Result<HeaderValue, Failure> {
    let token = read_secret(path).await?;
    let mut header = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| bad(path, "is no token: it has characters that no header may have"))?;
    header.set_sensitive(true);
    Ok(header)
}

fn bad(path: &Path, what: &'static str) -> Failure {
    Failure::BadSecret { path: path.to_owned(), what }
}
