//! What a log makes of names, sizes, files and disks that are not as they should be: an error that says what and
//! where, nothing accepted lost, and never a panic.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tapelog::{Codec, Compression, Error, ErrorKind, Log, Partition, Record, TopicConfig};

const SOON: Duration = Duration::from_secs(20);

fn open(dir: &Path) -> Log {
    Log::open(dir).unwrap()
}

fn t(log: &Log, config: TopicConfig) -> Partition {
    log.ensure_topic("t", config).unwrap().partition(0).unwrap()
}

fn value(offset: u64) -> Vec<u8> {
    format!("{offset} ").bytes().cycle().take(1_000).collect()
}

/// A log with `count` records in segments of ten, closed; returns its segment files in order.
fn written(dir: &Path, count: u64) -> Vec<PathBuf> {
    let log = open(dir);
    let partition = t(&log, TopicConfig::new().segment_bytes(11_000));
    (0..count).for_each(|n| drop(partition.append(Record::new(&value(n))).unwrap()));
    log.close(SOON).unwrap();
    segments(dir)
}

/// The segment files of topic "t".
fn segments(dir: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path| fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let topic = list(&dir.join("topics")).into_iter().find(|p| name(p).starts_with("t.")).unwrap();
    let mut files = list(&topic.join("0"));
    files.sort();
    files
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// What can be read, passing over what cannot; the errors on the way.
fn readable(partition: &Partition) -> (Vec<u64>, Vec<Error>) {
    let (mut offsets, mut errors) = (Vec::new(), Vec::new());
    let end = partition.end_offset();
    let mut reader = partition.reader(partition.start_offset()).unwrap();
    loop {
        match reader.try_next() {
            Ok(Some(record)) => {
                assert!(record.value() == Some(&value(record.offset())[..]), "wrong bytes");
                offsets.push(record.offset());
            }
            Ok(None) => return (offsets, errors),
            Err(e) => {
                errors.push(e);
                let next = reader.position() + 1;
                if next > end {
                    return (offsets, errors);
                }
                reader.seek(next).unwrap();
            }
        }
    }
}

#[test]
fn names_that_no_topic_can_have() {
    let log = Log::in_memory().unwrap();
    let long = "x".repeat(300);
    let bad = ["", ".", "..", "a/b", "../x", "a b", "a\0b", "Börse", "株", "a\nb", long.as_str(), "/", "\\"];
    for name in bad {
        let error = log.create_topic(name, TopicConfig::new()).unwrap_err();
        assert_eq!((error.kind(), error.topic()), (ErrorKind::InvalidTopic, Some(name)));
        assert_eq!(log.topic(name).unwrap_err().kind(), ErrorKind::InvalidTopic);
        assert_eq!(log.delete_topic(name).unwrap_err().kind(), ErrorKind::InvalidTopic);
    }
    for name in ["__topics", "__mine"] {
        let error = log.create_topic(name, TopicConfig::new()).unwrap_err();
        assert_eq!((error.kind(), error.topic()), (ErrorKind::InvalidTopic, Some(name)));
    }
    let internal = log.topic("__topics").unwrap().partition(0).unwrap();
    assert_eq!(internal.append(Record::new("a")).unwrap_err().kind(), ErrorKind::InvalidTopic);
    assert!(log.topics().is_empty());
}

#[test]
fn topics_and_partitions_that_are_not_there() {
    let log = Log::in_memory().unwrap();
    for result in [log.topic("none").map(drop), log.delete_topic("none")] {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.topic()), (ErrorKind::UnknownTopicOrPartition, Some("none")));
    }
    let topic = log.create_topic("t", TopicConfig::new().partitions(2)).unwrap();
    for number in [2, u32::MAX] {
        let error = topic.partition(number).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition);
        assert_eq!((error.topic(), error.partition()), (Some("t"), Some(number)));
    }
    let error = topic.partition(1).unwrap().append(Record::new("a").partition(0)).unwrap_err();
    assert_eq!(
        (error.kind(), error.topic(), error.partition()),
        (ErrorKind::InvalidArgument, Some("t"), Some(1))
    );
    for partitions in [0, 100_001, u32::MAX] {
        let error = log.create_topic("u", TopicConfig::new().partitions(partitions)).unwrap_err();
        assert_eq!((error.kind(), error.topic()), (ErrorKind::InvalidPartitions, Some("u")));
    }
    let error = log.create_topic("u", TopicConfig::new().compression(Compression::Custom(200))).unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::UnsupportedCompressionType, Some("u")));
    let error = log.create_topic("u", TopicConfig::new().segment_bytes(0)).unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::InvalidConfig, Some("u")));
    assert_eq!(log.topics().len(), 1);
}

