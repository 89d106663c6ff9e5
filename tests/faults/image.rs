//! A real file system on an image in a file, whose power can be cut.
//!
//! The image is attached to a loop device and mounted, which takes root, losetup, mkfs and python3. All of it goes with
//! the [`Image`], also when a test panics; what a test left that was killed goes when the next one begins.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::report::skip;

/// Every folder with images is called so, and then by the process that made it.
const PREFIX: &str = "tapelog-image-";
const MOUNTED: &str = "mounted";

/// The file systems that can be cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        }
    }

    /// What a mount may ask for, beside nothing: less order than usual.
    fn options(self) -> [Option<&'static str>; 2] {
        match self {
            Kind::Ext4 => [None, Some("data=writeback,noauto_da_alloc")],
            Kind::Xfs => [None, None],
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Kind::Ext4 => 128 << 20,
            Kind::Xfs => 300 << 20,
        }
    }

    fn make(self) -> Command {
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        match self {
            Kind::Ext4 => command.args(["-q", "-F", "-m", "0"]),
            Kind::Xfs => command.args(["-q", "-f"]),
        };
        command
    }
}

/// An image, mounted.
#[derive(Debug)]
pub(crate) struct Image {
    kind: Kind,
    file: PathBuf,
    device: String,
    mounted: PathBuf,
    cutter: Cutter,
    /// What lies beside the image, on a file system that is not cut.
    pub(crate) beside: PathBuf,
}

impl Image {
    /// A new file system; says loudly that `test` is skipped where there can be none.
    pub(crate) fn or_skip(test: &str, kind: Kind) -> Option<Image> {
        Image::with_options(kind, &[]).map_err(|why| skip(test, &why)).ok()
    }

    /// A new ext4 with blocks of `block` bytes on a disk that ends sooner than it promised: what is written behind `room`
    /// bytes fails, until there is room.
    ///
    /// The device ends there. An image on a full disk would not do: where there is room for the beginning of a write and not
    /// for all of it, a loop device (Linux 6.18) says that it was done.
    pub(crate) fn with_little_room_or_skip(test: &str, block: u32, room: u64) -> Option<Image> {
        // The journal before the end: it is the files that do not fit.
        let options = ["-b", &block.to_string(), "-J", "size=4,location=4M"];
        let image = Image::with_options(Kind::Ext4, &options).map_err(|why| skip(test, &why)).ok()?;
        image.resize(room);
        Some(image)
    }

    fn with_options(kind: Kind, options: &[&str]) -> Result<Image, String> {
        missing_tool(&[&format!("mkfs.{}", kind.name()), "losetup", "python3"])?;
        let beside = new_name();
        let mounted = beside.join(MOUNTED);
        std::fs::create_dir_all(&mounted).unwrap();
        let cutter = Cutter::new(&beside);
        let file = beside.join("image");
        // From here on everything goes with it, whatever happens.
        let mut image = Image { kind, file, device: String::new(), mounted, cutter, beside };
        File::create(&image.file).unwrap().set_len(kind.bytes()).unwrap();
        let made = kind.make().args(options).arg(&image.file).output().unwrap();
        assert!(made.status.success(), "mkfs: {}", String::from_utf8_lossy(&made.stderr));
        let attached = Command::new("losetup").args(["--find", "--show"]).arg(&image.file).output().unwrap();
        if !attached.status.success() {
            return Err("needs a loop device".into());
        }
        image.device = String::from_utf8_lossy(&attached.stdout).trim().to_owned();
        image.mount(0)?;
        Ok(image)
    }

    /// Gives the disk under the file system all that it promised.
    pub(crate) fn make_room(&self) {
        self.resize(self.kind.bytes());
    }

    /// Has the disk end behind so many bytes.
    fn resize(&self, bytes: u64) {
        File::options().write(true).open(&self.file).unwrap().set_len(bytes).unwrap();
        let told = Command::new("losetup").args(["--set-capacity", &self.device]).status().unwrap();
        assert!(told.success(), "cannot resize the disk");
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }

    fn mount(&self, options: u64) -> Result<(), String> {
        let options = self.kind.options()[options as usize % 2].map(|o| std::ffi::CString::new(o).unwrap());
        rustix::mount::mount(
            &self.device,
            &self.mounted,
            self.kind.name(),
            MountFlags::empty(),
            options.as_deref(),
        )
        .map_err(|e| format!("cannot mount {}: {e}", self.kind.name()))
    }

