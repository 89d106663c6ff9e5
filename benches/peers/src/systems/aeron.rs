//! Aeron's IPC: a ring of shared memory between two threads, with nothing stored behind it. The media driver, which
//! clears used memory and moves the publisher's limit on, runs in a thread of this process.

use std::time::{Duration, Instant};

use rusteron_media_driver::bindings::aeron_threading_mode_enum::AERON_THREADING_MODE_SHARED;
use rusteron_media_driver::{
    AERON_IPC_STREAM, Aeron, AeronContext, AeronDriver, AeronDriverContext, AeronExclusivePublication,
    AeronOfferError, AeronSubscription, EmbeddedMediaDriver, Handlers, IntoCString,
};

use super::{Arrivals, Config, Durability, Opening, Store, System, Tail};
use crate::Result;
use crate::workloads::Probe::Tail as Follow;

pub static SYSTEM: System = System {
    name: "aeron",
    configs: &[Config { name: "IPC", durability: Durability::Memory, probes: &[Follow] }],
    open,
};

const STREAM: i32 = 1;
const TERM_BYTES: usize = 1 << 20;
const FRAGMENTS_PER_POLL: usize = 10;
const PATIENCE: Duration = Duration::from_secs(5);

/// What the key takes before the value.
const KEY_BYTES: usize = 8;

fn open(opening: &Opening<'_>) -> Result<Box<dyn Store>> {
    let dir = format!("/dev/shm/tapelog-peers-aeron-{}", std::process::id());
    let driver = drive(&dir)?;
    let context = AeronContext::new()?;
    context.set_dir(&dir.as_str().into_c_string())?;
    context.set_pre_touch_mapped_memory(true)?;
    let client = Aeron::new(&context)?;
    client.start()?;
    let subscription =
        client.add_subscription(AERON_IPC_STREAM, STREAM, Handlers::NONE, Handlers::NONE, PATIENCE)?;
    let publication = client.add_exclusive_publication(AERON_IPC_STREAM, STREAM, PATIENCE)?;
    let since = Instant::now();
    while !(publication.is_connected() && subscription.is_connected()) {
        if since.elapsed() > PATIENCE {
            return Err("publisher and subscriber do not find each other".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // All of it is mapped. However this process ends, nothing is left behind.
    std::fs::remove_dir_all(&dir)?;
    let message = Vec::with_capacity(opening.value_bytes + KEY_BYTES);
    Ok(Box::new(Ipc {
        publication,
        message,
        tail: Some(Box::new(IpcTail(subscription))),
        _client: client,
        _driver: driver,
    }))
}

/// One thread for everything the driver does, which backs off while it has nothing to do: publisher and reader spin,
/// and on a machine of two cores every other thread that spins takes its time from one of them.
fn drive(dir: &str) -> Result<EmbeddedMediaDriver> {
    let context = AeronDriverContext::new()?;
    context.set_dir(&dir.into_c_string())?;
    context.set_dir_delete_on_start(true)?;
    context.set_threading_mode(AERON_THREADING_MODE_SHARED)?;
    context.set_ipc_term_buffer_length(TERM_BYTES)?;
    context.set_term_buffer_sparse_file(false)?;
    Ok(AeronDriver::launch_embedded_guard(context, false))
}

/// Appends by `offer`, from a buffer of its own. A claim writes the length of its frame, which the reader watches, when it
/// is made and again when it is committed, so that the line can travel between the cores twice: twice the latency.
struct Ipc {
    publication: AeronExclusivePublication,
    message: Vec<u8>,
    tail: Option<Box<dyn Tail>>,
    _client: Aeron,
    _driver: EmbeddedMediaDriver,
}

impl Store for Ipc {
    #[inline]
    fn append(&mut self, key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.message.clear();
        self.message.extend_from_slice(key);
        self.message.extend_from_slice(value);
        loop {
            match self.publication.offer(&self.message) {
                Ok(_) => return Ok(()),
                Err(AeronOfferError::BackPressured | AeronOfferError::AdminAction) => std::hint::spin_loop(),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        Ok(self.tail.take().ok_or("there is one reader only")?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct IpcTail(AeronSubscription);

impl Tail for IpcTail {
    #[inline]
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        self.0.poll_fn(|message, _| arrivals.take(&message[KEY_BYTES..]), FRAGMENTS_PER_POLL)?;
        Ok(())
    }
}