#[test]
fn what_is_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let durable = open(&dir.path().join("durable"));
    let tight = Log::builder().memory_budget(1 << 20).open(dir.path().join("tight")).unwrap();
    let place = |e: &Error| (e.topic().map(str::to_owned), e.partition());
    let here = (Some("t".to_owned()), Some(0));
    for (log, largest) in [(&durable, 8 << 20), (&tight, 0), (&Log::in_memory().unwrap(), 8 << 20)] {
        let partition = t(log, TopicConfig::new().max_record_bytes(8 << 20));
        let error = partition.append(Record::new(&vec![1; 10 << 20])).unwrap_err();
        assert_eq!((error.kind(), place(&error)), (ErrorKind::RecordTooLarge, here.clone()));
        let half = vec![1; (4 << 20) + 1];
        let error = partition.append_batch(&[Record::new(&half), Record::new(&half)]).unwrap_err();
        assert_eq!((error.kind(), place(&error)), (ErrorKind::RecordBatchTooLarge, here.clone()));
        assert_eq!(partition.end_offset(), 0);
        // Just under 8 MiB: that fits into 64 MiB of memory and does not fit into one.
        let jumbo = vec![2; (8 << 20) - 100];
        match partition.append(Record::new(&jumbo)) {
            Ok(_) => assert!(jumbo.len() < largest),
            Err(e) => assert_eq!((e.kind(), largest), (ErrorKind::RecordBatchTooLarge, 0)),
        }
        partition.append(Record::new("small")).unwrap();
    }
    for _ in 0..12 {
        // More of them than the memory holds at a time.
        t(&durable, TopicConfig::new()).append(Record::new(&vec![2; (8 << 20) - 100])).unwrap();
    }
    drop(durable);
    let durable = open(&dir.path().join("durable"));
    let records = t(&durable, TopicConfig::new()).reader(0).unwrap().read(100).unwrap();
    assert_eq!(records.len(), 14);
    assert!(
        records.iter().all(|r| r.value().unwrap().len() == if r.offset() == 1 { 5 } else { (8 << 20) - 100 })
    );
    let default = tight.create_topic("default", TopicConfig::new()).unwrap().partition(0).unwrap();
    let error = default.append(Record::new(&vec![0; 1 << 20])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge);
}

#[test]
fn offsets_that_are_not_there() {
    let log = Log::in_memory().unwrap();
    let partition = t(&log, TopicConfig::new());
    partition.append(Record::new("a")).unwrap();
    for offset in [2, u64::MAX] {
        let error = partition.reader(offset).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (ErrorKind::OffsetOutOfRange, Some(offset)));
        assert_eq!(error.offset_range(), Some((0, 1)));
        let error = partition.wait_durable(offset, SOON).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (ErrorKind::InvalidArgument, Some(offset)));
    }
    let error = partition.append_if(0, &[Record::new("b")]).unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::UnexpectedEndOffset, Some("t")));
}

/// Turns every byte around.
struct Backwards;

impl Codec for Backwards {
    fn id(&self) -> u8 {
        199
    }
    fn name(&self) -> &str {
        "backwards"
    }
    fn compress(
        &self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // Without its last bytes, for a codec that gains nothing is not used.
        output.extend(input.iter().rev().skip(8));
        Ok(())
    }
    fn decompress(
        &self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let n = output.len();
        output.iter_mut().rev().zip(input).for_each(|(out, byte)| *out = *byte);
        assert_eq!(n, input.len() + 8);
        Ok(())
    }
}

#[test]
fn a_codec_that_nobody_registered() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::builder().codec(Backwards).open(dir.path()).unwrap();
    let config = TopicConfig::new().compression(Compression::Custom(199));
    t(&log, config).append(Record::new("a")).unwrap();
    log.close(SOON).unwrap();
    let log = open(dir.path());
    let partition = log.topic("t").unwrap().partition(0).unwrap();
    let error = partition.reader(0).unwrap().try_next().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedCompressionType);
    assert_eq!((error.topic(), error.partition(), error.offset()), (Some("t"), Some(0), Some(0)));
    assert!(error.path().is_some() && error.position().is_some());
    // What is appended without the codec is stored as it is, and both stay where they are.
    partition.append(Record::new("b")).unwrap();
    partition.wait_durable(2, SOON).unwrap();
    let mut reader = partition.reader(1).unwrap();
    assert_eq!(reader.try_next().unwrap().unwrap().value(), Some(&b"b"[..]));
}

