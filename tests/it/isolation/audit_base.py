"""Tries from inside of a task what isolation is to prevent, and prints a line for each attempt:
`name: yes`, `no`, or a value, and after `yes` or `no` what was seen.

Each attempt has a process of its own, and is harmless if it succeeds: what it would change is set to
what it is, or is undone, or it is made with arguments that the kernel refuses only *after* it has looked
at the rights (the errors listed as `reached`).
"""

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time

A = json.loads(sys.argv[1])
WORKER, TASK_INIT = A["worker"], os.getppid()
# The last one is the open directory itself.
INHERITED = [name for name in os.listdir("/proc/self/fd") if int(name) > 2][:-1]
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

# Numbers on x86_64 and on aarch64.
CALLS = {
    "bpf": (321, 280), "perf_event_open": (298, 241), "keyctl": (250, 219), "add_key": (248, 217),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "kexec_load": (246, 104),
    "finit_module": (313, 273), "reboot": (169, 142), "swapon": (167, 224), "setns": (308, 268),
    "clock_settime": (227, 112), "sethostname": (170, 161), "open_by_handle_at": (304, 265),
    "pivot_root": (155, 41), "chroot": (161, 51), "mount": (165, 40), "umount2": (166, 39),
    "unshare": (272, 97), "clone": (56, 220), "clone3": (435, 435), "syslog": (103, 116),
    "ptrace": (101, 117), "iopl": (172, None), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
}
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
DENIALS = (
    errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOENT, errno.ESRCH, errno.ENOSYS,
    errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.ECONNREFUSED,
    errno.EUSERS, errno.ENOSPC,
)

ATTEMPTS = []


def attempt(name):
    def register(function):
        ATTEMPTS.append((name, function))
        return function
    return register


def call(name, *arguments, reached=()):
    """A system call; an error that the kernel gives only to those who may is none."""
    number = name if isinstance(name, int) else CALLS[name][platform.machine() == "aarch64"]
    if number is None:
        raise OSError(errno.ENOSYS, "not on this architecture")
    words = [a if isinstance(a, (bytes, ctypes.Array)) else ctypes.c_long(a) for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result == -1 and ctypes.get_errno() not in reached:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def run(function):
    """What came of an attempt, in a process of its own."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            answer = function()
            answer = answer if isinstance(answer, str) else "yes"
        except OSError as error:
            name = errno.errorcode.get(error.errno, error.errno)
            answer = f"no {name}" if error.errno in DENIALS else f"broken {name}"
        except BaseException as error:
            answer = f"broken {error!r}"
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    _, status = os.waitpid(pid, 0)
    answer = os.read(read, 4096).decode()
    os.close(read)
    return answer or f"no {signal.Signals(os.WTERMSIG(status)).name}"


def of(pid, name):
    return f"/proc/{pid}/{name}"


def read(path):
    with open(path, "rb") as file:
        file.read(1)


def create(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(path)


def open_to_write(path):
    # Nothing is written, nor is the file made or truncated.
    os.close(os.open(path, os.O_WRONLY))


def opened(*arguments):
    socket.socket(*arguments).close()