    /// Has the power go, with or without the file system's journal written before; says when, by the monotonic clock in
    /// nanoseconds.
    pub(crate) fn cut(&mut self, journal: bool) -> u64 {
        let mounted = self.mounted.clone();
        self.cutter.cut(&mounted, if journal { 1 } else { 2 }).unwrap()
    }

    /// Writes pages of a file to the disk, and no others.
    pub(crate) fn sync_pages(&mut self, file: &Path, pages: &[u64]) -> Result<u64, String> {
        let pages: Vec<String> = pages.iter().map(u64::to_string).collect();
        self.cutter.ask(&format!("sync {} {}", pages.join(","), file.display()))
    }

    /// Unmounts it, so that nothing is left of it but what is on its disk; false where something keeps it.
    fn unmount(&self) -> bool {
        let patience = Instant::now();
        loop {
            match rustix::mount::unmount(&self.mounted, UnmountFlags::empty()) {
                Ok(()) => break,
                // A process that was killed is on its way out.
                Err(Errno::BUSY) if patience.elapsed() < Duration::from_secs(5) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(Errno::BUSY) => return false,
                Err(e) => panic!("cannot unmount {}: {e}", self.mounted.display()),
            }
        }
        // Another mount namespace has a copy of every mount that there was when it began, those of other tests too. While it
        // lasts, the file system is in use there, and who mounts the device again gets the one whose power went.
        while !self.is_let_go() {
            if patience.elapsed() > Duration::from_secs(5) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Whether no file system has the device any more.
    fn is_let_go(&self) -> bool {
        let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
        !matches!(rustix::fs::open(&self.device, flags, Mode::empty()), Err(Errno::BUSY))
    }

    /// Turns the power on again; an odd number asks for less order than usual.
    pub(crate) fn remount(&mut self, options: u64) {
        if !self.unmount() {
            self.go_on_with_a_copy();
        }
        self.mount(options).unwrap();
    }

    /// Something still has a file of it open. What is on its disk is what a machine would find that starts now: a copy of that
    /// takes its place.
    fn go_on_with_a_copy(&mut self) {
        let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let open = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let open: Vec<PathBuf> = open.filter(|path| path.starts_with(&self.mounted)).collect();
        eprintln!("BUSY {}, goes on with a copy; this process has {open:?}", self.mounted.display());
        let _ = rustix::mount::unmount(&self.mounted, UnmountFlags::DETACH);
        let busy = self.file.with_extension("busy");
        std::fs::rename(&self.file, &busy).unwrap();
        let copied = Command::new("cp").arg("--sparse=always").args([&busy, &self.file]).status().unwrap();
        assert!(copied.success(), "cannot copy the image");
        let attached = Command::new("losetup").args(["--find", "--show"]).arg(&self.file).output().unwrap();
        assert!(attached.status.success(), "no loop device for the copy");
        self.device = String::from_utf8_lossy(&attached.stdout).trim().to_owned();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        remove(&self.beside);
    }
}

/// Refuses where one of the tools is not there, or this is not root.
pub(crate) fn missing_tool(tools: &[&str]) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root".into());
    }
    for tool in tools {
        let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
        if !found.is_ok_and(|found| found.status.success()) {
            return Err(format!("needs {tool}"));
        }
    }
    Ok(())
}

/// Where a test has its folder.
fn new_name() -> PathBuf {
    static ONCE: Once = Once::new();
    ONCE.call_once(remove_strays);
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    base().join(format!("{PREFIX}{}-{number}", std::process::id()))
}

