//! Files that once were worth a look, in `tests/corpus`: what fuzzing found new ways with, and honest ones to begin from.
//! Each is tried as it is, with its checksums made right, and with further changes. `tests/fuzz` looks for more of them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::damage::{Image, builder, closed, look, place};
use crate::hostile::{mutate, reseal_root, reseal_segment};
use crate::report::{Random, effort, run};

const ROOT_MAGIC: &[u8] = b"TAPELOG\0";
/// Nothing in the corpus is longer.
const MAX_LEN: u64 = 4096;

/// An honest log in which one file can be another.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    image: Image,
    /// The folder of topic "t", and its id.
    folder: PathBuf,
    id: u64,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let dir = place();
        let image = closed(dir.path());
        let folder = image.0.keys().find(|p| p.to_str().unwrap().contains("/t.")).unwrap().parent().unwrap();
        let (folder, name) = (folder.to_path_buf(), folder.parent().unwrap().to_str().unwrap());
        let id = u64::from_str_radix(name.rsplit_once('.').unwrap().1, 16).unwrap();
        Bench { dir, image, folder, id }
    }

    /// The place for `bytes`, a root file or a segment, and what they must say to be met there.
    fn fit(&self, bytes: &mut [u8], reseal: bool) -> Vec<PathBuf> {
        if bytes.starts_with(ROOT_MAGIC) {
            if reseal {
                reseal_root(bytes);
            }
            return ["root", "root.twin"].map(PathBuf::from).to_vec();
        }
        if reseal && bytes.len() >= 64 {
            bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
            bytes[24..40].fill(0);
            for at in (64..bytes.len().saturating_sub(160)).step_by(8) {
                if &bytes[at..at + 4] == b"TLB1" {
                    bytes[at + 24..at + 32].copy_from_slice(&self.id.to_le_bytes());
                }
            }
            reseal_segment(bytes, true);
        }
        vec![self.folder.join("00000000000000000000-000000.log")]
    }

    /// Has the log look at `bytes` in the place of an honest file; panics are the caller's to see.
    pub(crate) fn try_file(&self, bytes: &[u8], reseal: bool, open: bool) {
        let mut bytes = bytes.to_vec();
        let paths = self.fit(&mut bytes, reseal);
        paths.iter().for_each(|path| fs::write(self.dir.path().join(path), &bytes).unwrap());
        let _ = builder().verify(self.dir.path());
        if open {
            let _ = look(self.dir.path());
            let _ = builder().repair(self.dir.path());
            self.image.put(self.dir.path());
        } else {
            let good = |path: &PathBuf| fs::write(self.dir.path().join(path), &self.image.0[path]).unwrap();
            paths.iter().for_each(good);
        }
    }
}

#[cfg(test)]
fn seeds() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

/// Honest files to begin from: `TAPELOG_CORPUS=new` writes them.
#[cfg(test)]
fn sow() {
    use std::time::Duration;
    use tapelog::{Compression, Record, TopicConfig};
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    fs::create_dir_all(&folder).unwrap();
    let soon = Duration::from_secs(20);
    for compression in [Compression::None, Compression::Lz4, Compression::Snappy] {
        for shape in ["plain", "batch", "tombstones", "large", "times", "runs"] {
            let dir = place();
            let log = builder().open(dir.path()).unwrap();
            let config = TopicConfig::new().compression(compression).block_linger(Duration::ZERO);
            let partition = log.create_topic("t", config).unwrap().partition(0).unwrap();
            let text: Vec<String> =
                (0..40).map(|n| format!("{{\"px\":{},\"side\":\"buy\"}}", 100 + n % 7)).collect();
            for (n, text) in text.iter().enumerate().take(if shape == "plain" { 3 } else { 12 }) {
                let appended = match shape {
                    "plain" => partition.append(Record::new(text)),
                    "batch" => partition.append_batch(&text_records(text)),
                    "tombstones" => {
                        partition.append(Record::tombstone(text).headers(&[("h", b"v"), ("h", b"")]))
                    }
                    "large" => partition.append(Record::new(&vec![b'x'; 20_000]).key("k")),
                    "times" => partition.append(
                        Record::new(text).timestamp(tapelog::Timestamp::from_nanos(i64::MAX >> (n * 5))),
                    ),
                    _ => partition.append_batch(&vec![Record::new(&[0u8; 9_000][..]); 10]),
                };
                let end = appended.unwrap().offset() + 1;
                partition.wait_written(end, soon).unwrap();
            }
            log.close(soon).unwrap();
            let image = Image::of(dir.path());
            let path = image.0.keys().find(|p| p.to_str().unwrap().contains("/t.")).unwrap();
            let bytes = &image.0[path];
            fs::write(folder.join(format!("segment-{compression}-{shape}")), &bytes[..bytes.len().min(4096)])
                .unwrap();
        }
    }
    let image = closed(place().path());
    for (path, bytes) in &image.0 {
        let name = path.to_str().unwrap();
        if name == "root" || name.contains("/__") {
            let kind = if name == "root" {
                "root"
            } else if name.contains("__topics") {
                "topics"
            } else {
                "offsets"
            };
            fs::write(folder.join(format!("honest-{kind}")), bytes).unwrap();
        }
    }
}

#[cfg(test)]
fn text_records(text: &str) -> Vec<tapelog::Record<'_>> {
    (0..5).map(|_| tapelog::Record::new(text).key("key")).collect()
}

#[test]
fn the_corpus_again() {
    run("9 the corpus, and what is near it", |run| {
        if std::env::var("TAPELOG_CORPUS").is_ok_and(|v| v == "new") {
            sow();
        }
        let bench = Bench::new();
        let seeds = seeds();
        assert!(seeds.len() >= 20 && seeds.iter().all(|(_, bytes)| bytes.len() as u64 <= MAX_LEN));
        let tries = effort(if cfg!(debug_assertions) { 20 } else { 200 }, 10_000);
        for (path, seed) in &seeds {
            let mut random = Random::new(run.seed);
            for number in 0..tries {
                let mut bytes = seed.clone();
                if number > 1 {
                    mutate(&mut bytes, &mut random);
                }
                run.tally.cycles += 1;
                let (reseal, open) = (number > 0, number < 2 || random.one_in(20));
                let what = || format!("{} {number}", path.display());
                let _ = run.tally.guard(what, || bench.try_file(&bytes, reseal, open));
            }
        }
    });
}
