//! Recordings as files: pcapng (draft-ietf-opsawg-pcapng), which tcpdump and Wireshark read. What the recording is of stands in the section's comment, as JSON.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{About, Passed, Recording, Way};
use crate::oracle::sample;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const MAGIC: u32 = 0x1a2b_3c4d;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;
/// The options that are written, by their codes.
const END: u16 = 0;
const COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
/// Timestamps count nanoseconds: ten to the minus nine.
const NANOSECONDS: u8 = 9;
/// The direction in `epb_flags`, seen from the node.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// The interfaces, in the order of their blocks.
const INTERFACES: [(u32, &str); 2] = [(sample::FRONT, "front"), (sample::BACK, "back")];

/// A recording as a file's content.
///
/// # Errors
/// What it is of doesn't fit a comment, or an interface isn't one of a recording.
pub fn write(recording: &Recording) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let comment = serde_json::to_vec(&recording.about)?;
    let mut section = [&MAGIC.to_le_bytes()[..], &1_u16.to_le_bytes(), &0_u16.to_le_bytes(), &u64::MAX.to_le_bytes()].concat();
    option(&mut section, COMMENT, &comment).context("the configuration is too large for a comment")?;
    option(&mut section, END, &[])?;
    block(&mut file, SECTION, &section)?;
    for (_, name) in INTERFACES {
        // No limit to what is kept of a frame.
        let mut interface = [&ETHERNET.to_le_bytes()[..], &[0; 2], &[0; 4]].concat();
        option(&mut interface, IF_NAME, name.as_bytes())?;
        option(&mut interface, IF_TSRESOL, &[NANOSECONDS])?;
        option(&mut interface, END, &[])?;
        block(&mut file, INTERFACE, &interface)?;
    }
    for Passed { at, interface, way, bytes } in &recording.frames {
        let place = INTERFACES.iter().position(|(number, _)| number == interface).context("an interface of its own")?;
        let time = u64::try_from(at.as_nanos())?;
        let length = u32::try_from(bytes.len())?;
        let words = [u32::try_from(place)?, (time >> 32) as u32, time as u32, length, length];
        let mut packet: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        packet.extend(bytes);
        pad(&mut packet);
        let direction = if *way == Way::In { INBOUND } else { OUTBOUND };
        option(&mut packet, EPB_FLAGS, &direction.to_le_bytes())?;
        option(&mut packet, END, &[])?;
        block(&mut file, PACKET, &packet)?;
    }
    Ok(file)
}

/// Reads what [`write`] has written.
///
/// # Errors
/// It's something else, or damaged: what, and at which octet.
pub fn read(file: &[u8]) -> Result<Recording> {
    let (mut about, mut frames) = (None, Vec::new());
    let mut at = 0;
    while at < file.len() {
        let (kind, body, length) = next(&file[at..]).with_context(|| format!("at octet {at}"))?;
        match kind {
            SECTION => {
                ensure!(body.get(..4) == Some(&MAGIC.to_le_bytes()), "not a little-endian pcapng file");
                let comment = find(body.get(16..).context("a section that is cut short")?, COMMENT)?;
                let comment =
                    comment.context("its section has no comment: only files that `--keep` has written can be replayed")?;
                about = Some(serde_json::from_slice::<About>(comment).context("its comment isn't what a recording is of")?);
            }
            INTERFACE => {}
            PACKET => frames.push(packet(body).with_context(|| format!("in the packet at octet {at}"))?),
            other => bail!("a block of kind {other:#x} at octet {at}, which a recording doesn't have"),
        }
        at += length;
    }
    Ok(Recording { about: about.context("an empty file")?, frames })
}

fn packet(body: &[u8]) -> Result<Passed> {
    let word = |number: usize| -> Result<u32> {
        let octets = body.get(number * 4..number * 4 + 4).context("cut short")?;
        Ok(u32::from_le_bytes(octets.try_into()?))
    };
    let (interface, _) = *INTERFACES.get(word(0)? as usize).context("an interface that isn't described")?;
    let (time, length) = (u64::from(word(1)?) << 32 | u64::from(word(2)?), word(3)? as usize);
    let bytes = body.get(20..20 + length).context("cut short")?.to_vec();
    let options = body.get(20 + length.next_multiple_of(4)..).context("cut short")?;
    let flags = find(options, EPB_FLAGS)?.context("without a direction")?;
    let way = match u32::from_le_bytes(flags.try_into().context("flags of another length")?) {
        INBOUND => Way::In,
        OUTBOUND => Way::Out,
        other => bail!("of a direction {other}"),
    };
    Ok(Passed { at: Duration::from_nanos(time), interface, way, bytes })
}

