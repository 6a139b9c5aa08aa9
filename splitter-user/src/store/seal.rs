//! A checksum for a JSON file, as its first member, so that the file stays one that anybody can read:
//!
//! ```json
//! {
//!   "crc32": "0e1a5c3f",
//!   "version": 1,
//! ```
//!
//! It is that of the text without its line: CRC-32 as in ISO 3309 and zlib, in hexadecimal digits. It finds damage, not forgery: who can write the file can write the sum.

const OPENING: &[u8] = b"{\n";
const BEFORE: &[u8] = b"  \"crc32\": \"";
const AFTER: &[u8] = b"\",\n";
const DIGITS: usize = 8;

/// The text of a JSON object, as serde_json prints it with indentation, with its checksum.
pub(super) fn seal(text: &[u8]) -> Vec<u8> {
    let members = text.strip_prefix(OPENING).unwrap_or(text);
    let sum = format!("{:08x}", crc32fast::hash(text));
    [OPENING, BEFORE, sum.as_bytes(), AFTER, members].concat()
}

/// A text without the line of its checksum, if it has one, and whether it has one that fits.
pub(super) fn open(sealed: &[u8]) -> (Vec<u8>, bool) {
    let Some((sum, members)) = parts(sealed) else { return (sealed.to_vec(), false) };
    let text = [OPENING, members].concat();
    // Compared as text: digits in capitals are another octet than was written.
    let fits = format!("{:08x}", crc32fast::hash(&text)).as_bytes() == sum;
    (text, fits)
}

fn parts(sealed: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sum, rest) = sealed.strip_prefix(OPENING)?.strip_prefix(BEFORE)?.split_at_checked(DIGITS)?;
    Some((sum, rest.strip_prefix(AFTER)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"{\n  \"version\": 1,\n  \"weight\": 500\n}";

    #[test]
    fn what_was_sealed_is_json_and_opens_as_it_was() {
        let sealed = seal(TEXT);
        let json: serde_json::Value = serde_json::from_slice(&sealed).expect("JSON");
        // By `python3 -c 'import zlib; print("%08x" % zlib.crc32(…))'`.
        assert_eq!((&json["crc32"], &json["weight"]), (&"76a83868".into(), &500.into()));
        assert_eq!(open(&sealed), (TEXT.to_vec(), true));
    }

    #[test]
    fn no_octet_changes_unnoticed_and_none_is_lost() {
        let sealed = seal(TEXT);
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(!open(&changed).1, "bit {bit} of octet {at}");
            }
            assert!(!open(&sealed[..at]).1, "{at} octets alone");
        }
        assert!(!open(TEXT).1, "a text without a checksum isn't taken for whole");
    }
}
