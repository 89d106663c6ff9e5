//! Bytes of a file on a simulated disk: what there is, what was flushed, and what each page was in between.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

/// What reaches the disk as one, or not.
pub(crate) const PAGE: usize = 4096;
pub(crate) type Page = Arc<Sheet>;

/// The bytes of a page, and a digest of them once somebody has asked for it: states of a disk share most of their pages.
#[derive(Clone)]
pub(crate) struct Sheet {
    bytes: [u8; PAGE],
    digest: OnceLock<u128>,
}

impl Sheet {
    pub(crate) fn new(bytes: [u8; PAGE]) -> Self {
        Sheet { bytes, digest: OnceLock::new() }
    }

    /// A number that no other page has, as far as can be told by chance; 0 for zeros, which are as good as no page.
    pub(crate) fn digest(&self) -> u128 {
        *self.digest.get_or_init(|| {
            if self.bytes == [0; PAGE] {
                return 0;
            }
            let mut digest = Digest::default();
            let words = self
                .bytes
                .chunks_exact(8)
                .map(|word| word.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)));
            words.for_each(|word| digest.add(word));
            digest.finish()
        })
    }
}

impl Deref for Sheet {
    type Target = [u8; PAGE];

    fn deref(&self) -> &[u8; PAGE] {
        &self.bytes
    }
}

impl DerefMut for Sheet {
    fn deref_mut(&mut self) -> &mut [u8; PAGE] {
        self.digest = OnceLock::new();
        &mut self.bytes
    }
}

/// 128 bits that follow from a run of numbers. Against chance, not against an enemy.
#[derive(Default)]
pub(crate) struct Digest(u64, u64);

impl Digest {
    pub(crate) fn add(&mut self, word: u64) {
        // Two lanes, each one multiplication that loses nothing: both factors are odd.
        self.0 = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        self.1 = (self.1.rotate_left(31) ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ self.0 >> 32;
    }

    pub(crate) fn add_all(&mut self, number: u128) {
        self.add(number as u64);
        self.add((number >> 64) as u64);
    }

    pub(crate) fn finish(mut self) -> u128 {
        for _ in 0..3 {
            self.add(self.0 >> 31);
        }
        u128::from(self.0) << 64 | u128::from(self.1)
    }
}

/// Bytes of a file; pages that are not there are zeros.
#[derive(Clone, Default)]
pub(crate) struct Bytes {
    pub(crate) len: u64,
    pub(crate) pages: BTreeMap<u64, Page>,
}

impl Bytes {
    pub(crate) fn read(&self, out: &mut [u8], at: u64) -> usize {
        let end = self.len.min(at.saturating_add(out.len() as u64));
        let count = usize::try_from(end.saturating_sub(at)).unwrap_or(0);
        let mut done = 0;
        while done < count {
            let (page, from) = place(at + done as u64);
            let n = (PAGE - from).min(count - done);
            match self.pages.get(&page) {
                Some(bytes) => out[done..done + n].copy_from_slice(&bytes[from..from + n]),
                None => out[done..done + n].fill(0),
            }
            done += n;
        }
        count
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (last, from) = place(len);
            self.pages.retain(|page, _| *page < last || (*page == last && from > 0));
            if let Some(page) = self.pages.get_mut(&last) {
                Arc::make_mut(page)[from..].fill(0);
            }
        }
        self.len = len;
    }

    pub(crate) fn page(&self, number: u64) -> Page {
        self.pages.get(&number).map_or_else(|| Arc::new(Sheet::new([0; PAGE])), Arc::clone)
    }
}

pub(crate) fn place(at: u64) -> (u64, usize) {
    (at / PAGE as u64, (at % PAGE as u64) as usize)
}

/// What a file holds, and would hold.
#[derive(Default)]
pub(crate) struct Data {
    pub(crate) now: Bytes,
    pub(crate) flushed: Bytes,
    /// What pages that are not flushed were, after each write since they were.
    pub(crate) versions: BTreeMap<u64, Vec<Page>>,
    /// Where the bytes are that `now` was, once the file is mapped.
    pub(crate) mapped: Option<File>,
    /// Nobody wants to know what is stored to it once it is mapped.
    pub(crate) unwatched: bool,
}

impl Data {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Data { now: bytes.clone(), flushed: bytes, ..Data::default() }
    }

    pub(crate) fn write(&mut self, bytes: &[u8], at: u64) {
        self.now.len = self.now.len.max(at + bytes.len() as u64);
        let mut done = 0;
        while done < bytes.len() {
            let (number, from) = place(at + done as u64);
            let n = (PAGE - from).min(bytes.len() - done);
            let mut page = self.now.page(number);
            Arc::make_mut(&mut page)[from..from + n].copy_from_slice(&bytes[done..done + n]);
            self.versions.entry(number).or_default().push(Arc::clone(&page));
            self.now.pages.insert(number, page);
            done += n;
        }
    }

    /// Has `now` say what was stored to a mapped file.
    pub(crate) fn look(&mut self) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let Some(file) = &self.mapped else { return Ok(()) };
        self.now.len = file.metadata()?.len();
        let mut all = vec![0; usize::try_from(self.now.len).unwrap_or(0)];
        file.read_exact_at(&mut all, 0)?;
        for (number, part) in (0..).zip(all.chunks(PAGE)) {
            let same = match self.now.pages.get(&number) {
                Some(page) => page[..part.len()] == *part,
                None => *part == [0; PAGE][..part.len()],
            };
            if !same {
                let mut bytes = [0; PAGE];
                bytes[..part.len()].copy_from_slice(part);
                let page = Arc::new(Sheet::new(bytes));
                self.versions.entry(number).or_default().push(Arc::clone(&page));
                self.now.pages.insert(number, page);
            }
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.look()?;
        self.flushed = self.now.clone();
        self.versions.clear();
        Ok(())
    }
}