/// Does harm to a file of this length.
type Spoil = Box<dyn Fn(&Path, usize)>;

/// What is known to be lost is told when the log opens or when it is read, and what is beside it is there.
#[test]
fn segments_that_were_cut_or_overwritten() {
    let mut cases: Vec<(&str, Spoil)> = vec![
        ("empty", Box::new(|path, _| fs::write(path, b"").unwrap())),
        ("garbage", Box::new(|path, len| fs::write(path, garbage(len)).unwrap())),
        ("zeros", Box::new(|path, len| fs::write(path, vec![0; len]).unwrap())),
        ("text", Box::new(|path, _| fs::write(path, "not a segment, but somebody's notes").unwrap())),
    ];
    for part in (1..20).step_by(3) {
        cases.push(("cut", Box::new(move |path, len| cut(path, len * part / 20))));
        cases.push(("flipped", Box::new(move |path, len| flip(path, len * part / 20))));
    }
    for (what, spoil) in &cases {
        for which in [0, 1, 2] {
            let dir = tempfile::tempdir().unwrap();
            let files = written(dir.path(), 30);
            assert_eq!(files.len(), 3);
            let path = &files[which];
            let len = usize::try_from(fs::metadata(path).unwrap().len()).unwrap();
            spoil(path, len);
            let log = match Log::open(dir.path()) {
                Ok(log) => log,
                Err(e) => {
                    let kinds =
                        [ErrorKind::CorruptRecord, ErrorKind::ForeignFile, ErrorKind::UnsupportedVersion];
                    assert!(kinds.contains(&e.kind()), "{what}: {e:?}");
                    assert_eq!(e.path(), Some(path.as_path()), "{what}: {e:?}");
                    assert_eq!((e.topic(), e.partition()), (Some("t"), Some(0)));
                    continue;
                }
            };
            let report = log.recovery_report().clone();
            let partition = t(&log, TopicConfig::new());
            let (offsets, errors) = readable(&partition);
            let lost: Vec<u64> = (0..30).filter(|n| !offsets.contains(n)).collect();
            let here = (which as u64 * 10)..(which as u64 * 10 + 10);
            assert!(lost.iter().all(|n| here.contains(n)), "{what} {which}: lost {lost:?}, {report:?}");
            let told = report.has_losses() || !errors.is_empty();
            assert!(lost.is_empty() || told, "{what} {which}: {lost:?} were lost in silence: {report:?}");
            for e in &errors {
                assert!(e.is_corrupt(), "{what}: {e:?}");
                assert_eq!((e.topic(), e.partition()), (Some("t"), Some(0)));
                assert_eq!(e.path(), Some(path.as_path()));
            }
            let end = partition.end_offset();
            partition.append(Record::new(&value(end))).unwrap();
            assert_eq!(readable(&partition).0.last(), Some(&end));
            log.close(SOON).unwrap();
        }
    }
}

fn garbage(len: usize) -> Vec<u8> {
    let mut x = 0x1234_5678_9ABC_DEF1u64;
    let next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()[2]
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn cut(path: &Path, len: usize) {
    fs::File::options().write(true).open(path).unwrap().set_len(len as u64).unwrap();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// A segment in the middle is gone: what was in it is lost, and that is said.
#[test]
fn a_segment_that_is_missing_is_reported() {
    for unclean in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let files = written(dir.path(), 30);
        if unclean {
            drop(open(dir.path()));
        }
        fs::remove_file(&files[1]).unwrap();
        let log = open(dir.path());
        let report = log.recovery_report();
        assert!(report.has_losses(), "unclean: {unclean}: {report:?}");
        assert_eq!(report.items[0].offsets, Some(10..20));
        let (offsets, _) = readable(&t(&log, TopicConfig::new()));
        assert_eq!(offsets, (0..10).chain(20..30).collect::<Vec<_>>());
    }
}

fn roots(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|p| name(p).starts_with("root"));
    all.sort();
    assert_eq!(all.len(), 2);
    all
}

