//! Names, links, pipes, devices and permissions: what is in the place of a file is not taken for one, no call waits for
//! it, and nothing outside the log's directory is touched, which a picture of the surroundings proves.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use tapelog::{Error, ErrorKind, Log, Record, TopicConfig};

use crate::child::{Ended, here, run_child};
use crate::damage::{Image, builder, closed, killed, place, value};
use crate::report::{Tally, run, run_since, skip};

/// A call that takes longer waits for something that never comes.
const HANG: Duration = Duration::from_secs(30);

/// Everything below a directory but the log: kinds, modes, names of links, bytes, and when the bytes last changed.
pub(crate) fn picture(around: &Path) -> BTreeMap<PathBuf, String> {
    fn look(dir: &Path, log: &Path, into: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path == log {
                continue;
            }
            let m = fs::symlink_metadata(&path).unwrap();
            let kind = m.file_type();
            let bytes = if kind.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            let leads = fs::read_link(&path).unwrap_or_default();
            let changed = if kind.is_dir() || kind.is_file() { (m.mtime(), m.mtime_nsec()) } else { (0, 0) };
            let said = format!(
                "{:o} {changed:?} {} {:08x} {}",
                m.mode(),
                m.len(),
                crc32fast::hash(&bytes),
                leads.display()
            );
            into.insert(path.clone(), said);
            if kind.is_dir() {
                look(&path, log, into);
            }
        }
    }
    let mut all = BTreeMap::new();
    look(around, &around.join("log"), &mut all);
    all
}

/// What stands in the place of a file or folder of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plant {
    /// A link to the very file or folder, which lies outside now.
    LinkToIt,
    /// A link to somebody's file.
    LinkToOther,
    /// A link to a name that is free.
    LinkToNothing,
    /// The very file, which has another name outside.
    HardLink,
    Pipe,
    Socket,
    /// `/dev/zero`, which never ends, by another name.
    Device,
    Folder,
}

const PLANTS: [Plant; 8] = [
    Plant::LinkToIt,
    Plant::LinkToOther,
    Plant::LinkToNothing,
    Plant::HardLink,
    Plant::Pipe,
    Plant::Socket,
    Plant::Device,
    Plant::Folder,
];

/// Puts `plant` where `path` is, or would be; false where this machine cannot.
fn put(plant: Plant, path: &Path, outside: &Path) -> bool {
    let kept = outside.join("it");
    let there = path.symlink_metadata().is_ok();
    if there && plant == Plant::HardLink {
        return fs::hard_link(path, kept).is_ok();
    }
    if there {
        fs::rename(path, &kept).unwrap();
    }
    let node = |kind, device| mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, device).is_ok();
    match plant {
        Plant::LinkToIt => there && symlink(kept, path).is_ok(),
        Plant::LinkToOther => symlink(outside.join("diary"), path).is_ok(),
        Plant::LinkToNothing => symlink(outside.join("nothing"), path).is_ok(),
        Plant::HardLink => false,
        Plant::Pipe => node(FileType::Fifo, 0),
        Plant::Socket => std::os::unix::net::UnixListener::bind(path).is_ok(),
        Plant::Device => node(FileType::CharacterDevice, makedev(1, 5)),
        Plant::Folder => fs::create_dir(path).is_ok(),
    }
}

/// What such a place may make of a call: one of these, and not a word about anything else.
fn check_error(tally: &mut Tally, what: &str, call: &str, error: &Error) {
    let kinds = [
        ErrorKind::ForeignFile,
        ErrorKind::CorruptRecord,
        ErrorKind::StagingMissing,
        ErrorKind::Storage,
        ErrorKind::NotFound,
        // What said that there is a topic is gone.
        ErrorKind::UnknownTopicOrPartition,
        ErrorKind::ReadOnly,
    ];
    if !kinds.contains(&error.kind()) {
        tally.wrong(|| format!("{what}: {call}: {error:?}"));
    }
}

