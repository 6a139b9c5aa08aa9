//! Words of a person: weights, factors, names, URLs, and command lines.

use std::{fmt::Display, str::FromStr};

use splitter_user::{
    cli,
    http::Address,
    model::{BackendWeight, Factor, ServiceName, Weight},
};

/// What a command line begins with; its words stand one a line.
const PROGRAM: &str = "splitter";

/// Reads a text as whatever it may be.
///
/// # Panics
/// When something reads another value than it shows.
pub fn check(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    if text.starts_with(PROGRAM) {
        if let Err(error) = cli::read(text.split('\n').map(Into::into)) {
            assert!(!error.to_string().trim().is_empty(), "a command line is refused without a word");
        }
        return;
    }
    shows_itself::<Weight>(text);
    shows_itself::<Factor>(text);
    shows_itself::<ServiceName>(text);
    if let Ok(number) = text.parse::<u32>()
        && let Ok(weight) = BackendWeight::try_from(number)
    {
        assert_eq!(u32::from(weight), number);
    }
    match Address::parse(text) {
        Ok(address) => {
            let shown = address.to_string();
            assert!(Address::parse(&shown).is_ok(), "{shown} is shown, and isn't one");
            assert!(!shown.contains('@') && shown.starts_with("http"), "{shown}");
            if let Ok(joined) = address.join("/api/v1/query") {
                assert_eq!(joined.to_string(), shown, "another host");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn shows_itself<T: FromStr<Err: Display> + Display + PartialEq>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => {
            let shown = value.to_string();
            assert!(shown.parse::<T>().is_ok_and(|again| again == value), "{text:?} is shown as {shown}, which isn't it");
        }
        Err(error) => assert!(!error.to_string().trim().is_empty(), "{text:?} is refused without a word"),
    }
}