/// One copy of the root file is damaged or gone: the other serves, after a clean stop and after a drop.
#[test]
fn one_root_file_that_is_damaged() {
    for clean in [true, false] {
        for which in [0, 1] {
            for how in ["flipped", "cut", "gone"] {
                let dir = tempfile::tempdir().unwrap();
                written(dir.path(), 30);
                let log = open(dir.path());
                let partition = t(&log, TopicConfig::new());
                partition.append(Record::new(&value(30))).unwrap();
                drop(partition);
                if clean {
                    log.close(SOON).unwrap();
                } else {
                    drop(log);
                }
                let path = &roots(dir.path())[which];
                match how {
                    "flipped" => flip(path, 40),
                    "cut" => cut(path, 20),
                    _ => fs::remove_file(path).unwrap(),
                }
                let log = open(dir.path());
                assert_eq!(log.recovery_report().clean, clean);
                let partition = t(&log, TopicConfig::new());
                assert_eq!(readable(&partition).0, (0..31).collect::<Vec<_>>(), "{how} {which} {clean}");
            }
        }
    }
}

#[test]
fn both_root_files_damaged_or_one_of_a_newer_version() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 30);
    let good: Vec<_> = roots(dir.path()).into_iter().map(|p| (fs::read(&p).unwrap(), p)).collect();
    let fails = |kind: ErrorKind| {
        let before = fs::read_dir(dir.path()).unwrap().count();
        let error = Log::open(dir.path()).map(drop).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.path().is_some_and(|p| p.starts_with(dir.path())), "{error:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), before);
    };
    good.iter().for_each(|(_, path)| flip(path, 40));
    fails(ErrorKind::CorruptRecord);
    good.iter().for_each(|(_, path)| fs::write(path, b"").unwrap());
    fails(ErrorKind::CorruptRecord);
    // With their topics there, it is not a directory to begin a log in.
    good.iter().for_each(|(_, path)| fs::remove_file(path).unwrap());
    fails(ErrorKind::CorruptRecord);
    for newer in [0, 1] {
        for (n, (bytes, path)) in good.iter().enumerate() {
            let mut bytes = bytes.clone();
            if n == newer {
                bytes[8] = 99;
                let at = bytes.len() - 4;
                let crc = crc32fast::hash(&bytes[..at]).to_le_bytes();
                bytes[at..].copy_from_slice(&crc);
            }
            fs::write(path, bytes).unwrap();
        }
        fails(ErrorKind::UnsupportedVersion);
    }
    good.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
    assert_eq!(readable(&t(&open(dir.path()), TopicConfig::new())).0.len(), 30);
}

#[test]
fn directories_that_are_no_logs() {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("cat.jpg"), "meow").unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "text").unwrap();
    for (path, inside) in [(&photos, "photos"), (&file, "file"), (&file.join("below"), "file")] {
        let error = Log::open(path).map(drop).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ForeignFile | ErrorKind::Storage), "{error:?}");
        assert!(error.path().unwrap().to_str().unwrap().contains(inside), "{error:?}");
    }
    assert_eq!(fs::read(photos.join("cat.jpg")).unwrap(), b"meow");
    assert_eq!(fs::read(&file).unwrap(), b"text");
    for path in [dir.path().join("none"), photos] {
        let error = Log::open_existing(&path).map(drop).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, Some(path.as_path())));
    }
    assert!(!dir.path().join("none").exists());
}

/// The staging file is gone after an unclean stop, and with it what nobody can know: that is said, not guessed.
#[test]
fn staging_that_is_missing_after_an_unclean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    t(&log, TopicConfig::new()).append(Record::new("a")).unwrap();
    drop(log);
    let list = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
    let staging: Vec<_> = list.filter(|p| name(p).starts_with("staging-")).collect();
    assert_eq!(staging.len(), 1);
    let bytes = fs::read(&staging[0]).unwrap();
    fs::remove_file(&staging[0]).unwrap();
    for _ in 0..2 {
        let error = Log::open(dir.path()).map(drop).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::StagingMissing, Some(staging[0].as_path())));
    }
    // It turns up again: nothing was lost.
    fs::write(&staging[0], bytes).unwrap();
    let log = open(dir.path());
    let partition = t(&log, TopicConfig::new());
    assert_eq!(partition.reader(0).unwrap().try_next().unwrap().unwrap().value(), Some(&b"a"[..]));
}

// ---- disks that are full or cannot be written, in a child process of its own ------------------------------

const CHILD: &str = "TAPELOG_BAD_INPUT_CHILD";