/// Everything that a log can be asked to do; returns the errors, each with the call that had it.
fn use_all(log_dir: &Path) -> (Vec<(&'static str, Error)>, u64) {
    let (mut errors, mut wrong) = (Vec::new(), 0);
    let mut note = |call, result: tapelog::Result<()>| errors.extend(result.err().map(|e| (call, e)));
    note("verify", builder().verify(log_dir).map(drop));
    for call in ["open", "open after repair"] {
        match builder().open(log_dir) {
            Err(e) => note(call, Err(e)),
            Ok(log) => {
                if let Ok(partition) = log.topic("t").and_then(|t| t.partition(0)) {
                    let mut reader = partition.reader(partition.start_offset()).unwrap();
                    while let Ok(Some(record)) = reader.try_next() {
                        wrong += u64::from(record.value() != Some(&value(record.offset())[..]));
                    }
                    for _ in 0..8 {
                        let end = partition.end_offset();
                        note("append", partition.append(Record::new(&value(end))).map(drop));
                    }
                    let end = partition.end_offset();
                    note("wait", partition.wait_durable(end, Duration::from_secs(5)).map(drop));
                }
                note("create", log.ensure_topic("u", TopicConfig::new()).map(drop));
                note("sync", log.sync());
                if call == "open after repair" {
                    note("delete", log.delete_topic("t"));
                }
                note("close", log.close(Duration::from_secs(5)));
            }
        }
        note("repair", builder().repair(log_dir).map(drop));
    }
    (errors, wrong)
}

/// Uses a log in which something is not what it should be.
fn try_one(tally: &mut Tally, around: &Path, what: &str) {
    let before = picture(around);
    tally.cycles += 1;
    let (log_dir, (told, used)) = (around.join("log"), channel());
    std::thread::spawn(move || {
        let used = std::panic::catch_unwind(|| use_all(&log_dir));
        let _ = told.send(used);
    });
    match used.recv_timeout(HANG) {
        Err(_) => tally.wrong(|| format!("{what}: hangs")),
        Ok(Err(_)) => {
            let _ = tally.guard(|| what.to_owned(), || panic!("panicked"));
        }
        Ok(Ok((errors, wrong))) => {
            errors.iter().for_each(|(call, e)| check_error(tally, what, call, e));
            if wrong > 0 {
                tally.wrong(|| format!("{what}: wrong bytes"));
            }
        }
    }
    let after = picture(around);
    if after != before {
        let differs = |(path, said): &(&PathBuf, &String)| before.get(*path) != Some(*said);
        let changed: Vec<_> = after.iter().filter(differs).collect();
        let gone: Vec<_> = before.keys().filter(|path| !after.contains_key(*path)).collect();
        tally.wrong(|| format!("{what}: outside changed {changed:?}, and is gone {gone:?}"));
    }
}

/// Every file and folder of the log, and names that it will want, by something else in its place.
#[test]
fn what_stands_in_the_place_of_a_file() {
    run("26 links, pipes, devices and folders in the place of every file", |run| {
        let origin = place();
        let mut places: Vec<PathBuf> = closed(origin.path()).0.into_keys().collect();
        let folders: Vec<PathBuf> =
            places.iter().flat_map(|p| p.ancestors().skip(1)).map(Path::to_path_buf).collect();
        places.extend(folders.into_iter().filter(|p| p != Path::new("")));
        let partition =
            places.iter().find(|p| p.starts_with("topics") && p.to_str().unwrap().contains("/t.")).unwrap();
        let partition = partition.parent().unwrap().to_path_buf();
        places.extend(
            ["root.tmp", "root.twin.tmp", "quarantine", "staging-0000000000000001-000"].map(PathBuf::from),
        );
        places.push(partition.join("00000000000000000012-000000.log"));
        places.push(partition.join("00000000000000000004-000000.log.tmp"));
        places.sort();
        places.dedup();
        for unclean in [false, true] {
            for relative in &places {
                for plant in PLANTS {
                    let around = place();
                    let (log_dir, outside) = (around.path().join("log"), around.path().join("outside"));
                    fs::create_dir(&outside).unwrap();
                    fs::write(outside.join("diary"), "dear diary").unwrap();
                    // Topics have other ids each time: the same image for all.
                    if unclean {
                        Image::of(origin.path()).put(&log_dir);
                        let log = builder().open(&log_dir).unwrap();
                        log.topic("t")
                            .unwrap()
                            .partition(0)
                            .unwrap()
                            .append(Record::new(&value(12)))
                            .unwrap();
                    } else {
                        Image::of(origin.path()).put(&log_dir);
                    }
                    if put(plant, &log_dir.join(relative), &outside) {
                        let what = format!("{plant:?} for {}, unclean: {unclean}", relative.display());
                        try_one(&mut run.tally, around.path(), &what);
                    }
                }
            }
        }
    });
}

/// The staging file that a kill left, and the folder that it was asked to lie in.
#[test]
fn staging_that_is_something_else() {
    run("26 links, pipes, devices and folders in the place of staging", |run| {
        // A second name of the staging file is one of the log's own: it takes back there what an open is to believe once,
        // which costs who opens a copy that shares the file a longer look.
        for plant in PLANTS.into_iter().filter(|plant| *plant != Plant::HardLink) {
            let around = place();
            let (log_dir, outside) = (around.path().join("log"), around.path().join("outside"));
            fs::create_dir(&outside).unwrap();
            fs::write(outside.join("diary"), "dear diary").unwrap();
            killed(&log_dir, 3);
            let files = fs::read_dir(&log_dir).unwrap().map(|e| e.unwrap().path());
            let staging = files.filter(|p| p.to_str().unwrap().contains("/staging-")).collect::<Vec<_>>();
            if put(plant, &staging[0], &outside) {
                try_one(&mut run.tally, around.path(), &format!("{plant:?} for staging"));
            }
        }
    });
}

/// Paths that are no paths, and names that are no names.
#[test]
fn names_that_lead_elsewhere() {
    run("26 names that lead elsewhere, or nowhere", |run| {
        let around = place();
        let outside = around.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("diary"), "dear diary").unwrap();
        let log_dir = around.path().join("log");
        let log = builder().open(&log_dir).unwrap();
        let before = picture(around.path());
        let long = "x".repeat(300);
        let names = [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\0b",
            "/etc",
            "../outside/diary",
            "Börse",
            "株",
            "a b",
            "a\nb",
            &long,
        ];
        for name in names {
            run.tally.cycles += 1;
            let error = log.create_topic(name, TopicConfig::new()).map(drop).unwrap_err();
            if error.kind() != ErrorKind::InvalidTopic {
                run.tally.wrong(|| format!("topic {name:?}: {error:?}"));
            }
            // Names of groups are keys, and never names of files.
            if let Ok(group) = log.consumer_group(name) {
                let _ = group.committed(&tapelog::TopicPartition::new(name, 0));
            }
        }
        log.close(Duration::from_secs(5)).unwrap();
        for name in ["a\0b", &long, &format!("{}/{long}", "x".repeat(200))] {
            for staging in [false, true] {
                run.tally.cycles += 1;
                let path = log_dir.join(name);
                let opened = match staging {
                    false => builder().open(&path),
                    true => builder().staging(&path).open(&log_dir),
                };
                let error = opened.map(drop).unwrap_err();
                if !matches!(
                    error.kind(),
                    ErrorKind::Storage | ErrorKind::NotFound | ErrorKind::InvalidArgument
                ) {
                    run.tally.wrong(|| format!("{name:?}: {error:?}"));
                }
            }
        }
        // What an owner may do: a directory by any name, and over a link of his own.
        symlink(&log_dir, around.path().join("log").with_file_name("by-link")).unwrap();
        for name in ["by-link", "log/../log", "log/."] {
            run.tally.cycles += 1;
            drop(Log::builder().memory_budget(256 << 10).open(around.path().join(name)).unwrap());
        }
        fs::remove_file(around.path().join("by-link")).unwrap();
        let strange = around.path().join("log/Börse 株 \u{1F4C8}");
        drop(Log::builder().memory_budget(256 << 10).open(&strange).unwrap());
        if picture(around.path()).keys().ne(before.keys()) {
            run.tally.wrong(|| "something outside was made".into());
        }
    });
}

