//! An initial file system as the kernel unpacks it: cpio's "new ASCII" format (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
/// Names the end of an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive being written. A directory has to come before what is in it.
pub struct Archive<W> {
    to: W,
    written: usize,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub fn new(to: W) -> Self {
        Self { to, written: 0, entries: 0 }
    }

    /// A directory.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIRECTORY, &[])
    }

    /// A file that may be run.
    pub fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, EXECUTABLE, content)
    }

    /// Writes the end, and gives back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry(TRAILER, 0, &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        // Hard links are told by the number, of which every entry therefore has its own.
        self.entries += 1;
        let too_large = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is too large for the format"));
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let name = u32::try_from(path.len() + 1).map_err(too_large)?;
        let links = 1;
        let (user, group, time, device) = (0, 0, 0, [0; 4]);
        let [a, b, c, d] = device;
        let checksum = 0;
        let mut header = String::from("070701");
        for field in [self.entries, mode, user, group, links, time, size, a, b, c, d, name, checksum] {
            header.push_str(&format!("{field:08x}"));
        }
        self.put(header.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.align()?;
        self.put(content)?;
        self.align()
    }

    fn put(&mut self, octets: &[u8]) -> io::Result<()> {
        self.written += octets.len();
        self.to.write_all(octets)
    }

    fn align(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 3][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("bin").expect("memory takes it");
        archive.file("bin/a", b"12345").expect("memory takes it");
        let written = archive.finish().expect("memory takes it");

        let found = read(&written);
        let expected = [
            ("bin".to_owned(), DIRECTORY, Vec::new()),
            ("bin/a".to_owned(), EXECUTABLE, b"12345".to_vec()),
            (TRAILER.to_owned(), 0, Vec::new()),
        ];
        assert_eq!(found, expected);
        assert_eq!(written.len() % 4, 0);
    }

    /// Reads as `init/initramfs.c` does.
    fn read(mut rest: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        while !rest.is_empty() {
            assert_eq!(&rest[..6], b"070701");
            let field = |index: usize| {
                let digits = std::str::from_utf8(&rest[6 + index * 8..][..8]).expect("digits");
                u32::from_str_radix(digits, 16).expect("hexadecimal ones")
            };
            let (mode, size, name) = (field(1), field(6) as usize, field(11) as usize);
            let begin = (110 + name).next_multiple_of(4);
            let path = String::from_utf8(rest[110..110 + name - 1].to_vec()).expect("a name");
            assert_eq!(rest[110 + name - 1], 0);
            entries.push((path, mode, rest[begin..begin + size].to_vec()));
            rest = &rest[(begin + size).next_multiple_of(4)..];
        }
        entries
    }
}