/// Runs one of the tests below in a child, by `prefix`, with a directory; false where the machine cannot do it.
fn in_child(test: &str, prefix: &[&str], dir: &Path) -> bool {
    let program = std::env::current_exe().unwrap();
    let mut words: Vec<&std::ffi::OsStr> = prefix.iter().map(std::ffi::OsStr::new).collect();
    words.push(program.as_os_str());
    let output = std::process::Command::new(words[0])
        .args(&words[1..])
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, dir)
        .output();
    let Ok(output) = output else { return false };
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if !said.contains("the child is here") {
        println!("SKIPPED {test}: this machine cannot do {prefix:?}: {said}");
        return false;
    }
    assert!(output.status.success(), "{said}");
    true
}

fn child_dir() -> Option<PathBuf> {
    let dir = std::env::var_os(CHILD)?;
    println!("the child is here");
    Some(PathBuf::from(dir))
}

/// Runs what follows as root of a mount namespace of its own, after `mount`.
fn with_mount(test: &str, mount: &str, dir: &Path) -> bool {
    let script = format!("{} && exec \"$@\"", mount.replace("DIR", dir.to_str().unwrap()));
    in_child(test, &["unshare", "--mount", "--propagation", "private", "sh", "-ec", &script, "sh"], dir)
}

#[test]
fn a_directory_that_is_read_only() {
    if let Some(dir) = child_dir() {
        for place in [dir.join("log"), dir.join("new")] {
            let error = Log::open(&place).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error:?}");
            assert!(error.path().is_some_and(|p| p.starts_with(&dir)), "{error:?}");
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    written(&dir.path().join("log"), 30);
    let bind = "mount --bind DIR DIR && mount -o remount,bind,ro DIR";
    with_mount("a_directory_that_is_read_only", bind, dir.path());
    assert_eq!(readable(&t(&open(&dir.path().join("log")), TopicConfig::new())).0.len(), 30);
}

/// Appends until there is no room, and returns how many were accepted, and the error.
fn fill(partition: &Partition) -> Error {
    let patience = Instant::now() + SOON;
    loop {
        match partition.append(Record::new(&value(partition.end_offset()))) {
            Ok(_) => assert!(Instant::now() < patience, "the disk is never full"),
            Err(e) => return e,
        }
    }
}

#[test]
fn a_disk_that_is_full() {
    if let Some(dir) = child_dir() {
        let ballast = dir.join("ballast");
        fs::write(&ballast, vec![1; 4 << 20]).unwrap();
        let error = Log::open(dir.join("too large")).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
        assert!(error.path().is_some(), "{error:?}");
        let builder = || Log::builder().memory_budget(1 << 20).max_block(SOON);
        let log = builder().open(dir.join("log")).unwrap();
        let partition = t(&log, TopicConfig::new().segment_bytes(1 << 20));
        let error = fill(&partition);
        assert_eq!(
            (error.kind(), error.topic(), error.partition()),
            (ErrorKind::NoSpace, Some("t"), Some(0))
        );
        assert!(error.path().is_some(), "{error:?}");
        let accepted = partition.end_offset();
        assert_eq!(readable(&partition).0.len() as u64, accepted);
        // There is room again: appends succeed without reopening, and nothing is missing.
        fs::remove_file(&ballast).unwrap();
        let patience = Instant::now() + SOON;
        while partition.append(Record::new(&value(partition.end_offset()))).is_err() {
            assert!(Instant::now() < patience, "appends do not succeed again");
            std::thread::yield_now();
        }
        fill(&partition);
        let accepted = partition.end_offset();
        let closed = log.close(SOON);
        assert!(closed.is_ok() || closed.is_err_and(|e| e.kind() == ErrorKind::NoSpace));
        drop(partition);
        // It is full still: what cannot be replayed is kept for when there is room.
        match builder().open(dir.join("log")) {
            Ok(log) => assert_eq!(readable(&t(&log, TopicConfig::new())).0.len() as u64, accepted),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::NoSpace, "{e:?}");
                let resize =
                    std::process::Command::new("mount").args(["-o", "remount,size=64m"]).arg(&dir).status();
                assert!(resize.unwrap().success());
                let log = builder().open(dir.join("log")).unwrap();
                assert!(!log.recovery_report().has_losses());
                assert_eq!(readable(&t(&log, TopicConfig::new())).0.len() as u64, accepted);
            }
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    with_mount("a_disk_that_is_full", "mount -t tmpfs -o size=12m none DIR", dir.path());
}

/// Files may not grow beyond a limit, which for the writer is a full disk.
#[test]
#[cfg(target_os = "linux")]
fn a_limit_on_the_size_of_files() {
    fn limit(bytes: u64) {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the pointer is to a limit that lives through the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
    }
    if let Some(dir) = child_dir() {
        // SAFETY: to ignore a signal runs no code of ours.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let log = Log::builder().memory_budget(1 << 20).max_block(SOON).open(dir.join("log")).unwrap();
        let partition = t(&log, TopicConfig::new());
        limit(3 << 20);
        let error = fill(&partition);
        assert_eq!(
            (error.kind(), error.topic(), error.partition()),
            (ErrorKind::NoSpace, Some("t"), Some(0))
        );
        let accepted = partition.end_offset();
        assert_eq!(readable(&partition).0.len() as u64, accepted);
        limit(libc::RLIM_INFINITY);
        let patience = Instant::now() + SOON;
        while partition.append(Record::new(&value(partition.end_offset()))).is_err() {
            assert!(Instant::now() < patience, "appends do not succeed again");
            std::thread::yield_now();
        }
        drop((partition, log));
        let log = open(&dir.join("log"));
        assert_eq!(readable(&t(&log, TopicConfig::new())).0.len() as u64, accepted + 1);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    in_child("a_limit_on_the_size_of_files", &["env"], dir.path());
}

/// Many more partitions than there may be files open: all of them are written to, read, closed, and killed.
#[test]
#[cfg(target_os = "linux")]
fn many_partitions_live_on_few_descriptors() {
    const PARTITIONS: u32 = 300;
    const DESCRIPTORS: usize = 64;
    if let Some(dir) = child_dir() {
        let limit = libc::rlimit { rlim_cur: DESCRIPTORS as u64, rlim_max: DESCRIPTORS as u64 };
        // SAFETY: the pointer is to a limit that lives through the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        let config = TopicConfig::new().partitions(PARTITIONS);
        let all = |log: &Log| -> Vec<Partition> {
            let topic = log.ensure_topic("t", config.clone()).unwrap();
            (0..PARTITIONS).map(|number| topic.partition(number).unwrap()).collect()
        };
        let append = |partitions: &[Partition], offset: u64| {
            for partition in partitions {
                partition.append(Record::new(&value(offset))).unwrap();
            }
            for partition in partitions {
                partition.wait_written(offset + 1, SOON).unwrap();
            }
            let open = fs::read_dir("/proc/self/fd").unwrap().count();
            assert!(open < DESCRIPTORS, "{open} are open");
        };
        let check = |partitions: &[Partition], count: u64| {
            assert!(partitions.iter().all(|p| readable(p).0.len() as u64 == count));
        };
        let log = open(&dir.join("log"));
        let partitions = all(&log);
        append(&partitions, 0);
        append(&partitions, 1);
        check(&partitions, 2);
        log.sync().unwrap();
        assert!(partitions.iter().all(|p| p.durable_offset() == 2));
        drop(partitions);
        log.close(SOON).unwrap();

        let log = open(&dir.join("log"));
        let partitions = all(&log);
        check(&partitions, 2);
        append(&partitions, 2);
        // A reader that stands in a file goes on when it is deleted, though its descriptor was wanted elsewhere.
        let topic = log.create_topic("gone", TopicConfig::new().partitions(2)).unwrap();
        let gone = [0, 1].map(|number| topic.partition(number).unwrap());
        for offset in 0..2 {
            for partition in &gone {
                partition.append(Record::new(&value(offset))).unwrap();
                partition.wait_written(offset + 1, SOON).unwrap();
            }
        }
        drop((topic, gone, partitions, log));
        let log = open(&dir.join("log"));
        let (partitions, topic) = (all(&log), log.topic("gone").unwrap());
        let mut reader = topic.partition(0).unwrap().reader(0).unwrap();
        assert!(reader.try_next().unwrap().is_some());
        check(&partitions, 3);
        log.delete_topic("gone").unwrap();
        assert!(reader.try_next().unwrap().is_some_and(|r| r.value() == Some(&value(1)[..])));
        let unread = topic.partition(1).unwrap();
        let error = unread.reader(0).unwrap().try_next().map(drop).unwrap_err();
        assert_eq!((error.kind(), error.topic()), (ErrorKind::UnknownTopicOrPartition, Some("gone")));
        append(&partitions, 3);
        // As if it were killed: nothing is closed, and the next open goes on from the staging file.
        drop((reader, unread, topic, partitions, log));
        let log = open(&dir.join("log"));
        assert!(!log.recovery_report().has_losses());
        check(&all(&log), 4);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    in_child("many_partitions_live_on_few_descriptors", &["env"], dir.path());
}
