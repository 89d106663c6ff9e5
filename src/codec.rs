//! Compression of blocks: the value that a topic stores ([`Compression`]), the trait behind it ([`Codec`]),
//! and the registry of a log.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};

/// How the blocks of a topic are compressed on disk.
///
/// Plain data, stored with the topic; what does the work is the [`Codec`] registered under its id. It can be
/// changed while the log runs: blocks of several codecs live side by side in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Stored as they are.
    #[default]
    None,
    /// LZ4, block format: the usual choice.
    Lz4,
    /// Snappy, raw format.
    Snappy,
    /// Gzip; needs feature `gzip`.
    Gzip,
    /// Zstandard; needs feature `zstd`, which builds C.
    Zstd,
    /// A codec of the user's own, by its id (128 to 255), registered with
    /// [`LogBuilder::codec`](crate::LogBuilder::codec).
    Custom(u8),
}

impl Compression {
    /// The id that stands in block headers: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd (as in Kafka), or the user's.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
            Compression::Custom(id) => id,
        }
    }

    /// The compression of an id; `None` for an id below 128 that has no meaning yet.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            128.. => Compression::Custom(id),
            _ => return None,
        })
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Compression::None => f.write_str("none"),
            Compression::Lz4 => f.write_str("lz4"),
            Compression::Snappy => f.write_str("snappy"),
            Compression::Gzip => f.write_str("gzip"),
            Compression::Zstd => f.write_str("zstd"),
            Compression::Custom(id) => write!(f, "custom:{id}"),
        }
    }
}

impl std::str::FromStr for Compression {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Ok(match s {
            "none" => Compression::None,
            "lz4" => Compression::Lz4,
            "snappy" => Compression::Snappy,
            "gzip" => Compression::Gzip,
            "zstd" => Compression::Zstd,
            _ => match s.strip_prefix("custom:").and_then(|id| id.parse().ok()) {
                Some(id @ 128..) => Compression::Custom(id),
                _ => {
                    return Err(Error::new(
                        ErrorKind::InvalidConfig,
                        format!("no compression is called {s:?}"),
                    ));
                }
            },
        })
    }
}

/// What a codec answers when it cannot do its work.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// A compression of the user's own.
///
/// Called on library threads, many at a time, never under a lock. A codec that fails or panics while
/// compressing costs nothing but the compression: the block is stored as it is. One that fails while
/// decompressing makes the read an error that names the block.
///
/// ```
/// use tapelog::{Codec, Compression, Log, TopicConfig, codec::CodecError};
///
/// struct Invert;
/// impl Codec for Invert {
///     fn id(&self) -> u8 { 200 }
///     fn name(&self) -> &str { "invert" }
///     fn compress(&self, input: &[u8], output: &mut Vec<u8>) -> Result<(), CodecError> {
///         output.extend(input.iter().map(|b| !b));
///         Ok(())
///     }
///     fn decompress(&self, input: &[u8], output: &mut [u8]) -> Result<(), CodecError> {
///         if input.len() != output.len() { return Err("wrong length".into()); }
///         for (o, i) in output.iter_mut().zip(input) { *o = !i; }
///         Ok(())
///     }
/// }
///
/// let log = Log::builder().codec(Invert).in_memory()?;
/// log.create_topic("ticks", TopicConfig::new().compression(Compression::Custom(200)))?;
/// # Ok::<(), tapelog::Error>(())
/// ```
pub trait Codec: Send + Sync + 'static {
    /// The id that stands in block headers: 128 to 255.
    fn id(&self) -> u8;
    /// A name for messages.
    fn name(&self) -> &str;
    /// Appends the compressed form of `input` to `output`.
    ///
    /// # Errors
    /// Any; the block is then stored uncompressed.
    fn compress(&self, input: &[u8], output: &mut Vec<u8>) -> Result<(), CodecError>;
    /// Fills `output`, whose length is exactly that of the original, from `input`.
    ///
    /// # Errors
    /// Where `input` is not a compressed form of that many bytes.
    fn decompress(&self, input: &[u8], output: &mut [u8]) -> Result<(), CodecError>;
}

struct Lz4;

impl Codec for Lz4 {
    fn id(&self) -> u8 {
        Compression::Lz4.id()
    }
    fn name(&self) -> &str {
        "lz4"
    }
    fn compress(&self, input: &[u8], output: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = output.len();
        output.resize(start + lz4_flex::block::get_maximum_output_size(input.len()), 0);
        let written = lz4_flex::block::compress_into(input, &mut output[start..])?;
        output.truncate(start + written);
        Ok(())
    }
    fn decompress(&self, input: &[u8], output: &mut [u8]) -> Result<(), CodecError> {
        let written = lz4_flex::block::decompress_into(input, output)?;
        exactly(written, output.len())
    }
}

