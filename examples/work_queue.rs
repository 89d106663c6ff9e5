//! A queue of work on a topic: three workers share the jobs record by record. Some jobs fail at first and are tried
//! again, one is refused, and one never succeeds: both end in the dead-letter topic.
//!
//! `cargo run --example work_queue`

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tapelog::share::{Acknowledge, AcknowledgeMode, ShareConfig, ShareGroup};
use tapelog::{Error, Log, OffsetReset, Record, TopicConfig};

const JOBS: u32 = 12;
/// How often a job is tried.
const TRIES: u16 = 3;

/// What a job comes to.
#[derive(Debug)]
enum Outcome {
    Done,
    /// What it needs is not there: it may be, the next time.
    NotNow,
    /// It makes no sense.
    Nonsense,
}

fn work(job: &str, tries: u16) -> Outcome {
    match job {
        "job 3" if tries == 1 => Outcome::NotNow,
        "job 7" => Outcome::NotNow,
        "job 9" => Outcome::Nonsense,
        _ => Outcome::Done,
    }
}

/// Takes jobs until all of them are finished, here or elsewhere.
fn worker(name: &str, group: &ShareGroup, done: &AtomicU32) -> Result<(), Error> {
    let consumer = group.consumer().acknowledge_mode(AcknowledgeMode::Explicit).max_poll_records(2);
    let mut consumer = consumer.subscribe(["jobs"])?;
    while group.describe()?.partitions.values().any(|partition| partition.lag > 0) {
        let records = consumer.poll(Duration::from_millis(20))?;
        for record in &records {
            let job = String::from_utf8_lossy(record.value().unwrap_or_default());
            let tries = record.delivery_count();
            let outcome = work(&job, tries);
            println!("{name}: {job} (partition {}, try {tries}): {outcome:?}", record.partition());
            let acknowledge = match outcome {
                Outcome::Done => Acknowledge::Accept,
                Outcome::NotNow => Acknowledge::Release,
                Outcome::Nonsense => Acknowledge::Reject,
            };
            consumer.acknowledge(&record, acknowledge)?;
            if acknowledge == Acknowledge::Accept {
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
        // What was said of these records survives from here on.
        consumer.commit()?;
    }
    consumer.close()
}

fn main() -> Result<(), Error> {
    let log = Log::in_memory()?; // or Log::open("data")
    let jobs = log.create_topic("jobs", TopicConfig::new().partitions(2))?;
    let dead = log.create_topic("jobs.dead", TopicConfig::new())?;

    let group = log.share_group("workers")?;
    let config = ShareConfig::new()
        .offset_reset(OffsetReset::Earliest)
        .acquisition_lock(Duration::from_secs(10))
        .max_delivery_count(TRIES)
        .dead_letter_topic("jobs.dead");
    group.alter(config)?;

    let producer = log.producer().build()?;
    for n in 0..JOBS {
        producer.send(&jobs, Record::new(&format!("job {n}")).partition(n % 2))?;
    }
    // Members are there before the first one looks whether anything is left to do.
    group.subscribe(["jobs"])?.close()?;

    let done = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let workers = ["ann", "bob", "cid"].map(|name| {
            let (group, done) = (&group, &done);
            scope.spawn(move || worker(name, group, done))
        });
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker panicked"))
    })?;

    let mut letters = Vec::new();
    for letter in &dead.partition(0)?.reader(0)?.read(100)? {
        let text = |name| String::from_utf8_lossy(letter.header(name).unwrap_or_default()).into_owned();
        let job = String::from_utf8_lossy(letter.value().unwrap_or_default()).into_owned();
        let (tries, why) = (text("__dlq.errors.delivery.count"), text("__dlq.errors.message"));
        println!("dead letter: {job} after {tries} tries: {why}");
        letters.push((job, tries, why));
    }
    letters.sort();
    let expected = [("job 7", "3", "delivery count limit"), ("job 9", "1", "rejected")];
    let expected = expected.map(|(job, tries, why)| (job.to_owned(), tries.to_owned(), why.to_owned()));
    assert_eq!(letters, expected);
    assert_eq!(done.into_inner(), JOBS - 2);
    println!("ok jobs={JOBS} done={} dead={}", JOBS - 2, letters.len());
    log.close(Duration::from_secs(10))
}
