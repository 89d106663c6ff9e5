//! A loop that polls into the same records allocates nothing once it is warm.

#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use tapelog::{Log, Record, Records, TopicConfig};

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting per thread.
struct Counting;

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn hot_polls_allocate_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for log in [Log::in_memory().unwrap(), Log::open(dir.path().join("d")).unwrap()] {
        let topic = log.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
        let partitions = [topic.partition(0).unwrap(), topic.partition(1).unwrap()];
        let mut consumer = log.consumer_group("g").unwrap().subscribe(["t"]).unwrap();
        let mut records = Records::new();
        let mut value = 0u64;
        let mut round = |measured: bool| {
            for _ in 0..10 {
                partitions.iter().for_each(|p| drop(p.append(Record::new(&[7; 100])).unwrap()));
            }
            let before = ALLOCATED.get();
            assert_eq!(consumer.poll_into(&mut records, Duration::from_secs(10)).unwrap(), 20);
            value += records.iter().map(|r| r.value().map_or(0, |v| u64::from(v[0]))).sum::<u64>();
            let empty = consumer.poll_into(&mut records, Duration::ZERO).unwrap();
            assert_eq!((empty, if measured { ALLOCATED.get() - before } else { 0 }), (0, 0));
        };
        (0..5).for_each(|_| round(false));
        (0..50).for_each(|_| round(true));
        assert_eq!(value, 55 * 20 * 7);
    }
}
