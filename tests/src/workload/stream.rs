//! A pseudo-random byte stream that can be entered anywhere, so that a byte out of place is a byte wrong.

/// The stream of a seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    seed: u64,
}

impl Stream {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Fills a buffer with the stream's bytes from an offset on.
    pub(crate) fn fill(self, offset: u64, buffer: &mut [u8]) {
        for (at, byte) in (offset..).zip(buffer) {
            *byte = self.byte(at);
        }
    }

    /// How many bytes of a piece differ from the stream's.
    pub(crate) fn wrong(self, offset: u64, piece: &[u8]) -> u64 {
        (offset..).zip(piece).map(|(at, byte)| u64::from(self.byte(at) != *byte)).sum()
    }

    fn byte(self, at: u64) -> u8 {
        self.word(at / 8).to_le_bytes()[(at % 8) as usize]
    }

    /// `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn word(self, number: u64) -> u64 {
        let mut word = self.seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_generators() {
        // The first outputs for seed 1234567, as published with the reference implementation's ports.
        let stream = Stream::new(1_234_567);
        assert_eq!([0, 1, 2].map(|number| stream.word(number)), [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn a_piece_is_the_same_wherever_the_stream_is_entered() {
        let (mut whole, mut part) = ([0; 100], [0; 40]);
        Stream::new(7).fill(1000, &mut whole);
        Stream::new(7).fill(1033, &mut part);
        assert_eq!(part, whole[33..73]);
        assert_eq!(Stream::new(7).wrong(1033, &part), 0);
    }

    #[test]
    fn a_changed_byte_and_a_shifted_or_foreign_piece_are_seen() {
        let mut piece = [0; 1000];
        Stream::new(7).fill(0, &mut piece);
        assert!(Stream::new(7).wrong(1, &piece) > 900);
        assert!(Stream::new(8).wrong(0, &piece) > 900);
        piece[500] ^= 1;
        assert_eq!(Stream::new(7).wrong(0, &piece), 1);
    }
}