/// What the log makes is its owner's alone, whatever mask the process has.
#[test]
fn modes_of_what_is_made() {
    const TEST: &str = "26 modes of what is made";
    if let Some(dir) = here() {
        drop(closed(&dir.join("log")));
        killed(&dir.join("killed"), 2);
        let mut folders = vec![dir.join("log"), dir.join("killed")];
        let (mut seen, mut bad) = (0, Vec::new());
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).chain([folder.clone()]) {
                let m = fs::symlink_metadata(&path).unwrap();
                seen += 1;
                if m.is_dir() && path != folder {
                    folders.push(path.clone());
                }
                if m.permissions().mode() & 0o7777 != if m.is_dir() { 0o700 } else { 0o600 } {
                    bad.push(path);
                }
            }
        }
        println!("seen={seen}");
        assert!(bad.is_empty(), "others may look into {bad:?}");
        return;
    }
    let (dir, began) = (place(), Instant::now());
    match run_child("names::modes_of_what_is_made", &["sh", "-c", "umask 0; exec \"$@\"", "sh"], dir.path()) {
        Ended::Never(why) => skip(TEST, &why),
        ended => run_since(began, TEST, |run| match ended {
            Ended::Well(said) => run.tally.cycles = crate::child::told(&said, "seen"),
            Ended::Badly(said) | Ended::Never(said) => run.tally.wrong(|| said),
        }),
    }
}

