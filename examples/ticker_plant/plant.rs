//! The plant: one producer, three groups, one log. All that touches the library is here.
//!
//! Each group begins where its committed offsets stand. What lies below them it has had from an earlier run,
//! so it is read again to rebuild the group's memory, and not counted; everything from there on is delivered
//! by this run. After a `kill -9` the committed offsets lag behind what is stored, and the next run delivers
//! the rest.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use tapelog::topic::SyncPolicy;
use tapelog::{
    ConsumerGroup, ConsumerRecord, Delivery, Durability, Log, OffsetReset, Record, Records, Timestamp, Topic,
    TopicConfig, TopicPartition,
};

use super::args::Args;
use super::audit::Audit;
use super::bars::Bars;
use super::board::Board;
use super::feed::Texts;
use super::group::{Delivered, Job, Order};
use super::ledger::{Asked, Ledger, Run, plan};
use super::report::{GroupReport, Report};
use super::source::Source;
use super::stats::{Latency, Pace, Progress, disk_bytes, peak_memory_bytes};

const TOPIC: &str = "ticks";
const PARTITIONS: u32 = 4;

/// Deliveries that may be unresolved at a time with `--durability disk`.
const WINDOW: usize = 4_096;
const COMMIT_EVERY: Duration = Duration::from_millis(250);
const POLL: Duration = Duration::from_millis(50);
/// A group that gets nothing for so long while records wait for it is not going to get them.
const PATIENCE: Duration = Duration::from_secs(60);
const CLOSE: Duration = Duration::from_secs(60);

/// Why there is no report.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// Nothing was begun: what was asked for does not fit what is there.
    Refused(String),
    /// Begun, and broken off.
    Broken(String),
    /// Broken off because another thread was; that one knows why.
    Stopped,
}

impl From<tapelog::Error> for Failure {
    fn from(error: tapelog::Error) -> Self {
        Failure::Broken(error.to_string())
    }
}

/// Start and end offset of each partition of the directory; none where there is no log or no topic in it.
pub(crate) fn inspect(dir: &Path) -> Result<Vec<(u64, u64)>, Failure> {
    let path = dir.join("log");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let log = Log::open(&path)?;
    let mut ranges = Vec::new();
    if let Some(topic) = existing(&log)? {
        for p in 0..topic.partitions() {
            let partition = topic.partition(p)?;
            ranges.push((partition.start_offset(), partition.end_offset()));
        }
    }
    log.close(CLOSE)?;
    Ok(ranges)
}

fn existing(log: &Log) -> Result<Option<Topic>, tapelog::Error> {
    match log.topic(TOPIC) {
        Ok(topic) => Ok(Some(topic)),
        Err(e) if e.kind() == tapelog::ErrorKind::UnknownTopicOrPartition => Ok(None),
        Err(e) => Err(e),
    }
}

fn open(args: &Args, dir: &Path) -> Result<(Log, Topic), Failure> {
    let mut builder = Log::builder();
    if let Some(bytes) = args.budget_bytes {
        builder = builder.memory_budget(bytes);
    }
    let log = builder.open(dir.join("log"))?;
    let settings = TopicConfig::new()
        .compression(args.codec)
        .sync_policy(args.sync_every.map_or(SyncPolicy::Never, SyncPolicy::Every));
    let topic = match existing(&log)? {
        Some(topic) => {
            topic.alter(settings)?;
            topic
        }
        None => log.create_topic(TOPIC, settings.partitions(PARTITIONS))?,
    };
    Ok((log, topic))
}

fn ends(topic: &Topic) -> Result<Vec<u64>, tapelog::Error> {
    (0..PARTITIONS).map(|p| Ok(topic.partition(p)?.end_offset())).collect()
}

/// Where `group` goes on in each partition: its committed offsets, or the beginning.
fn committed(group: &ConsumerGroup) -> Result<Vec<u64>, tapelog::Error> {
    (0..PARTITIONS).map(|p| Ok(group.committed(&TopicPartition::new(TOPIC, p))?.unwrap_or(0))).collect()
}

/// What the threads of a run tell each other.
#[derive(Default)]
struct Shared {
    /// Groups that have rebuilt their memory.
    ready: AtomicU32,
    /// Somebody failed: everybody ends.
    stop: AtomicBool,
    appended: AtomicU64,
    /// The end of each partition, once the producer is through.
    ends: OnceLock<Vec<u64>>,
}

/// Tells the others when its thread fails, by an error or by a panic.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Relaxed);
    }
}

