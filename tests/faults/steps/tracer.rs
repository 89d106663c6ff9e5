//! Steps all threads of a child, one at a time, and looks at the files after each step that may have changed them.
//!
//! Which thread goes on, and for how long, follows from a seed. A thread that sleeps in the kernel is let be until
//! it comes back from there.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::code::Code;
use super::files::Watch;
use crate::report::Random;

/// A call that the library never makes: with it the child says where the operation begins and ends.
const GETPPID: u64 = 110;
const FUTEX: u64 = 202;
const READ: u64 = 0;
/// Calls that wait for another thread, or for the orders of the parent.
const SLEEPING: &[u64] = &[FUTEX, READ];
/// Calls that change no file: reading, closing, flushing, memory's protection, signals, time, threads.
const HARMLESS: &[u64] = &[
    READ, 3, 5, 8, 10, 12, 13, 14, 17, 24, 28, 39, 73, 74, 75, 131, 138, 157, 186, FUTEX, 228, 230, 262, 273,
    306, 318, 332, 334,
];
const MAPS: &[u64] = &[9, 11, 25];

/// How a thread stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stand {
    Stopped,
    /// In the kernel, until somebody wakes it.
    Asleep,
}

/// What a step came to.
#[derive(Debug, PartialEq)]
enum Went {
    On,
    Asleep,
    Gone,
    /// The child said that its operation begins, or ends.
    Marked,
}

/// What was stepped.
#[derive(Debug, Default)]
pub(super) struct Stepped {
    pub(super) instructions: u64,
    pub(super) threads: usize,
    /// The state of the files when the operation had returned.
    pub(super) last: usize,
}

pub(super) struct Tracer {
    process: Pid,
    threads: BTreeMap<i32, Stand>,
    code: HashMap<u64, Code>,
    /// Mapped staging files: addresses, place in the file, and its name.
    maps: Vec<(u64, u64, u64, PathBuf)>,
    instructions: u64,
}

fn wait(thread: Option<Pid>, flags: WaitPidFlag) -> nix::Result<WaitStatus> {
    // Other tests have children too, of other threads.
    waitpid(thread, Some(flags | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD))
}

