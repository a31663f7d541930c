//! What an HTTP/2 connection answers before anybody is asked: the library refuses a head beyond its bound by itself, with a
//! bare status or by ending the connection, and tells nobody. Read here from the frames that go out (RFC 9113, section 4.1),
//! so that it is recorded. Must not change a byte, and keeps a few of each frame.

/// Bytes of the head of a frame.
const HEAD: usize = 9;
/// Bytes of a header block that are kept: an answer of one field is shorter.
const KEPT: usize = 16;

const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
/// Error code of a connection that asks too much (RFC 9113, section 7).
const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 0xb];

/// What the library refused on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// One request, by the status 431.
    Head,
    /// The connection: more heads, or more of one, than is taken.
    Connection,
}

/// The frames of one connection as they go out.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    head: [u8; HEAD],
    /// Bytes of the head that were seen.
    seen: usize,
    /// Bytes of the frame that are still to come.
    left: usize,
    kept: [u8; KEPT],
    length: usize,
}

impl Outgoing {
    /// Looks at bytes that were written, and tells of every refusal in them.
    pub(super) fn look(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Refusal)) {
        while !bytes.is_empty() {
            if self.seen < HEAD {
                let taken = bytes.len().min(HEAD - self.seen);
                self.head[self.seen..self.seen + taken].copy_from_slice(&bytes[..taken]);
                self.seen += taken;
                bytes = &bytes[taken..];
                if self.seen < HEAD {
                    return;
                }
                let [high, middle, low, ..] = self.head;
                self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                self.length = 0;
            }
            let taken = bytes.len().min(self.left);
            let room = taken.min(KEPT - self.length);
            self.kept[self.length..self.length + room].copy_from_slice(&bytes[..room]);
            self.length += room;
            self.left -= taken;
            bytes = &bytes[taken..];
            if self.left == 0 {
                if let Some(refusal) = self.refusal() {
                    tell(refusal);
                }
                self.seen = 0;
            }
        }
    }

    fn refusal(&self) -> Option<Refusal> {
        let (kind, flags) = (self.head[3], self.head[4]);
        let [high, middle, low, ..] = self.head;
        let whole = high == 0 && middle == 0 && usize::from(low) == self.length;
        let payload = &self.kept[..self.length];
        match kind {
            HEADERS if flags & END_STREAM != 0 && whole && is_one_field(payload) => Some(Refusal::Head),
            GOAWAY if payload.get(4..8) == Some(&ENHANCE_YOUR_CALM) => Some(Refusal::Connection),
            _ => None,
        }
    }
}

/// Whether a header block (RFC 7541, section 6) is one field and nothing else. Every answer of ours has a status, a media type
/// and a state of gRPC; an answer of the library has its status alone.
fn is_one_field(mut block: &[u8]) -> bool {
    // Changes of the table's size come first.
    while let Some((first, rest)) = block.split_first()
        && first & 0xe0 == 0x20
    {
        let more = if first & 0x1f == 0x1f { rest.iter().take_while(|b| **b & 0x80 != 0).count() + 1 } else { 0 };
        let Some(rest) = rest.get(more..) else { return false };
        block = rest;
    }
    match block {
        [indexed] => indexed & 0x80 != 0,
        // A literal whose name is in the table, with a value of one length byte.
        [first, length, value @ ..] => {
            let named = if first & 0xc0 == 0x40 { first & 0x3f } else { first & 0x0f };
            first & 0x80 == 0 && named != 0 && named != 0x3f && usize::from(length & 0x7f) == value.len()
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn told(bytes: &[u8], step: usize) -> Vec<Refusal> {
        let (mut outgoing, mut told) = (Outgoing::default(), Vec::new());
        for chunk in bytes.chunks(step) {
            outgoing.look(chunk, |refusal| told.push(refusal));
        }
        told
    }

    #[test]
    fn refusals_are_found_however_the_bytes_are_cut() {
        let stream = [
            frame(4, 0, &[0; 12]),
            frame(HEADERS, 5, &[0x48, 3, b'4', b'3', b'1']),
            frame(HEADERS, 5, &[0x3f, 0xe1, 0x1f, 0xbe]),
            frame(HEADERS, 5, &[0x88, 0x5f, 1, b'a', 0x40, 1, b'b', 1, b'c']),
            frame(HEADERS, 4, &[0xbe]),
            frame(0, 0, &vec![0x48; 40_000]),
            frame(GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, 0]),
            frame(GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, 0xb, b'x']),
        ]
        .concat();
        for step in [1, 7, 9, 1_000, stream.len()] {
            assert_eq!(told(&stream, step), [Refusal::Head, Refusal::Head, Refusal::Connection], "{step}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), step in 1..40_usize) {
            told(&bytes, step);
        }
    }
}
