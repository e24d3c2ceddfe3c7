//! Finds the ends of WebSocket frames (RFC 6455 §5.2) in a stream of bytes. Payloads are passed over.

/// One direction of a WebSocket.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The part of a header that has come.
    header: Vec<u8>,
    /// Bytes of the payload that are still to come.
    left: u64,
    has_closed: bool,
}

const CLOSE: u8 = 8;

impl Frames {
    /// Whether a frame has ended, and the next has not begun.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.header.is_empty() && self.left == 0
    }

    /// Whether this side has sent a Close frame.
    pub(super) fn has_closed(&self) -> bool {
        self.has_closed && self.is_at_boundary()
    }

    /// Passes over `bytes`, which come next.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[self.pass_one(rest)..];
        }
    }

    /// Passes over `bytes` up to the end of the current frame, and returns how many these are.
    pub(super) fn pass_one(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
            (at, self.left) = (at + here, self.left - here as u64);
            if at == bytes.len() || (at > 0 && self.is_at_boundary()) {
                return at;
            }
            self.header.push(bytes[at]);
            at += 1;
            if let Some(length) = payload_length(&self.header) {
                self.has_closed |= self.header[0] & 0x0f == CLOSE;
                self.left = length;
                self.header.clear();
                if length == 0 {
                    return at;
                }
            }
        }
    }
}

/// The payload length in the header of a frame; `None` if the header is incomplete.
fn payload_length(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let (extended, mask) = match second & 0x7f {
        126 => (2, second & 0x80),
        127 => (8, second & 0x80),
        _ => (0, second & 0x80),
    };
    let length = 2 + extended + if mask == 0 { 0 } else { 4 };
    if header.len() < length {
        return None;
    }
    let bytes = &header[2..2 + extended];
    let extended_length = bytes.iter().fold(0, |length, byte| (length << 8) | u64::from(*byte));
    Some(if extended == 0 { u64::from(second & 0x7f) } else { extended_length })
}

/// A Close frame of a server, without a reason.
pub(super) fn close(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x80 | CLOSE, 2, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of all three length formats, masked and not, an empty one, and a Close at the end.
    fn stream() -> (Vec<u8>, Vec<usize>) {
        let frames = [
            vec![0x81, 2, b'h', b'i'],
            [vec![0x81, 0x82, 1, 2, 3, 4], vec![0; 2]].concat(),
            vec![0x89, 0],
            [vec![0x82, 126, 1, 0], vec![7; 256]].concat(),
            [vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 9, 9, 9, 9], vec![0x88; 65536]].concat(),
            close(1001).to_vec(),
        ];
        let mut ends = Vec::new();
        for frame in &frames {
            ends.push(ends.last().unwrap_or(&0) + frame.len());
        }
        (frames.concat(), ends)
    }

    #[test]
    fn the_end_of_each_frame_is_found_however_the_bytes_arrive() {
        let (bytes, ends) = stream();
        for size in [1, 3, 7, 100, 4096, bytes.len()] {
            let (mut frames, mut found, mut at) = (Frames::default(), Vec::new(), 0);
            for part in bytes.chunks(size) {
                let mut rest = part;
                while !rest.is_empty() {
                    let passed = frames.pass_one(rest);
                    (at, rest) = (at + passed, &rest[passed..]);
                    if frames.is_at_boundary() {
                        found.push(at);
                    }
                }
                assert_eq!(frames.has_closed(), at == bytes.len());
            }
            assert_eq!(found, ends, "{size}");
        }
    }
}