/// One whole run: plan, feed, deliver, audit.
pub(crate) fn run(args: &Args, source: &Source, dir: &Path) -> Result<Report, Failure> {
    let io = |path: &Path, e: std::io::Error| Failure::Broken(format!("{}: {e}", path.display()));
    std::fs::create_dir_all(dir).map_err(|e| io(dir, e))?;
    let identity = source.identity();
    let last = Ledger::load(dir).map_err(Failure::Refused)?;
    if let Some(ledger) = last.as_ref().filter(|ledger| ledger.source != identity) {
        let was = &ledger.source;
        return Err(Failure::Refused(format!(
            "{}: filled from another source: {was}, not {identity}",
            dir.display()
        )));
    }
    let (log, topic) = open(args, dir)?;
    let held = ends(&topic)?;
    let stored = held.iter().sum();
    let asked = Asked { resume: args.resume, records: args.records, whole: source.run_length() };
    let run = plan(last.as_ref().map(|ledger| ledger.run), stored, asked)
        .map_err(|why| Failure::Refused(format!("{}: {why}", dir.display())))?;
    let ledger = Ledger { source: identity, run };
    if last.as_ref() != Some(&ledger) {
        ledger.store(dir).map_err(Failure::Broken)?;
    }
    let accepted = match &args.accepted {
        Some(path) => Some(Accepted::create(path, stored).map_err(|e| io(path, e))?),
        None => None,
    };

    let shared = Shared::default();
    let feeder = Feeder { args, source, topic: &topic, run, held, accepted, shared: &shared };
    let audit = Audit::new(source, run.target, PARTITIONS);
    let (fed, board, bars, audit) = thread::scope(|scope| {
        let board = scope.spawn(|| consume(&log, &topic, "board", Board::default(), &shared));
        let bars = scope.spawn(|| consume(&log, &topic, "bars", Bars::default(), &shared));
        let audit = scope.spawn(|| consume(&log, &topic, "audit", audit, &shared));
        let feeder = scope.spawn(|| feeder.feed(&log));
        let progress = Progress::new();
        let finished =
            || board.is_finished() && bars.is_finished() && audit.is_finished() && feeder.is_finished();
        while !finished() {
            progress.draw(shared.appended.load(Relaxed), run.target.saturating_sub(stored));
            thread::sleep(Duration::from_millis(20));
        }
        progress.clear();
        (join(feeder), join(board), join(bars), join(audit))
    });
    let failures = [fed.as_ref().err(), board.as_ref().err(), bars.as_ref().err(), audit.as_ref().err()];
    if let Some(cause) = failures.into_iter().flatten().find(|failure| !matches!(failure, Failure::Stopped)) {
        return Err(cause.clone());
    }
    let (fed, mut board, mut bars, audit) = (fed?, board?, bars?, audit?);

    // The same results, computed from the source alone.
    let (mut last_prices, mut minutes, mut texts) = (Board::default(), Bars::default(), Texts::default());
    for n in 0..run.target {
        let tick = source.tick(n, &mut texts);
        last_prices.tick(&tick);
        minutes.tick(&tick);
    }
    board.report.mismatches += board.job.differences(&last_prices);
    bars.report.mismatches += bars.job.differences(&minutes);

    let mut end_to_end = Latency::new();
    for latency in [&board.end_to_end, &bars.end_to_end, &audit.end_to_end] {
        end_to_end.merge(latency);
    }
    let stored = (0..PARTITIONS)
        .map(|p| topic.partition(p).map(|p| p.end_offset() - p.start_offset()))
        .sum::<Result<u64, _>>()?;
    let running = fed.begin.elapsed_until([board.end, bars.end, audit.end]);
    drop(topic);
    log.close(CLOSE)?;
    Ok(Report {
        appended: fed.appended,
        appended_bytes: fed.bytes,
        misplaced: fed.misplaced,
        appending: fed.appending,
        running,
        append: fed.append,
        end_to_end,
        behind: fed.behind,
        stored,
        disk_bytes: disk_bytes(&dir.join("log")),
        peak_memory_bytes: peak_memory_bytes(),
        audit: audit.job.findings(),
        groups: vec![board.report, bars.report, audit.report],
        board: board.job,
        bars: bars.job,
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T, Failure>>) -> Result<T, Failure> {
    thread.join().unwrap_or_else(|_| Err(Failure::Broken("a thread panicked".to_owned())))
}

/// The file that tells a killer outside how many records the directory must hold, in 20 digits and a newline.
struct Accepted {
    file: File,
    text: [u8; 21],
}

impl Accepted {
    fn create(path: &Path, count: u64) -> std::io::Result<Self> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        let mut accepted = Accepted { file, text: [b'\n'; 21] };
        accepted.write(count)?;
        Ok(accepted)
    }

    /// One `pwrite` over the number before.
    fn write(&mut self, mut count: u64) -> std::io::Result<()> {
        for digit in self.text[..20].iter_mut().rev() {
            *digit = b'0' + (count % 10) as u8;
            count /= 10;
        }
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::write_all_at(&self.file, &self.text, 0);
        #[cfg(not(unix))]
        {
            use std::io::{Seek as _, Write as _};
            self.file.rewind()?;
            self.file.write_all(&self.text)
        }
    }
}

/// The producer's side of a run.
struct Feeder<'a> {
    args: &'a Args,
    source: &'a Source,
    topic: &'a Topic,
    run: Run,
    /// Records that each partition holds already.
    held: Vec<u64>,
    accepted: Option<Accepted>,
    shared: &'a Shared,
}