/// A folder that files are mounted in, one after another, by loop devices of their own.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        let folder = Folder(new_name());
        std::fs::create_dir_all(folder.mounted()).unwrap();
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn mounted(&self) -> PathBuf {
        self.0.join(MOUNTED)
    }

    /// A file that another process may put a file system of its own over.
    pub(crate) fn shown(&self) -> PathBuf {
        self.0.join("image")
    }

    /// Takes that away.
    pub(crate) fn hide(&self) {
        let _ = rustix::mount::unmount(self.shown(), UnmountFlags::DETACH);
    }

    /// Mounts an image that lies in this folder. The loop device goes when it is unmounted.
    pub(crate) fn mount(&self, file: &Path) {
        assert_eq!(file.parent(), Some(self.path()), "not an image of the test's own");
        let mounted = Command::new("mount")
            .args(["-t", "ext4", "-o", "loop"])
            .args([file, &self.mounted()])
            .output()
            .unwrap();
        assert!(mounted.status.success(), "mount: {}", String::from_utf8_lossy(&mounted.stderr));
    }

    /// Takes off what is mounted, if anything is.
    pub(crate) fn unmount(&self) {
        let patience = Instant::now();
        while rustix::mount::unmount(self.mounted(), UnmountFlags::empty()) == Err(Errno::BUSY) {
            assert!(patience.elapsed() < Duration::from_secs(5), "{} is busy", self.0.display());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Memory where there is enough: no other work on the disk is waited for.
fn base() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |found| found.f_bavail * found.f_frsize);
    if room >= 2 << 30 { memory.to_path_buf() } else { std::env::temp_dir() }
}

/// Removes what tests left that did not end by themselves.
fn remove_strays() {
    let is_alive = |name: &str| {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        process.is_some_and(|process| Path::new("/proc").join(process).exists())
    };
    for entry in std::fs::read_dir(base()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && !is_alive(&name) {
            remove(&entry.path());
        }
    }
}

/// Unmounts and detaches an image, and removes it with all that lies beside it.
fn remove(beside: &Path) {
    let mounted = beside.join(MOUNTED);
    let _ = rustix::mount::unmount(&mounted, UnmountFlags::DETACH);
    for image in [beside.join("image"), beside.join("image.busy")] {
        let mut find = Command::new("losetup");
        let found = find.args(["--output", "NAME", "--noheadings", "--associated"]).arg(&image).output();
        let devices = found.map(|f| String::from_utf8_lossy(&f.stdout).into_owned()).unwrap_or_default();
        for device in devices.split_whitespace() {
            let _ = Command::new("losetup").args(["--detach", device]).status();
        }
    }
    let _ = rustix::mount::unmount(beside.join("image"), UnmountFlags::DETACH);
    // Not while anything is mounted in it: it is empty then, or stays.
    if !mounted.exists() || std::fs::remove_dir(&mounted).is_ok() {
        let _ = std::fs::remove_dir_all(beside);
    }
}

/// The process that cuts.
#[derive(Debug)]
struct Cutter {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Cutter {
    /// One that cuts only what lies on images in this folder.
    fn new(folder: &Path) -> Cutter {
        let mut process = Command::new("python3")
            .args(["-u", "-c", include_str!("cut.py")])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Cutter { process, commands, answers }
    }

    fn cut(&mut self, path: &Path, flag: u32) -> Result<u64, String> {
        self.ask(&format!("cut {flag} {}", path.display()))
    }

    fn ask(&mut self, command: &str) -> Result<u64, String> {
        writeln!(self.commands, "{command}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        match answer.trim().strip_prefix("ok ") {
            Some(time) => Ok(time.parse().unwrap()),
            None => Err(answer.trim().to_owned()),
        }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A test that cut the power of the machine itself would be the last one.
#[test]
fn only_what_the_test_made_is_cut() {
    let test = "3 only images of the test's own are cut";
    let Some(mut image) = Image::or_skip(test, Kind::Ext4) else { return };
    let refused = |cutter: &mut Cutter, path: &Path| cutter.cut(path, 2).unwrap_err();
    let cutter = &mut image.cutter;
    assert_eq!(refused(cutter, Path::new("/")), "refused: it is the root file system");
    assert_eq!(refused(cutter, Path::new("/proc")), "refused: it is not on a loop device");
    assert_eq!(refused(cutter, &image.beside.join("image"))[..6], *"failed", "it is not a directory");
    let beside = refused(cutter, &image.beside);
    assert!(beside.starts_with("refused: it is "), "{beside}");
    // A loop device, but somebody else's.
    let mut other = Cutter::new(Path::new("/"));
    assert_eq!(refused(&mut other, &image.mounted), "refused: its image is not one of the test's");
    std::fs::write(image.mounted.join("file"), "still there").unwrap();
    // Its own is, and then nothing can be written any more, nor is there what was not flushed.
    image.cut(false);
    assert!(std::fs::write(image.mounted.join("file"), "again").is_err());
    image.remount(0);
    assert!(!image.mounted.join("file").exists());
    let mounted = image.mounted.clone();
    drop(image);
    assert!(!mounted.exists(), "nothing is left");
}
