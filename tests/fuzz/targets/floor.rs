// The lowest floor of the library, in memory alone, so that it can be tried some hundred thousand times a second: what a file
// says is read here, before anything above believes it. Included, since the paths in it begin at the top of a crate.

#[path = "../../../src/block.rs"]
mod block;
#[path = "../../../src/bytes.rs"]
mod bytes;
#[path = "../../../src/clock.rs"]
mod clock;
#[path = "../../../src/codec.rs"]
mod codec;
#[path = "../../../src/columns/mod.rs"]
#[allow(unused_imports)]
mod columns;
#[path = "../../../src/error.rs"]
mod error;
#[path = "../../../src/frame.rs"]
mod frame;
#[path = "../../../src/record.rs"]
mod record;

/// Reads all that a frame holds; the sum keeps the reads from being left out.
fn read(frame: frame::FrameView<'_>) -> usize {
    let headers = frame.headers();
    let count = headers.len();
    let names: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
    let parts = frame.parts().map_or(0, |parts| parts.extra.len() + parts.key.len() + parts.value.len());
    let flags =
        usize::from(frame.more()) + usize::from(frame.first_of_segment()) + usize::from(frame.is_control());
    count + names + parts + flags + frame.key().map_or(0, <[u8]>::len) + frame.value().map_or(0, <[u8]>::len)
}