/// What the producer has to say.
struct Fed {
    appended: u64,
    bytes: u64,
    misplaced: u64,
    begin: Begin,
    appending: Duration,
    append: Latency,
    behind: Duration,
}

/// When the first send was due.
#[derive(Clone, Copy)]
struct Begin(Instant);

impl Begin {
    fn elapsed_until(self, ends: [Instant; 3]) -> Duration {
        ends.into_iter().map(|end| end.saturating_duration_since(self.0)).max().unwrap_or_default()
    }
}

impl Feeder<'_> {
    fn feed(mut self, log: &Log) -> Result<Fed, Failure> {
        let alarm = Alarm(self.shared);
        while self.shared.ready.load(Relaxed) < 3 {
            if self.shared.stop.load(Relaxed) {
                return Err(Failure::Stopped);
            }
            thread::sleep(Duration::from_millis(1));
        }
        let fed = self.send_all(log)?;
        self.shared.ends.get_or_init(|| fed.1);
        std::mem::forget(alarm);
        Ok(fed.0)
    }

    /// Walks the source, passes over as many rows of each partition as it holds, and sends the rest.
    fn send_all(&mut self, log: &Log) -> Result<(Fed, Vec<u64>), Failure> {
        let (durability, window) =
            if self.args.disk { (Durability::Disk, WINDOW) } else { (Durability::Process, 0) };
        let producer = log.producer().durability(durability).build()?;
        let mut accepted_count: u64 = self.held.iter().sum();
        let mut skip = self.held.clone();
        let mut next = self.held.clone();
        let mut waiting = VecDeque::<Delivery>::with_capacity(window + 1);
        let (mut appended, mut bytes, mut misplaced) = (0, 0, 0);
        let (mut json, mut texts, mut append) = (Vec::new(), Texts::default(), Latency::new());
        let mut pace = Pace::new(self.args.rate);
        let begin = Instant::now();
        for n in 0..self.run.target {
            let partition = self.source.partition(n, PARTITIONS) as usize;
            if skip[partition] > 0 {
                skip[partition] -= 1;
                continue;
            }
            if self.shared.stop.load(Relaxed) {
                return Err(Failure::Stopped);
            }
            let tick = self.source.tick(n, &mut texts);
            json.clear();
            tick.write(&mut json);
            pace.wait();
            let sent = Timestamp::now().as_nanos();
            let (n_bytes, sent_bytes) = (n.to_le_bytes(), sent.to_le_bytes());
            let headers = [("n", &n_bytes[..]), ("sent", &sent_bytes[..])];
            let record = Record::new(&json).key(tick.symbol).headers(&headers);
            let record = record.timestamp(Timestamp::from_nanos(tick.nanos().unwrap_or_default()));

            let before = Instant::now();
            let delivery = producer.send(self.topic, record)?;
            append.record(before.elapsed().as_nanos() as u64);

            if (delivery.partition() as usize, delivery.offset()) != (partition, next[partition]) {
                misplaced += 1;
            }
            next[partition] += 1;
            appended += 1;
            bytes +=
                (json.len() + tick.symbol.len() + "nsent".len() + n_bytes.len() + sent_bytes.len()) as u64;
            self.shared.appended.store(appended, Relaxed);
            waiting.push_back(delivery);
            while waiting.len() > window || waiting.front().is_some_and(Delivery::is_done) {
                self.settle(&mut waiting, &mut accepted_count)?;
            }
        }
        while !waiting.is_empty() {
            self.settle(&mut waiting, &mut accepted_count)?;
        }
        producer.close(CLOSE)?;
        let (begin, appending, behind) = (Begin(begin), begin.elapsed(), pace.behind);
        Ok((Fed { appended, bytes, misplaced, begin, appending, append, behind }, ends(self.topic)?))
    }

    /// Waits for the oldest delivery; only then is its record accepted.
    fn settle(&mut self, waiting: &mut VecDeque<Delivery>, count: &mut u64) -> Result<(), Failure> {
        if let Some(delivery) = waiting.pop_front() {
            delivery.wait()?;
            *count += 1;
            if let Some(accepted) = &mut self.accepted {
                accepted.write(*count).map_err(|e| Failure::Broken(format!("--accepted: {e}")))?;
            }
        }
        Ok(())
    }
}