struct Snappy;

impl Codec for Snappy {
    fn id(&self) -> u8 {
        Compression::Snappy.id()
    }
    fn name(&self) -> &str {
        "snappy"
    }
    fn compress(&self, input: &[u8], output: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = output.len();
        output.resize(start + snap::raw::max_compress_len(input.len()), 0);
        let written = snap::raw::Encoder::new().compress(input, &mut output[start..])?;
        output.truncate(start + written);
        Ok(())
    }
    fn decompress(&self, input: &[u8], output: &mut [u8]) -> Result<(), CodecError> {
        let written = snap::raw::Decoder::new().decompress(input, output)?;
        exactly(written, output.len())
    }
}

#[cfg(feature = "gzip")]
struct Gzip;

#[cfg(feature = "gzip")]
impl Codec for Gzip {
    fn id(&self) -> u8 {
        Compression::Gzip.id()
    }
    fn name(&self) -> &str {
        "gzip"
    }
    fn compress(&self, input: &[u8], output: &mut Vec<u8>) -> Result<(), CodecError> {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(output, flate2::Compression::default());
        encoder.write_all(input)?;
        encoder.finish()?;
        Ok(())
    }
    fn decompress(&self, input: &[u8], output: &mut [u8]) -> Result<(), CodecError> {
        use std::io::Read;
        let mut decoder = flate2::read::GzDecoder::new(input);
        decoder.read_exact(output)?;
        // One more byte must not come: the header said how many there are.
        if decoder.read(&mut [0])? != 0 {
            return Err("longer than its header says".into());
        }
        Ok(())
    }
}

#[cfg(feature = "zstd")]
struct Zstd;

#[cfg(feature = "zstd")]
impl Codec for Zstd {
    fn id(&self) -> u8 {
        Compression::Zstd.id()
    }
    fn name(&self) -> &str {
        "zstd"
    }
    fn compress(&self, input: &[u8], output: &mut Vec<u8>) -> Result<(), CodecError> {
        output.extend_from_slice(&zstd::bulk::compress(input, 1)?);
        Ok(())
    }
    fn decompress(&self, input: &[u8], output: &mut [u8]) -> Result<(), CodecError> {
        let written = zstd::bulk::decompress_to_buffer(input, output)?;
        exactly(written, output.len())
    }
}

fn exactly(written: usize, expected: usize) -> Result<(), CodecError> {
    if written == expected { Ok(()) } else { Err(format!("{written} bytes, not {expected}").into()) }
}

/// The codecs of a log, by id: the built-in ones and the user's.
#[derive(Clone)]
pub(crate) struct Codecs {
    codecs: Vec<Arc<dyn Codec>>,
    failures: Arc<Failures>,
}

/// Told the name of a codec that fails to compress, and why.
type OnFailure = Box<dyn Fn(&str, String) + Send + Sync>;

/// Who is told of codecs that fail, and of which that was done.
#[derive(Default)]
struct Failures {
    on_failure: OnceLock<OnFailure>,
    told: Mutex<BTreeSet<u8>>,
}

impl Default for Codecs {
    fn default() -> Self {
        let codecs: Vec<Arc<dyn Codec>> = vec![
            Arc::new(Lz4),
            Arc::new(Snappy),
            #[cfg(feature = "gzip")]
            Arc::new(Gzip),
            #[cfg(feature = "zstd")]
            Arc::new(Zstd),
        ];
        Codecs { codecs, failures: Arc::default() }
    }
}

