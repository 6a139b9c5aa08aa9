//! For tests: text that is compared with a file. `BLESS=1 cargo test -p splitter-user` writes the files anew; read the
//! difference before you commit it.

use std::{fs, path::Path};

/// Compares with a file of `src/golden/`.
pub fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, text).expect("the golden file can be written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(expected == text, "differs from {}; it is now:\n{text}", path.display());
}

/// Compares with the part of a document between `<!-- name: begin -->` and `<!-- name: end -->`.
pub fn golden_part(document: &str, name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(document);
    let whole = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let (before, rest) = whole.split_once(&begin).unwrap_or_else(|| panic!("{document} has no `{begin}`"));
    let (part, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{document} has no `{end}`"));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, format!("{before}{begin}{text}{end}{after}")).expect("the document can be written");
        return;
    }
    assert!(part == text, "{} differs between the marks of {name}; it should be:\n{text}", path.display());
}
