//! Somebody exchanges a folder of the log with a link that leads out of it, all the time, while the log is used: nothing
//! outside is touched, and none of it is taken for records. A look before each use would not help, for what was looked at is
//! something else when it is used.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tapelog::{Error, ErrorKind, Partition, Record};

use crate::child::{Ended, here, run_child, told};
use crate::damage::{Image, SOON, builder, closed, place, value};
use crate::names::picture;
use crate::report::{Run, Tally, effort, run, run_since, skip};

/// What an exchanged folder may make of a call. What lies outside is not corrupt: it is not read.
const KINDS: [ErrorKind; 4] =
    [ErrorKind::ForeignFile, ErrorKind::Storage, ErrorKind::NotFound, ErrorKind::UnknownTopicOrPartition];

/// A log, the folder of it that is exchanged, and what is outside.
struct Scene {
    around: tempfile::TempDir,
    folder: PathBuf,
}

impl Scene {
    /// `depth` is how far below the directory the folder is: topics, a topic, a partition.
    fn new(image: &Image, depth: usize) -> Scene {
        let around = place();
        image.put(&around.path().join("log"));
        let segment = image.0.keys().find(|path| path.to_str().unwrap().contains("/t.")).unwrap();
        let relative: PathBuf = segment.iter().take(depth).collect();
        // Everything is there outside as well, by the same names.
        for path in image.0.keys().filter(|path| path.starts_with("topics")) {
            let path = around.path().join("outside").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "dear diary").unwrap();
        }
        symlink(around.path().join("outside").join(&relative), around.path().join("link")).unwrap();
        let folder = around.path().join("log").join(relative);
        Scene { around, folder }
    }

    fn log(&self) -> PathBuf {
        self.around.path().join("log")
    }

    fn exchange(&self) -> bool {
        let link = self.around.path().join("link");
        renameat_with(CWD, &self.folder, CWD, &link, RenameFlags::EXCHANGE).is_ok()
    }
}

/// What became of the calls.
#[derive(Default)]
struct Calls {
    errors: Vec<(&'static str, Error)>,
    done: u64,
    wrong: u64,
    /// The end of what was acknowledged, where anything was.
    acked: Option<u64>,
}

impl Calls {
    fn note<T>(&mut self, call: &'static str, result: tapelog::Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                self.done += 1;
                Some(value)
            }
            Err(e) => {
                self.errors.push((call, e));
                None
            }
        }
    }

    /// Appends over some rolls, flushes, reads, and deletes what is old.
    fn use_partition(&mut self, partition: &Partition) {
        for _ in 0..8 {
            let end = partition.end_offset();
            if self.note("append", partition.append(Record::new(&value(end)))).is_some() {
                self.acked = Some(end + 1);
            }
        }
        let (start, end) = (partition.start_offset(), partition.end_offset());
        self.note("wait", partition.wait_durable(end, Duration::from_secs(5)));
        self.note("delete records", partition.delete_records(start + (end - start) / 2));
        let Some(mut reader) = self.note("read", partition.reader(partition.start_offset())) else { return };
        while let Some(Some(record)) = self.note("read", reader.try_next()) {
            self.wrong += u64::from(record.value() != Some(&value(record.offset())[..]));
        }
    }

    /// Everything that a log is used for.
    fn use_log(&mut self, log_dir: &Path, deletes: bool) {
        self.note("verify", builder().verify(log_dir));
        if deletes {
            self.note("repair", builder().repair(log_dir));
        }
        let Some(log) = self.note("open", builder().open(log_dir)) else { return };
        // What is repaired may have been set aside.
        self.wrong += u64::from(!deletes && log.recovery_report().has_losses());
        let found = log.topic("t").and_then(|topic| topic.partition(0));
        if let Some(partition) = self.note("topic", found) {
            self.use_partition(&partition);
        }
        self.note("verify", log.verify());
        self.note("sync", log.sync());
        if deletes {
            self.note("delete", log.delete_topic("t"));
        }
        self.note("close", log.close(SOON));
    }
}