impl Codecs {
    /// Adds a codec of the user's; its id must be 128 or more and free.
    pub(crate) fn register(&mut self, codec: Arc<dyn Codec>) -> Result<()> {
        let (id, name) = (codec.id(), codec.name().to_owned());
        if id < 128 {
            let message = format!("codec {name:?} has id {id}; ids of users begin at 128");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        if let Some(other) = self.find(id) {
            let message = format!("codec id {id} of {name:?} is taken by {:?}", other.name());
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        self.codecs.push(codec);
        Ok(())
    }

    fn find(&self, id: u8) -> Option<&Arc<dyn Codec>> {
        self.codecs.iter().find(|c| c.id() == id)
    }

    fn get(&self, id: u8) -> Result<&Arc<dyn Codec>> {
        self.find(id).ok_or_else(|| {
            let hint = match Compression::from_id(id) {
                Some(Compression::Gzip) => " (gzip: build with feature \"gzip\")",
                Some(Compression::Zstd) => " (zstd: build with feature \"zstd\")",
                _ => "",
            };
            Error::new(
                ErrorKind::UnsupportedCompressionType,
                format!("no codec is registered for id {id}{hint}"),
            )
        })
    }

    /// Whether blocks can be written with `compression` here.
    pub(crate) fn check(&self, compression: Compression) -> Result<()> {
        if compression == Compression::None { Ok(()) } else { self.get(compression.id()).map(drop) }
    }

    /// Appends the compressed form of `input` to `output` and returns true; or leaves `output` as it was and
    /// returns false where the codec is missing, fails, panics, or gains nothing.
    pub(crate) fn compress(&self, compression: Compression, input: &[u8], output: &mut Vec<u8>) -> bool {
        if compression == Compression::None {
            return false;
        }
        let Some(codec) = self.find(compression.id()) else { return false };
        let start = output.len();
        let done = catch_unwind(AssertUnwindSafe(|| codec.compress(input, output)));
        let gained =
            matches!(done, Ok(Ok(()))) && output.len() >= start && output.len() - start < input.len();
        if !gained {
            output.resize(start, 0);
        }
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(compression.id(), codec.name(), error.to_string()),
            Err(_) => self.failed(compression.id(), codec.name(), "it panicked".to_owned()),
        }
        gained
    }

    /// Has `tell` hear of each codec that fails to compress, once.
    pub(crate) fn on_failure(&self, tell: OnFailure) {
        self.failures.on_failure.get_or_init(|| tell);
    }

    #[cold]
    fn failed(&self, id: u8, name: &str, reason: String) {
        if let Some(tell) = self.failures.on_failure.get()
            && self.failures.told.lock().insert(id)
        {
            tell(name, reason);
        }
    }

    /// Fills `output` from `input`, compressed with codec `id`.
    pub(crate) fn decompress(&self, id: u8, input: &[u8], output: &mut [u8]) -> Result<()> {
        let codec = self.get(id)?;
        let failed = |why: String| {
            Error::new(ErrorKind::CorruptRecord, format!("codec {:?} cannot decompress: {why}", codec.name()))
        };
        match catch_unwind(AssertUnwindSafe(|| codec.decompress(input, output))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(failed(e.to_string())),
            Err(_) => Err(failed("it panicked".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built_in() -> Vec<Compression> {
        vec![
            Compression::Lz4,
            Compression::Snappy,
            #[cfg(feature = "gzip")]
            Compression::Gzip,
            #[cfg(feature = "zstd")]
            Compression::Zstd,
        ]
    }

    #[test]
    fn round_trip_and_wrong_lengths() {
        let codecs = Codecs::default();
        let input: Vec<u8> = (0..40_000u32).flat_map(|i| format!("tick {},", i % 77).into_bytes()).collect();
        for compression in built_in() {
            let mut packed = b"before".to_vec();
            assert!(codecs.compress(compression, &input, &mut packed), "{compression}");
            let packed = &packed[6..];
            let mut out = vec![0; input.len()];
            codecs.decompress(compression.id(), packed, &mut out).unwrap();
            assert_eq!(out, input);
            let mut short = vec![0; input.len() - 1];
            assert!(codecs.decompress(compression.id(), packed, &mut short).is_err(), "{compression}");
            let mut long = vec![0; input.len() + 1];
            assert!(codecs.decompress(compression.id(), packed, &mut long).is_err(), "{compression}");
            assert!(codecs.decompress(compression.id(), b"garbage", &mut out).is_err());
        }
    }

    #[test]
    fn unknown_id_is_named() {
        let error = Codecs::default().decompress(250, b"", &mut []).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedCompressionType);
        assert!(error.to_string().contains("250"), "{error}");
    }

    #[test]
    fn names_and_ids_round_trip() {
        for id in 0..=255u8 {
            if let Some(c) = Compression::from_id(id) {
                assert_eq!(c.id(), id);
                assert_eq!(c.to_string().parse::<Compression>().unwrap(), c);
            }
        }
        assert!("custom:7".parse::<Compression>().is_err());
    }

    struct Poison;
    impl Codec for Poison {
        fn id(&self) -> u8 {
            130
        }
        fn name(&self) -> &str {
            "poison"
        }
        fn compress(&self, _: &[u8], output: &mut Vec<u8>) -> Result<(), CodecError> {
            output.clear();
            panic!("poison");
        }
        fn decompress(&self, _: &[u8], _: &mut [u8]) -> Result<(), CodecError> {
            panic!("poison");
        }
    }

    #[test]
    fn a_codec_that_panics_costs_the_compression_only() {
        let mut codecs = Codecs::default();
        codecs.register(Arc::new(Poison)).unwrap();
        assert!(codecs.register(Arc::new(Poison)).is_err(), "taken");
        let mut out = vec![0; 3];
        assert!(!codecs.compress(Compression::Custom(130), &[1; 100], &mut out));
        assert_eq!(out.len(), 3);
        assert!(codecs.decompress(130, &[], &mut out).is_err());
    }
}
