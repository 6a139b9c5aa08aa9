//! eBPF by hand: as much of an assembler as programs of thirty instructions need. Pure.

use std::os::fd::{AsRawFd, BorrowedFd};

/// A register. The kernel gives the context in [`R1`] and takes the verdict from [`R0`]; a call keeps [`R6`] to [`R9`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Register(u64);

pub(super) const R0: Register = Register(0);
pub(super) const R1: Register = Register(1);
pub(super) const R2: Register = Register(2);
pub(super) const R3: Register = Register(3);
pub(super) const R4: Register = Register(4);
pub(super) const R6: Register = Register(6);
pub(super) const R7: Register = Register(7);

/// How much an access reads or writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Width {
    Byte,
    Half,
    Word,
    Double,
}

impl Width {
    /// The size bits of an opcode (`BPF_B` and so on).
    const fn bits(self) -> u64 {
        match self {
            Self::Word => 0x00,
            Self::Half => 0x08,
            Self::Byte => 0x10,
            Self::Double => 0x18,
        }
    }
}

/// Arithmetic on 64 bits: the operation bits of an opcode.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    Add = 0x00,
    Subtract = 0x10,
    Multiply = 0x20,
    And = 0x50,
    ShiftLeft = 0x60,
    Xor = 0xa0,
    Move = 0xb0,
}

/// An unsigned comparison: the operation bits of an opcode.
#[derive(Clone, Copy, Debug)]
pub(super) enum Comparison {
    Greater = 0x20,
    GreaterOrEqual = 0x30,
    NotEqual = 0x50,
    Less = 0xa0,
}

/// A program in the making. There is one way out beside the main one: [`Self::unless`] and its like jump there.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    words: Vec<u64>,
    /// Jumps to the way out, whose place isn't known yet.
    open: Vec<usize>,
}

impl Assembler {
    fn push(&mut self, opcode: u64, to: Register, from: Register, offset: i16, immediate: i32) {
        let offset = u64::from(offset.cast_unsigned());
        self.words.push(opcode | to.0 << 8 | from.0 << 12 | offset << 16 | u64::from(immediate.cast_unsigned()) << 32);
    }

    pub fn immediate(&mut self, operation: Operation, to: Register, value: i32) {
        self.push(0x07 | operation as u64, to, R0, 0, value);
    }

    pub fn register(&mut self, operation: Operation, to: Register, from: Register) {
        self.push(0x0f | operation as u64, to, from, 0, 0);
    }

    pub fn load(&mut self, width: Width, to: Register, from: Register, offset: i16) {
        self.push(0x61 | width.bits(), to, from, offset, 0);
    }

    pub fn store(&mut self, width: Width, to: Register, offset: i16, from: Register) {
        self.push(0x63 | width.bits(), to, from, offset, 0);
    }

    /// Turns the low 16 bits into network byte order and clears the others.
    pub fn big_endian_16(&mut self, register: Register) {
        self.push(0xdc, register, R0, 0, 16);
    }

    /// Any 64 bits.
    pub fn constant(&mut self, to: Register, value: u64) {
        self.wide(to, Register(0), [value & 0xffff_ffff, value >> 32]);
    }

    /// The address of an array map's only value.
    pub fn map_value(&mut self, to: Register, map: BorrowedFd<'_>) {
        const PSEUDO_MAP_VALUE: Register = Register(2);
        self.wide(to, PSEUDO_MAP_VALUE, [u64::from(map.as_raw_fd().cast_unsigned()), 0]);
    }

    fn wide(&mut self, to: Register, kind: Register, [low, high]: [u64; 2]) {
        self.words.extend([0x18 | to.0 << 8 | kind.0 << 12 | low << 32, high << 32]);
    }

    /// Adds to a counter in memory that nobody else writes.
    pub fn count(&mut self, address: Register, offset: i16, scratch: Register) {
        self.load(Width::Double, scratch, address, offset);
        self.immediate(Operation::Add, scratch, 1);
        self.store(Width::Double, address, offset, scratch);
    }

    pub fn call(&mut self, helper: i32) {
        self.push(0x85, R0, R0, 0, helper);
    }

    /// To the other way out when this compares so.
    pub fn out_if(&mut self, left: Register, comparison: Comparison, right: Register) {
        self.open.push(self.words.len());
        self.push(0x0d | comparison as u64, left, right, 0, 0);
    }

    /// The same with a value.
    pub fn out_if_value(&mut self, left: Register, comparison: Comparison, right: i32) {
        self.open.push(self.words.len());
        self.push(0x05 | comparison as u64, left, R0, 0, right);
    }

    /// Skips the next instruction when this compares so.
    pub fn skip_if(&mut self, left: Register, comparison: Comparison, right: Register) {
        self.push(0x0d | comparison as u64, left, right, 1, 0);
    }

    /// The end, with the verdict that is in [`R0`].
    pub fn exit(&mut self) {
        self.push(0x95, R0, R0, 0, 0);
    }

    /// The end, with this verdict.
    pub fn exit_with(&mut self, verdict: i32) {
        self.immediate(Operation::Move, R0, verdict);
        self.exit();
    }

    /// The program, with this verdict at the other way out.
    ///
    /// # Panics
    /// When it is too long for a jump.
    pub fn finish(mut self, otherwise: i32) -> Vec<u64> {
        for place in std::mem::take(&mut self.open) {
            // Relative to the next instruction.
            let offset = i16::try_from(self.words.len() - place - 1).expect("a short program");
            self.words[place] |= u64::from(offset.cast_unsigned()) << 16;
        }
        self.exit_with(otherwise);
        self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_encoded_as_the_kernel_documents_them() {
        let mut program = Assembler::default();
        program.immediate(Operation::Move, R3, -2);
        program.load(Width::Word, R2, R1, 4);
        program.store(Width::Half, R6, 34, R2);
        program.constant(R3, 0x1122_3344_5566_7788);
        program.big_endian_16(R1);
        program.call(5);
        // As `llvm-objdump -d` of the same instructions prints their bytes, read as little-endian words.
        let expected = [
            0xffff_fffe_0000_03b7,
            0x0000_0000_0004_1261,
            0x0000_0000_0022_266b,
            0x5566_7788_0000_0318,
            0x1122_3344_0000_0000,
            0x0000_0010_0000_01dc,
            0x0000_0005_0000_0085,
        ];
        assert_eq!(program.words, expected);
    }

    #[test]
    fn every_jump_leads_to_the_other_way_out() {
        let mut program = Assembler::default();
        program.out_if(R3, Comparison::Greater, R2);
        program.out_if_value(R4, Comparison::NotEqual, 8);
        program.exit_with(2);
        let words = program.finish(1);
        // Over the second jump and the two instructions of the main end; over those two alone.
        assert_eq!(words[..2], [0x0003_232d, 0x0000_0008_0002_0455]);
        assert_eq!(words[4..], [0x0000_0001_0000_00b7, 0x95]);
    }
}
