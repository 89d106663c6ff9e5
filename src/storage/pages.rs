//! Bytes of a file on a simulated disk: what there is, what was flushed, and what each page was in between.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// What reaches the disk as one, or not.
pub(crate) const PAGE: usize = 4096;
pub(crate) type Page = Arc<[u8; PAGE]>;

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
        self.pages.get(&number).map_or_else(|| Arc::new([0; PAGE]), Arc::clone)
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
        let mut bytes = [0; PAGE];
        for number in 0..self.now.len.div_ceil(PAGE as u64) {
            let at = number * PAGE as u64;
            let len = PAGE.min(usize::try_from(self.now.len - at).unwrap_or(PAGE));
            file.read_exact_at(&mut bytes[..len], at)?;
            bytes[len..].fill(0);
            let same = match self.now.pages.get(&number) {
                Some(page) => **page == bytes,
                None => bytes == [0; PAGE],
            };
            if !same {
                let page = Arc::new(bytes);
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
