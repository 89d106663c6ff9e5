//! Further threads, begun only where there is room for all that they need.
//!
//! A thread takes a stack, and then, running already, a small one for signals. Where the second cannot be had, for want of
//! address space or of maps, the standard library ends the process. So room for both is asked for first, and whoever begins a
//! thread takes nothing else until it runs. What other threads of the process take meanwhile cannot be known.

use std::io;
use std::thread::{self, Builder, JoinHandle, Scope, ScopedJoinHandle};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::error::{Error, ErrorKind, Result};

/// Of a thread's stack: what the standard library takes where nobody says.
#[cfg(unix)]
const STACK: usize = 2 << 20;
/// So many maps it takes, each beside one that is unlike it: of its two stacks, and of what guards them.
#[cfg(unix)]
const MAPS: usize = 6;

/// A thread that lives as long as it likes.
///
/// # Errors
/// Of kind [`ErrorKind::Storage`] where there is no room for it.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let (builder, begun, begins) = prepare(name)?;
    let thread = builder.spawn(move || {
        begins_with(begun);
        work();
    });
    let _ = begins.recv();
    thread.map_err(cannot_start)
}

/// A thread that ends within a scope; the errors are those of [`spawn`].
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let (builder, begun, begins) = prepare(name)?;
    let thread = builder.spawn_scoped(scope, move || {
        begins_with(begun);
        work()
    });
    let _ = begins.recv();
    thread.map_err(cannot_start)
}

/// What begins it, and a channel that the thread lets go of as its first deed.
fn prepare(name: &str) -> Result<(Builder, Sender<()>, Receiver<()>)> {
    #[cfg(unix)]
    has_room().map_err(cannot_start)?;
    let (begun, begins) = bounded(1);
    Ok((Builder::new().name(name.into()), begun, begins))
}

/// Tells the one who waits, and lets it go first. The kernel often lets a thread begin on the processor of who began it, though
/// others are idle; then that one would get on at the scheduler's next tick, milliseconds later.
fn begins_with(begun: Sender<()>) {
    drop(begun);
    thread::yield_now();
}

fn cannot_start(e: io::Error) -> Error {
    Error::new(ErrorKind::Storage, "cannot start a thread").caused_by(e)
}

/// Takes what a thread takes, and gives it back.
#[cfg(unix)]
fn has_room() -> io::Result<()> {
    let (mut written, mut read) = (Vec::with_capacity(MAPS), Vec::with_capacity(MAPS));
    for n in 0..MAPS {
        let map = memmap2::MmapMut::map_anon(if n == 0 { STACK } else { STACK / MAPS })?;
        // The kernel would join it to its neighbour, and count one map.
        if n % 2 == 0 {
            read.push(map.make_read_only()?);
        } else {
            written.push(map);
        }
    }
    Ok(())
}