/// The first block: kind, body, whole length.
fn next(file: &[u8]) -> Result<(u32, &[u8], usize)> {
    let word = |at: usize| -> Result<u32> {
        Ok(u32::from_le_bytes(file.get(at..at + 4).context("a block that is cut short")?.try_into()?))
    };
    let (kind, length) = (word(0)?, word(4)? as usize);
    ensure!(length >= 12 && length.is_multiple_of(4) && length <= file.len(), "a block of {length} octets");
    ensure!(word(length - 4)? as usize == length, "a block whose two lengths differ");
    Ok((kind, &file[8..length - 4], length))
}

/// The value of an option.
fn find(mut options: &[u8], wanted: u16) -> Result<Option<&[u8]>> {
    while let [a, b, c, d, rest @ ..] = options {
        let (code, length) = (u16::from_le_bytes([*a, *b]), usize::from(u16::from_le_bytes([*c, *d])));
        let value = rest.get(..length).context("an option that is cut short")?;
        if code == wanted {
            return Ok(Some(value));
        }
        if code == END {
            return Ok(None);
        }
        options = rest.get(length.next_multiple_of(4)..).context("an option that is cut short")?;
    }
    Ok(None)
}

fn option(to: &mut Vec<u8>, code: u16, value: &[u8]) -> Result<()> {
    to.extend(code.to_le_bytes());
    to.extend(u16::try_from(value.len())?.to_le_bytes());
    to.extend(value);
    pad(to);
    Ok(())
}

fn block(to: &mut Vec<u8>, kind: u32, body: &[u8]) -> Result<()> {
    debug_assert!(body.len().is_multiple_of(4), "whatever is put into a body is padded");
    let length = u32::try_from(body.len() + 12)?.to_le_bytes();
    to.extend(kind.to_le_bytes());
    to.extend(length);
    to.extend(body);
    to.extend(length);
    Ok(())
}

fn pad(octets: &mut Vec<u8>) {
    octets.resize(octets.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording() -> Recording {
        let passed =
            |at, interface, way, length| Passed { at: Duration::from_nanos(at), interface, way, bytes: (0..length).collect() };
        let frames = vec![
            passed(1_790_000_000_123_456_789, sample::FRONT, Way::In, 60),
            passed(1_790_000_000_123_456_790, sample::BACK, Way::Out, 61),
            passed(1_790_000_000_123_456_790, sample::BACK, Way::In, 62),
            passed(1_790_000_001_000_000_000, sample::FRONT, Way::In, 63),
        ];
        let about = About { program: "a program".into(), place: "somewhere".into(), world: sample::world(), lost: 7 };
        Recording { about, frames }
    }

    #[test]
    fn what_was_written_is_read() {
        let recording = recording();
        let file = write(&recording).expect("it fits");
        assert_eq!(read(&file).expect("as it was written"), recording);
    }

    #[test]
    fn a_file_that_is_cut_or_damaged_is_refused_and_never_read_as_another() {
        let recording = recording();
        let file = write(&recording).expect("it fits");
        for length in 0..file.len() {
            if let Ok(shorter) = read(&file[..length]) {
                assert!(shorter.frames.len() < recording.frames.len(), "cut to {length} octets");
            }
        }
        let message = |file: &[u8]| format!("{:#}", read(file).expect_err("it's no recording"));
        assert_eq!(message(&[]), "an empty file");
        let mut other = file.clone();
        other[4] += 4;
        assert_eq!(message(&other), "at octet 0: a block whose two lengths differ");
        let mut swapped = file;
        swapped[8..12].reverse();
        assert_eq!(message(&swapped), "not a little-endian pcapng file");
    }
}