impl Tracer {
    /// Takes hold of all threads of a child.
    pub(super) fn seize(process: u32) -> nix::Result<Tracer> {
        let process = Pid::from_raw(process.cast_signed());
        let mut tracer = Tracer {
            process,
            threads: BTreeMap::new(),
            code: HashMap::new(),
            maps: Vec::new(),
            instructions: 0,
        };
        let options = Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
        loop {
            let before = tracer.threads.len();
            for entry in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
                let id: i32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
                if tracer.threads.contains_key(&id) {
                    continue;
                }
                let thread = Pid::from_raw(id);
                match ptrace::seize(thread, options) {
                    Ok(()) => {}
                    // It has just ended.
                    Err(Errno::ESRCH) if id != process.as_raw() => continue,
                    Err(e) => return Err(e),
                }
                ptrace::interrupt(thread)?;
                match wait(Some(thread), WaitPidFlag::empty())? {
                    WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..) => {
                        tracer.threads.insert(id, Stand::Stopped);
                    }
                    _ => {}
                }
            }
            if tracer.threads.len() == before {
                break;
            }
        }
        tracer.read_maps();
        Ok(tracer)
    }

    /// Steps until the child has said that its operation began, and on until it has said that it is over, and looks at
    /// the files as they change meanwhile. `None` where `goes_on` was over before.
    pub(super) fn step_all(
        mut self,
        watch: &mut Watch,
        random: &mut Random,
        goes_on: impl Fn() -> bool,
    ) -> Option<Stepped> {
        let mut begun = false;
        loop {
            self.collect(WaitPidFlag::WNOHANG);
            let ready: Vec<i32> =
                self.threads.iter().filter(|(_, s)| **s == Stand::Stopped).map(|(id, _)| *id).collect();
            if ready.is_empty() {
                self.collect(WaitPidFlag::empty());
                continue;
            }
            let thread = Pid::from_raw(ready[random.below(ready.len() as u64) as usize]);
            let most = if random.one_in(2) { 50 } else { 4_000 };
            let turn = 1 + random.below(most);
            for _ in 0..turn {
                match self.step(thread, watch, begun) {
                    Went::On => {}
                    Went::Asleep | Went::Gone => break,
                    Went::Marked if !begun => {
                        (begun, self.instructions) = (true, 0);
                        watch.look();
                    }
                    Went::Marked => {
                        watch.look();
                        let (instructions, threads) = (self.instructions, self.threads.len());
                        return Some(Stepped { instructions, threads, last: watch.current() });
                    }
                }
            }
            if !goes_on() {
                return None;
            }
        }
    }

    /// Hears of threads that came back from the kernel, or are new.
    fn collect(&mut self, flags: WaitPidFlag) {
        let mut flags = flags;
        loop {
            match wait(None, flags) {
                Ok(WaitStatus::StillAlive) => return,
                Ok(WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..)) => {
                    self.threads.remove(&thread.as_raw());
                    assert!(thread != self.process, "the child ended");
                }
                Ok(status) => {
                    let thread = self.stopped(&status);
                    self.threads.insert(thread.as_raw(), Stand::Stopped);
                }
                Err(Errno::EINTR) => {}
                Err(e) => panic!("waiting for the child: {e}"),
            }
            flags = WaitPidFlag::WNOHANG;
        }
    }

    /// The thread that stopped; for no other reason than ours.
    fn stopped(&self, status: &WaitStatus) -> Pid {
        match status {
            WaitStatus::Stopped(thread, Signal::SIGTRAP) | WaitStatus::PtraceEvent(thread, ..) => *thread,
            other => panic!("the child met {other:?}"),
        }
    }

    /// One instruction, or one round of one that repeats.
    fn step(&mut self, thread: Pid, watch: &mut Watch, begun: bool) -> Went {
        let registers = ptrace::getregs(thread).unwrap();
        // A call that was broken off when we took hold of the thread is made again; the kernel says so by its result.
        let again =
            registers.orig_rax.cast_signed() >= 0 && matches!(registers.rax.cast_signed(), -516..=-512);
        let code = match again {
            true => Code::SystemCall,
            false => self.code_at(thread, registers.rip),
        };
        let call = if again { registers.orig_rax } else { registers.rax };
        ptrace::step(thread, None).unwrap();
        self.instructions += 1;
        if code != Code::SystemCall {
            let status = wait(Some(thread), WaitPidFlag::empty()).unwrap();
            self.stopped(&status);
            if begun && let Some((place, off)) = code.place(&registers) {
                self.look(watch, place, off);
            }
            return Went::On;
        }
        loop {
            match wait(Some(thread), WaitPidFlag::WNOHANG) {
                Ok(WaitStatus::StillAlive) if SLEEPING.contains(&call) && is_asleep(self.process, thread) => {
                    self.threads.insert(thread.as_raw(), Stand::Asleep);
                    return Went::Asleep;
                }
                Ok(WaitStatus::StillAlive) => std::thread::yield_now(),
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => {
                    assert!(thread != self.process, "the child ended");
                    self.threads.remove(&thread.as_raw());
                    return Went::Gone;
                }
                Ok(status) => {
                    self.stopped(&status);
                    break;
                }
                Err(e) => panic!("waiting for a thread: {e}"),
            }
        }
        if call == GETPPID {
            return Went::Marked;
        }
        if MAPS.contains(&call) {
            self.read_maps();
        }
        if begun && !HARMLESS.contains(&call) {
            watch.look();
        }
        Went::On
    }

    fn look(&self, watch: &mut Watch, place: u64, off: u64) {
        for (from, to, at, name) in &self.maps {
            let (low, high) = (place.saturating_sub(off).max(*from), place.saturating_add(off).min(*to));
            if low < high {
                watch.look_at(name, (at + low - from) as usize, (at + high - from) as usize);
            }
        }
    }

    fn code_at(&mut self, thread: Pid, place: u64) -> Code {
        *self.code.entry(place).or_insert_with(|| {
            let mut bytes = [0; 16];
            for (n, word) in bytes.chunks_mut(8).enumerate() {
                // The last instruction of a mapping may be shorter than what is read.
                let read = ptrace::read(thread, (place as usize + 8 * n) as *mut _).unwrap_or(0);
                word.copy_from_slice(&read.to_le_bytes());
            }
            Code::of(&bytes)
        })
    }

    fn read_maps(&mut self) {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.process)).unwrap();
        let number = |word: &str| u64::from_str_radix(word, 16).unwrap();
        let staging = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = words.get(5)?.rsplit('/').next().filter(|name| name.starts_with("staging-"))?;
            let (from, to) = words[0].split_once('-')?;
            Some((number(from), number(to), number(words[2]), PathBuf::from(name)))
        };
        self.maps = maps.lines().filter_map(staging).collect();
    }
}

/// Whether a thread sleeps in the kernel.
fn is_asleep(process: Pid, thread: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/task/{thread}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
}

/// Ends a child whose threads may be stopped, and hears of all of them.
pub(super) fn end(mut child: std::process::Child) {
    child.kill().unwrap();
    while !matches!(wait(None, WaitPidFlag::empty()), Err(Errno::ECHILD)) {}
}
