//! What runs for every record takes no memory of the allocator's: neither an append nor a hot read.

#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use tapelog::{Log, Partition, Record, Timestamp, TopicConfig};

/// Counts what each thread asks for, so that the write-behind's own needs are not taken for the caller's.
struct Counting;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends has no counter any more, and nobody asks for it.
    let _ = TAKEN.try_with(|taken| taken.set(taken.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came; counting touches a `Cell` that needs no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's duties are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(old, layout, len) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread asked for memory during `work`.
fn taken(work: impl FnOnce()) -> u64 {
    let before = TAKEN.get();
    work();
    TAKEN.get() - before
}

const VALUE: [u8; 100] = [7; 100];
/// A frame of these takes 32 + 8 + 104 bytes.
const FRAME: u64 = 144;

fn record(n: u64) -> Record<'static> {
    Record::new(&VALUE).key(&VALUE[..8]).timestamp(Timestamp::from_nanos(n as i64))
}

/// Appends until the partition stands in a large chunk of which nearly all is left: 4 MiB hold 29,000 records.
fn warm_up(partition: &Partition) {
    for n in 0..6_000 {
        partition.append(record(n)).unwrap();
    }
    // The first time that a thread sleeps, its locks make room for it; an append may sleep for another's.
    partition.wait_durable(partition.end_offset(), Duration::from_secs(30)).unwrap();
}

fn takes_nothing(partition: &Partition) {
    warm_up(partition);
    let batch: Vec<Record<'_>> = (0..10).map(record).collect();
    let one_by_one = taken(|| {
        for n in 0..1_000 {
            partition.append(record(n)).unwrap();
        }
    });
    let without_time = taken(|| {
        for _ in 0..1_000 {
            partition.append(Record::new(&VALUE)).unwrap();
        }
    });
    let batches = taken(|| {
        for _ in 0..100 {
            partition.append_batch(&batch).unwrap();
        }
    });
    let conditional = taken(|| {
        for _ in 0..100 {
            partition.append_if(partition.end_offset(), &batch).unwrap();
        }
    });
    assert_eq!((one_by_one, without_time, batches, conditional), (0, 0, 0, 0));
    let mut appender = partition.appender().unwrap();
    let exclusive = taken(|| {
        for n in 0..500 {
            appender.append(record(n)).unwrap();
            let mut claim = appender.claim(VALUE.len()).unwrap();
            claim.copy_from_slice(&VALUE);
            claim.commit().unwrap();
        }
    });
    drop(appender);
    assert_eq!(exclusive, 0);

    let from = partition.end_offset() - 4_000;
    let mut reader = partition.reader(from).unwrap();
    reader.try_next().unwrap();
    let mut seen = 1;
    let reads = taken(|| {
        while let Some(record) = reader.try_next().unwrap() {
            assert_eq!((record.value(), record.headers().len()), (Some(&VALUE[..]), 0));
            assert_eq!(record.offset(), from + seen);
            seen += 1;
        }
    });
    assert_eq!((seen, reads), (4_000, 0));
    // At the end, with something new now and then: the life of a reader that follows.
    let follows = taken(|| {
        for n in 0..1_000 {
            partition.append(record(n)).unwrap();
            assert!(reader.try_next().unwrap().is_some());
            assert!(reader.try_next().unwrap().is_none());
        }
    });
    assert_eq!(follows, 0);
}

#[test]
fn a_durable_log_takes_no_memory_per_record() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("log")).unwrap();
    let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
    takes_nothing(&partition);
    log.close(Duration::from_secs(10)).unwrap();
}

#[test]
fn a_log_in_memory_takes_no_memory_per_record() {
    let log = Log::in_memory().unwrap();
    takes_nothing(&log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap());
}

/// A new chunk takes a few pieces of memory for what describes it. Over many chunks that must stay nothing.
#[test]
fn new_chunks_take_little() {
    const RECORDS: u64 = 500_000;
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("log")).unwrap();
    let partition = log.create_topic("t", TopicConfig::new()).unwrap().partition(0).unwrap();
    warm_up(&partition);
    let taken = taken(|| {
        for n in 0..RECORDS {
            partition.append(record(n)).unwrap();
        }
    });
    let chunks = RECORDS * FRAME / (4 << 20);
    assert!(taken <= 16 * (chunks + 8), "{taken} for about {chunks} chunks");
    log.close(Duration::from_secs(10)).unwrap();
}