/// A group at the end of a run.
struct Consumed<J> {
    job: J,
    report: GroupReport,
    end_to_end: Latency,
    end: Instant,
}

/// One group: rebuild, then follow the topic until the producer is through and everything has come.
fn consume<J: Job>(
    log: &Log,
    topic: &Topic,
    name: &'static str,
    mut job: J,
    shared: &Shared,
) -> Result<Consumed<J>, Failure> {
    let alarm = Alarm(shared);
    let group = log.consumer_group(name)?;
    let from = committed(&group)?;
    let mut order = Order::new(from.clone());
    rebuild(topic, &from, &mut job, &mut order)?;
    let mut consumer = group.consumer().offset_reset(OffsetReset::Earliest).subscribe([TOPIC])?;
    shared.ready.fetch_add(1, Relaxed);

    let since = Timestamp::now().as_nanos();
    let mut end_to_end = Latency::new();
    let mut records = Records::default();
    let mut out = 0;
    let (mut heard, mut saved) = (Instant::now(), Instant::now());
    loop {
        // Read before polling: records that arrive in between only cause another turn.
        let ends = shared.ends.get();
        let polled = consumer.poll_into(&mut records, POLL)? as u64;
        let now = Timestamp::now().as_nanos();
        for record in &records {
            order.see(record.partition(), record.offset());
            let (delivered, sent) = read(&record);
            if !job.take(&delivered) {
                order.mismatches += 1;
            }
            // What was sent before this run waited for it to begin, which is no latency of the log.
            if let Some(sent) = sent.filter(|sent| *sent >= since) {
                end_to_end.record((now - sent).max(0) as u64);
            }
        }
        out += polled;
        if polled > 0 {
            heard = Instant::now();
        }
        if saved.elapsed() >= COMMIT_EVERY && out > 0 {
            consumer.commit()?;
            saved = Instant::now();
        }
        if let Some(ends) = ends {
            // One more empty poll shows that nothing follows the end.
            if order.reached(ends) && polled == 0 {
                break;
            }
            if heard.elapsed() > PATIENCE {
                order.mismatches += order.behind(ends);
                break;
            }
        }
        if shared.stop.load(Relaxed) {
            return Err(Failure::Stopped);
        }
    }
    let end = heard;
    consumer.commit()?;
    consumer.close()?;
    let lag = Order::new(committed(&group)?).behind(&ends(topic)?);
    std::mem::forget(alarm);
    let report = GroupReport { name, out, mismatches: order.mismatches, lag };
    Ok(Consumed { job, report, end_to_end, end })
}

/// Gives the job everything below the offsets that its group has committed.
fn rebuild<J: Job>(topic: &Topic, below: &[u64], job: &mut J, order: &mut Order) -> Result<(), Failure> {
    for (p, below) in below.iter().enumerate() {
        let partition = topic.partition(p as u32)?;
        let mut next = partition.start_offset();
        let mut reader = partition.reader(next)?;
        while next < *below {
            let Some(record) = reader.try_next()? else { break };
            if record.offset() >= *below {
                break;
            }
            order.mismatches += record.offset().abs_diff(next);
            next = record.offset() + 1;
            if !job.take(&read(&record).0) {
                order.mismatches += 1;
            }
        }
        // A group that has committed more than there is.
        order.mismatches += below.saturating_sub(next);
    }
    Ok(())
}

/// A record with its headers read, and when it was sent.
fn read<'a>(record: &ConsumerRecord<'a>) -> (Delivered<'a>, Option<i64>) {
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    let mut headers = record.headers();
    let (n, sent) = match (headers.next(), headers.next(), headers.next()) {
        (Some(("n", n)), Some(("sent", sent)), None) => (number(n), number(sent)),
        _ => (None, None),
    };
    let delivered = Delivered {
        partition: record.partition(),
        key: record.key(),
        value: record.value(),
        timestamp: record.timestamp().as_nanos(),
        n: n.filter(|_| sent.is_some()),
    };
    (delivered, sent.map(|sent| sent as i64))
}
