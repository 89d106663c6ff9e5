//! What an instruction of an x86-64 may store to, as far as one has to know who looks for changes of some bytes.

use libc::user_regs_struct as Registers;

/// What there is to know of an instruction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Code {
    /// It stores to nothing, or to the stack, or to what has a fixed place.
    Inside,
    /// It asks something of the kernel.
    SystemCall,
    /// It loads or stores: base, index and its factor, distance; and how far off that may be.
    Memory { base: Option<u8>, index: Option<(u8, u8)>, distance: i64, off: u64 },
    /// It stores where `rdi` points to.
    Target,
}

impl Code {
    /// Reads an instruction.
    pub(super) fn of(bytes: &[u8; 16]) -> Code {
        let mut at = 0;
        let mut rex = 0;
        loop {
            match bytes[at] {
                // A place of the thread's own.
                0x64 | 0x65 => return Code::Inside,
                0x66 | 0x67 | 0xF0 | 0xF2 | 0xF3 | 0x2E | 0x36 | 0x3E | 0x26 => at += 1,
                0x40..=0x4F => {
                    rex = bytes[at];
                    at += 1;
                    break;
                }
                _ => break,
            }
            if at > 8 {
                return Code::Inside;
            }
        }
        let (x, b) = (rex >> 1 & 1, rex & 1);
        match bytes[at] {
            0x0F => match bytes[at + 1] {
                0x05 => Code::SystemCall,
                0x38 | 0x3A => operand(bytes, at + 3, x, b, 64, 1),
                0x06 | 0x08 | 0x09 | 0x0B | 0x30..=0x37 | 0x77 | 0x80..=0x8F | 0xA0..=0xA2 | 0xA8..=0xAA => {
                    Code::Inside
                }
                0xC8..=0xCF => Code::Inside,
                _ => operand(bytes, at + 2, x, b, 64, 1),
            },
            // What has a prefix of two or three bytes, and of four.
            0xC5 => operand(bytes, at + 3, 0, 0, 64, 1),
            0xC4 => operand(bytes, at + 4, !bytes[at + 1] >> 6 & 1, !bytes[at + 1] >> 5 & 1, 64, 1),
            0x62 => operand(bytes, at + 5, !bytes[at + 1] >> 6 & 1, !bytes[at + 1] >> 5 & 1, 64, 64),
            0xA4 | 0xA5 | 0xAA | 0xAB => Code::Target,
            op if op < 0x40 && op & 7 < 4 => operand(bytes, at + 1, x, b, 64, 1),
            0x63 | 0x69 | 0x6B | 0x80..=0x8C | 0x8E | 0x8F | 0xC0 | 0xC1 | 0xC6 | 0xC7 | 0xD0..=0xD3 => {
                operand(bytes, at + 1, x, b, 64, 1)
            }
            0xD8..=0xDF | 0xF6 | 0xF7 | 0xFE | 0xFF => operand(bytes, at + 1, x, b, 64, 1),
            _ => Code::Inside,
        }
    }

    /// Where it may load or store: around which place, and how far around.
    pub(super) fn place(self, registers: &Registers) -> Option<(u64, u64)> {
        match self {
            Code::Inside | Code::SystemCall => None,
            Code::Target => Some((registers.rdi, 64)),
            Code::Memory { base, index, distance, off } => {
                let base = base.map_or(0, |base| register(registers, base));
                let index =
                    index.map_or(0, |(index, factor)| register(registers, index).wrapping_mul(1 << factor));
                Some((base.wrapping_add(index).wrapping_add_signed(distance), off))
            }
        }
    }
}

/// The operand whose description begins at `at`.
fn operand(bytes: &[u8; 16], at: usize, x: u8, b: u8, mut off: u64, unit: u64) -> Code {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let (mode, low) = (byte(at) >> 6, byte(at) & 7);
    // Registers only, or a place that is fixed.
    if mode == 3 || (mode == 0 && low == 5) {
        return Code::Inside;
    }
    let (mut base, mut index, mut rest) = (Some(low | b << 3), None, at + 1);
    if low == 4 {
        let combined = byte(at + 1);
        rest += 1;
        let number = combined >> 3 & 7 | x << 3;
        index = (number != 4).then_some((number, combined >> 6));
        base = (mode != 0 || combined & 7 != 5).then_some(combined & 7 | b << 3);
    }
    let wide = i32::from_le_bytes([byte(rest), byte(rest + 1), byte(rest + 2), byte(rest + 3)]);
    let distance = match mode {
        1 => {
            // A short distance may count in units of what is stored.
            off += 128 * (unit - 1);
            i64::from(byte(rest).cast_signed())
        }
        0 if base.is_some() => 0,
        _ => i64::from(wide),
    };
    Code::Memory { base, index, distance, off }
}

fn register(r: &Registers, number: u8) -> u64 {
    let all = [
        r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
        r.r14, r.r15,
    ];
    all[usize::from(number & 15)]
}

mod tests {
    use super::*;

    fn code(bytes: &[u8]) -> Code {
        let mut all = [0; 16];
        all[..bytes.len()].copy_from_slice(bytes);
        Code::of(&all)
    }

    fn memory(base: u8, index: Option<(u8, u8)>, distance: i64) -> Code {
        Code::Memory { base: Some(base), index, distance, off: 64 }
    }

    #[test]
    fn instructions_are_read_as_far_as_they_store() {
        assert_eq!(code(&[0x0F, 0x05]), Code::SystemCall);
        assert_eq!(code(&[0xF3, 0xA4]), Code::Target); // rep movsb
        assert_eq!(code(&[0x48, 0x89, 0xD8]), Code::Inside); // mov rax, rbx
        assert_eq!(code(&[0x48, 0x89, 0x07]), memory(7, None, 0)); // mov [rdi], rax
        assert_eq!(code(&[0x49, 0x89, 0x44, 0xCD, 0xF8]), memory(13, Some((1, 3)), -8)); // mov [r13+rcx*8-8], rax
        assert_eq!(code(&[0x48, 0x89, 0x05, 1, 0, 0, 0]), Code::Inside); // mov [rip+1], rax
        assert_eq!(code(&[0xF0, 0x48, 0x87, 0x06]), memory(6, None, 0)); // lock xchg [rsi], rax
        assert_eq!(code(&[0x0F, 0x11, 0x80, 0, 1, 0, 0]), memory(0, None, 256)); // movups [rax+256], xmm0
        assert_eq!(code(&[0xC5, 0xFE, 0x7F, 0x07]), memory(7, None, 0)); // vmovdqu [rdi], ymm0
        assert_eq!(code(&[0xC4, 0xC1, 0x7E, 0x7F, 0x00]), memory(8, None, 0)); // vmovdqu [r8], ymm0
        // vmovdqu64 [rdi-64], zmm0: the distance is 1 below, in units of 64 bytes.
        let far = Code::Memory { base: Some(7), index: None, distance: -1, off: 64 + 128 * 63 };
        assert_eq!(code(&[0x62, 0xF1, 0xFE, 0x48, 0x7F, 0x47, 0xFF]), far);
        assert_eq!(code(&[0x64, 0x48, 0x89, 0x04, 0x25, 0, 0, 0, 0]), Code::Inside); // mov fs:[0], rax
        assert_eq!(code(&[0xE8, 0, 0, 0, 0]), Code::Inside); // call
    }
}