/// Files that may not be read: as a user who is not root, to whom modes mean nothing.
#[test]
fn what_may_not_be_read() {
    const TEST: &str = "26 files and folders of mode 0000, as another user";
    const UID: u32 = 65_534;
    if let Some(dir) = here() {
        let mut tally = Tally::default();
        let image = Image::of(&dir.join("origin"));
        let mut places: Vec<PathBuf> = image.0.keys().cloned().collect();
        let folders =
            places.iter().flat_map(|p| p.ancestors().skip(1)).map(Path::to_path_buf).collect::<Vec<_>>();
        places.extend(folders);
        places.sort();
        places.dedup();
        for relative in places {
            let around = dir.join("around");
            fs::create_dir(&around).unwrap();
            image.put(&around.join("log"));
            let path = around.join("log").join(relative);
            let mode = fs::metadata(&path).unwrap().permissions();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
            let refused = builder().open(around.join("log")).map(drop);
            // Whatever is in the way now: with the right to read it, everything is there.
            try_one(&mut tally, &around, &format!("mode 0000 for {}: {refused:?}", path.display()));
            fs::set_permissions(&path, mode).unwrap();
            fs::remove_dir_all(&around).unwrap();
        }
        println!("cycles={}", tally.cycles);
        assert!(tally.panics + tally.wrong == 0, "{tally:?}");
        return;
    }
    let (dir, began) = (tempfile::tempdir().unwrap(), Instant::now());
    let image = closed(&dir.path().join("origin"));
    assert!(!image.0.is_empty());
    if let Err(e) = give(dir.path(), UID) {
        return skip(TEST, &format!("not root: {e}"));
    }
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    match run_child("names::what_may_not_be_read", &user, dir.path()) {
        Ended::Never(why) => skip(TEST, &why),
        ended => run_since(began, TEST, |run| match ended {
            Ended::Well(said) => run.tally.cycles = crate::child::told(&said, "cycles"),
            Ended::Badly(said) | Ended::Never(said) => run.tally.wrong(|| said),
        }),
    }
}

/// Makes a directory and what is in it another user's.
fn give(path: &Path, uid: u32) -> std::io::Result<()> {
    std::os::unix::fs::chown(path, Some(uid), Some(uid))?;
    let m = fs::symlink_metadata(path)?;
    assert!(!m.file_type().is_char_device());
    if m.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), uid)?;
        }
    }
    Ok(())
}
