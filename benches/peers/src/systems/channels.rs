//! In-memory rings and channels: they store nothing, and are here for the latency from thread to thread.

use std::time::Duration;

use disruptor::{BusySpin, EventPoller, Polling, Producer, SingleProducer, SingleProducerBarrier};

use super::{Arrivals, Config, Durability, Opening, Store, System, Tail};
use crate::Result;
use crate::workloads::Probe::{Park, Tail as Follow};

pub static DISRUPTOR: System = System {
    name: "disruptor",
    configs: &[Config { name: "default", durability: Durability::Memory, probes: &[Follow] }],
    open: open_disruptor,
};

pub static CROSSBEAM: System = System {
    name: "crossbeam",
    configs: &[Config { name: "bounded channel", durability: Durability::Memory, probes: &[Follow, Park] }],
    open: open_crossbeam,
};

pub static TOKIO: System = System {
    name: "tokio",
    configs: &[Config { name: "broadcast", durability: Durability::Memory, probes: &[Follow, Park] }],
    open: open_tokio,
};

const SLOTS: usize = 1 << 14;

/// The value, where it lies in the ring.
#[derive(Clone)]
struct Event {
    len: usize,
    bytes: [u8; 128],
}

impl Event {
    fn empty() -> Event {
        Event { len: 0, bytes: [0; 128] }
    }

    fn new(value: &[u8]) -> Event {
        let mut event = Event::empty();
        event.fill(value);
        event
    }

    fn fill(&mut self, value: &[u8]) {
        self.len = value.len().min(128);
        self.bytes[..self.len].copy_from_slice(&value[..self.len]);
    }

    fn value(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn open_disruptor(_: &Opening<'_>) -> Result<Box<dyn Store>> {
    let builder = disruptor::build_single_producer(SLOTS, Event::empty, BusySpin);
    let (poller, builder) = builder.new_event_poller();
    Ok(Box::new(Ring { producer: builder.build(), tail: Some(Box::new(RingTail(poller))) }))
}

struct Ring<C> {
    producer: SingleProducer<Event, C>,
    tail: Option<Box<dyn Tail>>,
}

impl<C: Send> Store for Ring<C>
where
    SingleProducer<Event, C>: Producer<Event> + Send,
{
    #[inline]
    fn append(&mut self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.producer.publish(|event| event.fill(value));
        Ok(())
    }

    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        Ok(self.tail.take().ok_or("there is one reader only")?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct RingTail(EventPoller<Event, SingleProducerBarrier>);

impl Tail for RingTail {
    #[inline]
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        match self.0.poll() {
            Ok(mut events) => (&mut events).for_each(|event| arrivals.take(event.value())),
            Err(Polling::NoEvents) => {}
            Err(Polling::Shutdown) => return Err("the ring is shut down".into()),
        }
        Ok(())
    }
}

fn open_crossbeam(_: &Opening<'_>) -> Result<Box<dyn Store>> {
    let (sender, receiver) = crossbeam::channel::bounded(SLOTS);
    Ok(Box::new(Channel { sender, receiver }))
}

struct Channel {
    sender: crossbeam::channel::Sender<Event>,
    receiver: crossbeam::channel::Receiver<Event>,
}

impl Store for Channel {
    #[inline]
    fn append(&mut self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        Ok(self.sender.send(Event::new(value))?)
    }

    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        Ok(Box::new(ChannelTail(self.receiver.clone())))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct ChannelTail(crossbeam::channel::Receiver<Event>);

impl Tail for ChannelTail {
    #[inline]
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        while let Ok(event) = self.0.try_recv() {
            arrivals.take(event.value());
        }
        Ok(())
    }

    fn park(&mut self, arrivals: &mut Arrivals, limit: Duration) -> Result<()> {
        if let Ok(event) = self.0.recv_timeout(limit) {
            arrivals.take(event.value());
        }
        Ok(())
    }
}

fn open_tokio(_: &Opening<'_>) -> Result<Box<dyn Store>> {
    Ok(Box::new(Broadcast(tokio::sync::broadcast::Sender::new(SLOTS))))
}

struct Broadcast(tokio::sync::broadcast::Sender<Event>);

impl Store for Broadcast {
    #[inline]
    fn append(&mut self, _key: &[u8; 8], value: &[u8]) -> Result<()> {
        self.0.send(Event::new(value)).map_err(|_| "nobody listens")?;
        Ok(())
    }

    fn tail(&mut self) -> Result<Box<dyn Tail>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(Box::new(BroadcastTail { receiver: self.0.subscribe(), runtime }))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct BroadcastTail {
    receiver: tokio::sync::broadcast::Receiver<Event>,
    runtime: tokio::runtime::Runtime,
}

impl Tail for BroadcastTail {
    #[inline]
    fn poll(&mut self, arrivals: &mut Arrivals) -> Result<()> {
        while let Ok(event) = self.receiver.try_recv() {
            arrivals.take(event.value());
        }
        Ok(())
    }

    fn park(&mut self, arrivals: &mut Arrivals, limit: Duration) -> Result<()> {
        let waited = self.runtime.block_on(async { tokio::time::timeout(limit, self.receiver.recv()).await });
        if let Ok(Ok(event)) = waited {
            arrivals.take(event.value());
        }
        Ok(())
    }
}
