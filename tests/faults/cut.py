"""Cuts the power of file systems on images in one folder, and writes chosen pages of files to them before.

Takes the folder as its argument and a command per line; answers each with a line: `ok` and the time of the monotonic
clock in nanoseconds just before it was done, `refused` or `failed` and why.
"""

import fcntl
import mmap
import os
import struct
import sys
import time

SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN


class Refused(Exception):
    pass


def cut(folder, flag, path):
    """Detaches the file system at `path` from its disk: 2 as it is, 1 after its journal was written."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # All is asked of the open directory, so that it is what is cut.
        device = os.fstat(fd).st_dev
        if device == os.stat("/").st_dev:
            raise Refused("it is the root file system")
        if os.major(device) != 7:
            raise Refused("it is not on a loop device")
        name = "/sys/dev/block/%d:%d/loop/backing_file" % (os.major(device), os.minor(device))
        with open(name) as f:
            backing = f.read().rstrip("\n")
        if os.path.dirname(os.path.realpath(backing)) != os.path.realpath(folder):
            raise Refused("its image is not one of the test's")
        before = time.monotonic_ns()
        fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", int(flag)))
        return before
    finally:
        os.close(fd)


def sync(path, pages):
    """Writes these pages of a file to the disk, in this order, and no others."""
    before = time.monotonic_ns()
    fd = os.open(path, os.O_RDWR)
    try:
        with mmap.mmap(fd, 0) as whole:
            for page in pages.split(","):
                at = int(page) * mmap.PAGESIZE
                if at < len(whole):
                    whole.flush(at, min(mmap.PAGESIZE, len(whole) - at))
    finally:
        os.close(fd)
    return before


for line in sys.stdin:
    command, argument, path = line.rstrip("\n").split(" ", 2)
    try:
        before = cut(sys.argv[1], argument, path) if command == "cut" else sync(path, argument)
        answer = "ok %d" % before
    except Refused as e:
        answer = "refused: %s" % e
    except (OSError, ValueError) as e:
        answer = "failed: %s" % e
    print(answer, flush=True)