/// Uses a log whose folder is exchanged meanwhile; returns how often it was.
fn try_one(tally: &mut Tally, image: &Image, depth: usize, deletes: bool) -> u64 {
    let scene = Scene::new(image, depth);
    let outside = scene.around.path().join("outside");
    let before = picture(&outside);
    let what = || format!("depth {depth}, deletes: {deletes}");
    let (over, times) = (AtomicBool::new(false), AtomicU64::new(0));
    let used = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                times.fetch_add(u64::from(scene.exchange()), Ordering::Relaxed);
            }
        });
        let used = tally.guard(what, || {
            let mut calls = Calls::default();
            (0..3).for_each(|_| calls.use_log(&scene.log(), deletes));
            calls
        });
        over.store(true, Ordering::Relaxed);
        used
    });
    tally.cycles += 1;
    if picture(&outside) != before {
        tally.wrong(|| format!("{}: outside is not what it was", what()));
    }
    let Some(calls) = used else { return times.into_inner() };
    for (call, error) in calls.errors.iter().filter(|(_, error)| !KINDS.contains(&error.kind())) {
        tally.wrong(|| format!("{}: {call}: {error:?}", what()));
    }
    if calls.wrong > 0 {
        tally.wrong(|| format!("{}: wrong bytes, or a loss", what()));
    }
    if !deletes {
        // Put right, it has all that was acknowledged meanwhile.
        if fs::symlink_metadata(&scene.folder).unwrap().is_symlink() {
            assert!(scene.exchange());
        }
        check_all_there(tally, &scene.log(), calls.acked);
    }
    times.into_inner()
}

fn check_all_there(tally: &mut Tally, log_dir: &Path, acked: Option<u64>) {
    let log = match builder().open(log_dir) {
        Ok(log) => log,
        Err(e) => return tally.wrong(|| format!("put right, it does not open: {e:?}")),
    };
    let partition = log.topic("t").unwrap().partition(0).unwrap();
    let mut next = partition.start_offset();
    let mut reader = partition.reader(next).unwrap();
    while let Ok(Some(record)) = reader.try_next() {
        if (record.offset(), record.value()) != (next, Some(&value(next)[..])) {
            tally.wrong(|| format!("{} where {next} should be", record.offset()));
        }
        next = record.offset() + 1;
    }
    let acked = acked.unwrap_or_default();
    tally.acked += acked;
    tally.lost(acked.saturating_sub(next), || format!("acknowledged up to {acked}, there up to {next}"));
}

fn try_all(run: &mut Run, seconds: u64) {
    let origin = place();
    let image = closed(origin.path());
    let mut exchanged = 0;
    while run.has_time(seconds) {
        for depth in 1..=3 {
            for deletes in [false, true] {
                exchanged += try_one(&mut run.tally, &image, depth, deletes);
            }
        }
    }
    assert!(exchanged > run.tally.cycles, "{exchanged} exchanges in {} runs", run.tally.cycles);
}

/// Only what stood at a path's end was opened without following links; of the folders on the way it was looked at once
/// whether they are links, and then they were gone through by name.
#[test]
fn a_folder_exchanged_with_a_link_all_the_time() {
    run("26 a folder exchanged with a link, and back, all the time", |run| try_all(run, effort(2, 120)));
}

/// The same where there is no `openat2`: older kernels, and sandboxes that do not know it.
#[test]
fn the_same_without_openat2() {
    const TEST: &str = "26 the same where the kernel, or a sandbox, has no openat2";
    if let Some(dir) = here() {
        let denied = dir.to_str().unwrap().ends_with("denied");
        let errno = if denied { libc::EPERM } else { libc::ENOSYS };
        if let Err(e) = refuse(libc::SYS_openat2, errno) {
            return println!("no filter: {e}");
        }
        let refused = rustix::fs::openat2(
            CWD,
            "/",
            rustix::fs::OFlags::PATH,
            rustix::fs::Mode::empty(),
            rustix::fs::ResolveFlags::empty(),
        );
        assert_eq!(refused.unwrap_err().raw_os_error(), errno);
        run(TEST, |run| {
            try_all(run, effort(1, 30));
            println!("cycles={} acked={}", run.tally.cycles, run.tally.acked);
        });
        return;
    }
    let (dir, began) = (place(), std::time::Instant::now());
    let mut all = Vec::new();
    for name in ["missing", "denied"] {
        let dir = dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        match run_child("swaps::the_same_without_openat2", &[], &dir) {
            Ended::Never(why) => return skip(TEST, &why),
            Ended::Well(said) if said.contains("no filter") => {
                return skip(TEST, "no system call can be refused here");
            }
            ended => all.push(ended),
        }
    }
    run_since(began, TEST, |run| {
        for ended in all {
            match ended {
                Ended::Well(said) => {
                    run.tally.cycles += told(&said, "cycles");
                    run.tally.acked += told(&said, "acked");
                }
                Ended::Badly(said) | Ended::Never(said) => run.tally.wrong(|| said),
            }
        }
    });
}

/// Has the kernel answer a system call of this thread, and of those that it starts, with an error.
fn refuse(call: i64, errno: i32) -> std::io::Result<()> {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the number of the call
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls read their arguments only, and `program` and `filter` live until they have returned.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
