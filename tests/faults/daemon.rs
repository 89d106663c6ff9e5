//! `qemu-storage-daemon`, which shows a disk as a file, with FUSE: one that writes down all that is done to it, or fails.
//!
//! A loop device makes a disk of that file, and nothing is ever mounted but files in the folder of the test.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::image::{Folder, missing_tool};

/// Refuses where it cannot be started.
pub(crate) fn missing() -> Result<(), String> {
    missing_tool(&["mkfs.ext4", "mount", "setpriv", "qemu-storage-daemon"])?;
    if Path::new("/dev/fuse").exists() { Ok(()) } else { Err("needs FUSE".into()) }
}

/// An empty disk of so many bytes: ext4 with blocks of a page.
pub(crate) fn make_disk(disk: &Path, bytes: u64) {
    File::create(disk).unwrap().set_len(bytes).unwrap();
    let made =
        Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-b", "4096"]).arg(disk).output().unwrap();
    assert!(made.status.success(), "mkfs: {}", String::from_utf8_lossy(&made.stderr));
}

/// How a file is called in what the daemon is told.
pub(crate) fn node(name: &str, file: &Path) -> String {
    format!("driver=file,filename={},node-name={name}", file.display())
}

/// The process; it is killed when it is no longer wanted.
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Shows what the last of these nodes, which is called `all` and has so many bytes, holds as [`Folder::shown`].
    pub(crate) fn start(folder: &Folder, nodes: &[String], bytes: u64) -> Result<Daemon, String> {
        let shown = folder.shown();
        drop(File::create(&shown).unwrap());
        let export = format!("type=fuse,id=shown,node-name=all,mountpoint={},writable=on", shown.display());
        // It goes with the test, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-storage-daemon"]);
        command.args(nodes.iter().flat_map(|node| ["--blockdev", node]));
        command.args(["--export", &export]).stdout(Stdio::null()).stderr(Stdio::piped());
        let daemon = command.spawn().map_err(|e| format!("cannot start qemu-storage-daemon: {e}"))?;
        let mut daemon = Daemon(daemon);
        while std::fs::metadata(&shown).map_or(0, |found| found.len()) != bytes {
            if daemon.0.try_wait().unwrap().is_some() {
                let mut why = String::new();
                let _ = std::io::Read::read_to_string(&mut daemon.0.stderr.take().unwrap(), &mut why);
                return Err(format!("qemu-storage-daemon: {}", why.trim().replace(['"', '\n'], " ")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(daemon)
    }

    /// Ends it, with all that was done to the disk.
    pub(crate) fn end(mut self, folder: &Folder) {
        folder.hide();
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
