//! Classic BPF programs of tc, run on the packet: what they return.
//!
//! Not here: eBPF, whose instructions the kernel does not give back.

/// `struct sock_filter`: code, jumps if true and if false, operand.
pub(super) type Op = (u16, u8, u8, u32);

/// The most instructions that are run; jumps only go forward.
const MOST: usize = 4096;

/// What a program returns for a frame; `None` where that hangs on something else than its bytes.
pub(super) fn run(ops: &[Op], frame: &[u8]) -> Option<u32> {
    let (mut a, mut x, mut mem) = (0_u32, 0_u32, [0_u32; 16]);
    let mut at = 0_usize;
    for _ in 0..MOST {
        let (code, yes, no, k) = *ops.get(at)?;
        at += 1;
        let source = if code & 8 != 0 { x } else { k };
        match code & 7 {
            0 => match load(code, k, x, frame, &mem)? {
                Some(value) => a = value,
                None => return Some(0),
            },
            1 => match code & 0xe0 {
                0xa0 => x = u32::from(frame.get(k as usize)? & 0x0f) * 4,
                0x80 => x = u32::try_from(frame.len()).ok()?,
                0x60 => x = *mem.get(k as usize)?,
                _ => x = k,
            },
            2 => *mem.get_mut(k as usize)? = a,
            3 => *mem.get_mut(k as usize)? = x,
            4 => a = arithmetic(code, a, source)?,
            5 => {
                let jump = match code & 0xf0 {
                    0x00 => k,
                    0x10 => u32::from(if a == source { yes } else { no }),
                    0x20 => u32::from(if a > source { yes } else { no }),
                    0x30 => u32::from(if a >= source { yes } else { no }),
                    0x40 => u32::from(if a & source != 0 { yes } else { no }),
                    _ => return None,
                };
                at = at.checked_add(jump as usize)?;
            }
            6 => return Some(if code & 0x18 == 0x10 { a } else { k }),
            _ if code & 0xf8 == 0x80 => a = x,
            _ => x = a,
        }
    }
    None
}

/// What is loaded into A; `Some(None)` ends the program with 0, since the frame is shorter.
fn load(code: u16, k: u32, x: u32, frame: &[u8], mem: &[u32; 16]) -> Option<Option<u32>> {
    let offset = match code & 0xe0 {
        0x00 => return Some(Some(k)),
        0x60 => return Some(Some(*mem.get(k as usize)?)),
        0x80 => return Some(u32::try_from(frame.len()).ok()),
        // Ancillary data lies at negative offsets.
        0x20 if k >= 0xffff_f000 => return None,
        0x20 => k as usize,
        0x40 => k.checked_add(x)? as usize,
        _ => return None,
    };
    let len = match code & 0x18 {
        0x08 => 2,
        0x10 => 1,
        _ => 4,
    };
    let bytes = frame.get(offset..offset.checked_add(len)?);
    Some(bytes.map(|b| b.iter().fold(0, |sum, b| sum << 8 | u32::from(*b))))
}

fn arithmetic(code: u16, a: u32, b: u32) -> Option<u32> {
    Some(match code & 0xf0 {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        0x30 => a.checked_div(b)?,
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a.checked_shl(b).unwrap_or(0),
        0x70 => a.checked_shr(b).unwrap_or(0),
        0x80 => a.wrapping_neg(),
        0x90 => a.checked_rem(b)?,
        0xa0 => a ^ b,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tcpdump -dd 'ip proto 1'`, with tc's verdicts: drop, or the next filter.
    const ICMP: [Op; 6] = [
        (0x28, 0, 0, 12),
        (0x15, 0, 3, 0x0800),
        (0x30, 0, 0, 23),
        (0x15, 0, 1, 1),
        (0x06, 0, 0, 2),
        (0x06, 0, 0, u32::MAX),
    ];

    #[test]
    fn a_program_looks_at_bytes() {
        let mut frame = vec![0; 98];
        (frame[12], frame[13], frame[14], frame[23]) = (8, 0, 0x45, 1);
        assert_eq!(run(&ICMP, &frame), Some(2));
        frame[23] = 6;
        assert_eq!(run(&ICMP, &frame), Some(u32::MAX));
        assert_eq!(run(&ICMP, &frame[..10]), Some(0));
        assert_eq!(
            run(&[(0x20, 0, 0, 0xffff_f000), (6, 0, 0, 2)], &frame),
            None
        );
        assert_eq!(run(&[(0x05, 0, 0, 9)], &frame), None);
    }

    #[test]
    fn a_program_counts() {
        // A = length of the IPv4 header + 5, shifted and compared.
        let ops = [
            (0xb1, 0, 0, 0),
            (0x87, 0, 0, 0),
            (0x04, 0, 0, 5),
            (0x64, 0, 0, 1),
            (0x02, 0, 0, 3),
            (0x60, 0, 0, 3),
            (0x16, 0, 0, 0),
        ];
        assert_eq!(run(&ops, &[0x45, 0, 0, 0]), Some(50));
    }
}
