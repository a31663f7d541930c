//! Response bodies under a cap. Guards memory: the cap holds after decompression and is checked while bytes arrive,
//! so neither an endless body nor a gzip bomb is ever held.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::{HeaderMap, header};

use crate::EgressErrorKind;

/// How many bytes one byte of the wire may become. Telemetry in JSON or text compresses ten to sixty times; what is beyond
/// this was made to be.
const MOST_RATIO: u64 = 400;
/// Up to here the ratio does not matter, bytes after decompression.
const RATIO_FROM: u64 = 4 << 20;

/// Collects one body.
#[derive(Debug)]
pub(crate) struct CappedBody {
    decoder: Decoder,
    limit: u64,
    received: u64,
}

#[derive(Debug)]
enum Decoder {
    Plain(Sink),
    Gzip(Box<MultiGzDecoder<Sink>>),
}

#[derive(Debug)]
struct Sink {
    bytes: Vec<u8>,
    limit: u64,
    full: bool,
}

impl Write for Sink {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() as u64).saturating_add(part.len() as u64) > self.limit {
            self.full = true;
            return Err(io::Error::other("the cap is reached"));
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl CappedBody {
    /// A body as the headers announce it. A declared length beyond the cap is refused before anything is read.
    pub(crate) fn announced(headers: &HeaderMap, limit: u64) -> Result<Self, EgressErrorKind> {
        let text = |name| headers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok()).unwrap_or_default().trim();
        let encoding = text(header::CONTENT_ENCODING).to_ascii_lowercase();
        let declared: u64 = text(header::CONTENT_LENGTH).parse().unwrap_or(0);
        if declared > limit {
            return Err(EgressErrorKind::ResponseTooLarge { limit });
        }
        let sink = |capacity: u64| Sink { bytes: Vec::with_capacity(capacity as usize), limit, full: false };
        let decoder = match encoding.as_str() {
            "" | "identity" => Decoder::Plain(sink(declared.min(1 << 20))),
            "gzip" | "x-gzip" => Decoder::Gzip(Box::new(MultiGzDecoder::new(sink(0)))),
            _ => return Err(EgressErrorKind::Garbage("it has a content encoding that was not asked for".into())),
        };
        Ok(Self { decoder, limit, received: 0 })
    }

    /// Takes the next bytes from the wire.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), EgressErrorKind> {
        self.received = self.received.saturating_add(chunk.len() as u64);
        if self.received > self.limit {
            return Err(EgressErrorKind::ResponseTooLarge { limit: self.limit });
        }
        let written = match &mut self.decoder {
            Decoder::Plain(sink) => sink.write_all(chunk),
            Decoder::Gzip(decoder) => decoder.write_all(chunk),
        };
        written.map_err(|error| self.failed(&error))?;
        let expanded = match &self.decoder {
            Decoder::Plain(_) => 0,
            Decoder::Gzip(decoder) => decoder.get_ref().bytes.len() as u64,
        };
        if expanded > RATIO_FROM && expanded > self.received.saturating_mul(MOST_RATIO) {
            return Err(EgressErrorKind::Garbage(format!("it is compressed more than {MOST_RATIO} times")));
        }
        Ok(())
    }

    /// The whole body.
    pub(crate) fn finish(mut self) -> Result<Bytes, EgressErrorKind> {
        if self.received > 0
            && let Decoder::Gzip(decoder) = &mut self.decoder
            && decoder.try_finish().is_err()
        {
            let cause = "the gzip stream is incomplete or its checksum is wrong".to_owned();
            return Err(if decoder.get_ref().full {
                EgressErrorKind::ResponseTooLarge { limit: self.limit }
            } else {
                EgressErrorKind::BrokenOff { half_way: true, cause }
            });
        }
        let bytes = match self.decoder {
            Decoder::Plain(sink) => sink.bytes,
            Decoder::Gzip(mut decoder) => std::mem::take(&mut decoder.get_mut().bytes),
        };
        Ok(Bytes::from(bytes))
    }

    fn failed(&self, error: &io::Error) -> EgressErrorKind {
        let full = match &self.decoder {
            Decoder::Plain(sink) => sink.full,
            Decoder::Gzip(decoder) => decoder.get_ref().full,
        };
        if full {
            EgressErrorKind::ResponseTooLarge { limit: self.limit }
        } else {
            EgressErrorKind::Garbage(format!("gzip: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn headers(encoding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(encoding))])
    }

    fn read(encoding: &'static str, wire: &[u8], chunk: usize, limit: u64) -> Result<Bytes, EgressErrorKind> {
        let mut body = CappedBody::announced(&headers(encoding), limit)?;
        for part in wire.chunks(chunk) {
            body.push(part)?;
        }
        body.finish()
    }

    #[test]
    fn a_bomb_stops_at_the_cap() {
        let bomb = gzip(&vec![0u8; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert_eq!(read("gzip", &bomb, 16 << 10, 1 << 20), Err(EgressErrorKind::ResponseTooLarge { limit: 1 << 20 }));
        assert_eq!(read("", &[0; 11], 3, 10), Err(EgressErrorKind::ResponseTooLarge { limit: 10 }));
        assert!(read("", &[0; 10], 3, 10).is_ok());
    }

    #[test]
    fn what_was_made_to_expand_is_refused_below_the_cap() {
        let bomb = gzip(&vec![0u8; 64 << 20]);
        let error = read("gzip", &bomb, 16 << 10, 1 << 30).unwrap_err();
        assert!(matches!(&error, EgressErrorKind::Garbage(why) if why.contains("400 times")), "{error}");
        // A long answer of a backend: the same names again and again, with values that differ.
        let mut matrix = String::new();
        for index in 0..400_000_u64 {
            let _ = std::fmt::Write::write_fmt(&mut matrix, format_args!("[{},\"{}\"],", 1_700_000_000 + index * 15, index % 7));
        }
        assert!(matrix.len() as u64 > RATIO_FROM);
        assert_eq!(read("gzip", &gzip(matrix.as_bytes()), 16 << 10, 1 << 30).unwrap().len(), matrix.len());
    }

    #[test]
    fn a_cut_or_wrong_stream_is_an_error() {
        let whole = gzip(b"hello hello hello");
        assert!(matches!(read("gzip", &whole[..whole.len() - 5], 4, 1000), Err(EgressErrorKind::BrokenOff { .. })));
        assert!(matches!(read("gzip", &whole[..5], 4, 1000), Err(EgressErrorKind::BrokenOff { .. })));
        assert!(matches!(read("gzip", b"not gzip at all", 4, 1000), Err(EgressErrorKind::Garbage(_))));
        assert!(matches!(read("br", b"x", 4, 1000), Err(EgressErrorKind::Garbage(_))));
        assert_eq!(read("gzip", b"", 4, 1000).unwrap().len(), 0);
    }

    #[test]
    fn a_declared_length_beyond_the_cap_is_not_read() {
        let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from_static("1073741824"))]);
        assert!(CappedBody::announced(&headers, 1 << 20).is_err());
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..2000), chunk in 1usize..300) {
            prop_assert_eq!(read("gzip", &gzip(&bytes), chunk, 4000).unwrap(), bytes);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read("gzip", &bytes, 50, 4000);
        }
    }
}
