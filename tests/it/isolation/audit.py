# What is tried; `audit_base.py` comes before it.

# Processes.

attempt("signal the worker")(lambda: os.kill(WORKER, signal.SIGCONT))
attempt("signal the worker's helper that starts tasks")(lambda: os.kill(A["spawner"], signal.SIGCONT))
attempt("signal its task-init")(lambda: os.kill(TASK_INIT, signal.SIGCONT))
attempt("signal another task")(lambda: os.kill(A["other"], signal.SIGCONT))


def trace(pid):
    # PTRACE_SEIZE stops nothing, and this process's end undoes it.
    call("ptrace", 0x4206, pid, 0, 0)


attempt("trace the worker")(lambda: trace(WORKER))
attempt("trace its task-init")(lambda: trace(TASK_INIT))


@attempt("take an open file of the worker")
def _():
    call("pidfd_getfd", call("pidfd_open", WORKER, 0), 0, 0)


@attempt("set a limit of the worker, such as its CPU time")
def _():
    resource.prlimit(WORKER, resource.RLIMIT_CPU, resource.prlimit(WORKER, resource.RLIMIT_CPU))


@attempt("set the worker's priority")
def _():
    os.setpriority(os.PRIO_PROCESS, WORKER, os.getpriority(os.PRIO_PROCESS, WORKER))


@attempt("set the worker's place when memory runs out")
def _():
    with open(of(WORKER, "oom_score_adj"), "r+") as file:
        score = file.read()
        file.seek(0)
        file.write(score)


@attempt("set the worker's CPUs")
def _():
    os.sched_setaffinity(WORKER, os.sched_getaffinity(WORKER))


attempt("see the worker in /proc")(lambda: os.stat(of(WORKER, "")))
attempt("read the worker's environment")(lambda: read(of(WORKER, "environ")))
attempt("open the worker's memory")(lambda: open(of(WORKER, "mem"), "rb"))
attempt("read the worker's memory map")(lambda: read(of(WORKER, "maps")))
attempt("see the worker's open files")(lambda: bool(os.readlink(of(WORKER, "fd/0"))))
attempt("enter the worker's working directory")(lambda: os.chdir(of(WORKER, "cwd")))
attempt("enter the worker's root")(lambda: os.chdir(of(WORKER, "root")))
attempt("enter the root of its process 1")(lambda: os.chdir(of(1, "root")))
attempt("read another task's environment")(lambda: read(of(A["other"], "environ")))
attempt("read its task-init's environment")(lambda: read(of(TASK_INIT, "environ")))

# Files.

attempt("read a file of the worker's user alone (mode 0600)")(lambda: read(A["secret"]))
attempt("list a directory of the worker's user alone")(lambda: os.listdir(A["state"]))


attempt("write into a directory of the worker's user alone")(lambda: create(A["state"] + "/audit"))


@attempt("read in another task's work directory")
def _():
    return read(A["other_file"]) if A["other_file"] else "-"


attempt("write in /etc")(lambda: create("/etc/" + A["name"]))
attempt("write in /usr")(lambda: create("/usr/" + A["name"]))


attempt("open /proc/sys/kernel/core_pattern to write")(
    lambda: open_to_write("/proc/sys/kernel/core_pattern"))
attempt("open /proc/sysrq-trigger to write")(lambda: open_to_write("/proc/sysrq-trigger"))
attempt("open a switch in /sys to write")(
    lambda: open_to_write("/sys/kernel/mm/transparent_hugepage/enabled"))


@attempt("make a block device file")
def _():
    path = os.path.join(HERE, "device")
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 0))
    os.unlink(path)


@attempt("open files by handle")
def _():
    # struct file_handle of 8 bytes that fit no file.
    handle = ctypes.create_string_buffer(struct.pack("=Ii8s", 8, 1, b"\0" * 8))
    root = os.open("/", os.O_RDONLY)
    reached = (errno.ESTALE, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF)
    call("open_by_handle_at", root, handle, os.O_RDONLY, reached=reached)


# Its cgroup.

def join(cgroup):
    if not cgroup:
        return "-"
    # Moves this attempt's process alone.
    with open(cgroup + "/cgroup.procs", "w") as file:
        file.write("0")


def own_cgroup():
    with open("/proc/self/cgroup") as file:
        return next(line[3:].strip() for line in file if line.startswith("0::"))


attempt("leave its cgroup for the one above the worker's")(lambda: join(A["cgroup"]))
attempt("leave its cgroup for the host's root")(lambda: join(A["cgroup_root"]))


@attempt("raise a limit of its own cgroup")
def _():
    if "/task-" not in own_cgroup():
        return "-"
    directory = A["cgroup_root"] + own_cgroup()
    limits = [f"{directory}/{name}" for name in ("memory.max", "pids.max", "cgroup.max.descendants")]
    # The last one is there without controllers too.
    with open(next(path for path in limits if os.path.exists(path)), "w") as file:
        file.write("max")


@attempt("open `cgroup.kill` of the worker's cgroups to write")
def _():
    if not A["cgroup_workers"]:
        return "-"
    open_to_write(A["cgroup_workers"] + "/cgroup.kill")


# The kernel.

def privately():
    """A mount namespace, so that a mount that is allowed is seen by nobody. Where there is none, a path
    that isn't mounted: EINVAL then comes after the look at the rights."""
    try:
        call("unshare", CLONE_NEWNS)
        call("mount", b"none", b"/", 0, 1 << 18 | 1 << 14, 0)
        return b"/"
    except OSError:
        return b"/etc"


def mounts(flags, kind=b"tmpfs", on=None):
    on = on or HERE.encode()
    call("mount", b"/", on, kind, flags, 0, reached=(errno.EINVAL, errno.EBUSY))
    call("umount2", on, 2, reached=(errno.EINVAL, errno.EBUSY))


attempt("mount a tmpfs")(lambda: (privately(), mounts(0)))
attempt("make a bind mount")(lambda: (privately(), mounts(1 << 12)))


@attempt("mount / anew, writable")
def _():
    path = privately()
    call("mount", b"none", path, 0, 1 << 5 | 1 << 12, 0, reached=(errno.EINVAL,))


@attempt("unmount")
def _():
    privately()
    call("umount2", b"/etc", 0, reached=(errno.EINVAL,))


@attempt("change the root by pivot_root")
def _():
    privately()
    call("pivot_root", b"/etc", b"/etc", reached=(errno.EINVAL, errno.EBUSY))


attempt("change the root by chroot")(lambda: os.chroot("/"))

for name, flag in [
    ("user", CLONE_NEWUSER), ("mount", CLONE_NEWNS), ("pid", 0x20000000), ("ipc", 0x8000000),
    ("uts", 0x4000000), ("network", 0x40000000), ("cgroup", 0x2000000), ("time", 0x80),
]:
    attempt(f"make a {name} namespace")(lambda flag=flag: call("unshare", flag))


def child(pid):
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@attempt("make a user namespace by clone")
def _():
    child(call("clone", CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0))


@attempt("make a user namespace by clone3")
def _():
    arguments = struct.pack("=11Q", CLONE_NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    child(call("clone3", ctypes.create_string_buffer(arguments, 88), 88))


@attempt("join a namespace that is there")
def _():
    call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0x40000000)


attempt("load a bpf program or map")(
    lambda: call("bpf", 0, ctypes.create_string_buffer(struct.pack("=4I", 2, 4, 4, 1), 128), 128))


@attempt("measure by perf_event_open")
def _():
    # A software event, of this process, outside of the kernel.
    attributes = struct.pack("=IIQQQQQ", 1, 64, 0, 0, 0, 0, 1 << 5)
    call("perf_event_open", ctypes.create_string_buffer(attributes, 64), 0, -1, -1, 0)


attempt("look at the key ring of its session")(lambda: call("keyctl", 0, -3, 0, 0, 0, reached=(errno.ENOKEY,)))
attempt("add a key")(lambda: call("add_key", b"user", b"audit", b"x", 1, -2))
attempt("hold up the kernel by userfaultfd")(lambda: call("userfaultfd", os.O_CLOEXEC | 1))
attempt("set up io_uring")(lambda: call("io_uring_setup", 1, ctypes.create_string_buffer(120)))
attempt("load another kernel")(lambda: call("kexec_load", 0, 0, 0, 0xFF, reached=(errno.EINVAL,)))
attempt("load a kernel module")(lambda: call("finit_module", -1, b"", 0, reached=(errno.EBADF, errno.EINVAL)))
# Not with the magic numbers.
attempt("reboot")(lambda: call("reboot", 0, 0, 0, 0, reached=(errno.EINVAL,)))
attempt("add swap space")(lambda: call("swapon", b"/nowhere", 0, reached=(errno.ENOENT,)))


@attempt("set the clock")
def _():
    now = divmod(time.time_ns(), 1_000_000_000)
    call("clock_settime", 0, ctypes.create_string_buffer(struct.pack("=qq", *now)))


@attempt("set the host's name")
def _():
    name = socket.gethostname().encode()
    call("sethostname", name, len(name))


attempt("reach the hardware's ports by iopl")(lambda: call("iopl", 3))
# Its size only.
attempt("read the kernel's log")(lambda: call("syslog", 10, 0, 0))
attempt("call the kernel by an x32 number")(lambda: call(0x40000000 + 39))


@attempt("call the kernel as a 32-bit program")
def _():
    if platform.machine() != "x86_64":
        raise OSError(errno.ENOSYS, "not on this architecture")
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # mov eax, 20 (getpid); int 0x80; ret
    memory.write(bytes.fromhex("b814000000cd80c3"))
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    ctypes.CFUNCTYPE(ctypes.c_long)(address)()


# Sockets.

attempt("open a raw socket")(lambda: opened(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt("open a packet socket")(lambda: opened(socket.AF_PACKET, socket.SOCK_RAW))
attempt("use the kernel's cryptography (AF_ALG)")(lambda: opened(38, socket.SOCK_SEQPACKET))
attempt("reach the hypervisor (AF_VSOCK)")(lambda: opened(40, socket.SOCK_STREAM))
attempt("open netlink's ROUTE")(lambda: opened(16, socket.SOCK_RAW, 0))
attempt("open netlink's GENERIC")(lambda: opened(16, socket.SOCK_RAW, 16))
attempt("connect to an abstract unix socket of the host")(
    lambda: socket.socket(socket.AF_UNIX).connect("\0" + A["abstract"]))
attempt("connect to a unix socket file of the host that all may write")(
    lambda: socket.socket(socket.AF_UNIX).connect(A["socket"]))
attempt("connect to a port of the host's loopback")(
    lambda: socket.create_connection(("127.0.0.1", A["port"]), 5).close())

# Rights, limits and what is inherited.


def become(change, number):
    try:
        change(number)
    except OSError as error:
        # A user namespace has no such id.
        raise OSError(errno.EPERM if error.errno == errno.EINVAL else error.errno, "")


attempt("become root")(lambda: become(os.setuid, 0) if os.geteuid() else "-")
attempt("become root's group")(lambda: become(os.setgid, 0) if os.getegid() else "-")
attempt("become another user")(lambda: become(os.setuid, 12345))


@attempt("get root's rights by a set-user-id program")
def _():
    if os.geteuid() == 0:
        return "-"
    said = subprocess.run([A["setuid"], "-u"], capture_output=True, text=True).stdout.strip()
    return f"{'yes' if said == '0' else 'no'} {said}"


@attempt("raise a hard limit that was lowered")
def _():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard - 1))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except ValueError:
        return "no EPERM"


@attempt("raise its limit of core dumps")
def _():
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard == resource.RLIM_INFINITY:
        return "-"
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard + 1))
    except ValueError:
        return "no EPERM"


@attempt("be spared before the worker when memory runs out")
def _():
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(A["oom_score_adj"] - 1))


attempt("raise its priority")(lambda: os.setpriority(os.PRIO_PROCESS, 0, os.nice(0) - 5))


def status(field):
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(field + ":"))


def capabilities(field):
    # What the worker has is not the same everywhere.
    value = int(status(field), 16)
    return "none" if value == 0 else "the worker's" if value == A["capabilities"] else f"{value:x}"


for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]:
    attempt(f"`{field}`")(lambda field=field: capabilities(field))
for field in ["NoNewPrivs", "Seccomp", "Umask"]:
    attempt(f"`{field}`")(lambda field=field: status(field))
attempt("`oom_score_adj`")(lambda: open("/proc/self/oom_score_adj").read().strip())
attempt("has the worker's variables")(lambda: "yes" if any(n.startswith("NATS_") for n in os.environ) else "no")


attempt("has open files of the worker")(lambda: "yes" if INHERITED else "no")


# What is looked at from outside: files on the host, and a daemon that does all it can to stay.

def leave_behind():
    for path in A["leave"]:
        try:
            open(path, "w").close()
        except OSError:
            pass
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    libc.prctl(1, 0)  # PR_SET_PDEATHSIG
    for cgroup in (A["cgroup"], A["cgroup_root"]):
        try:
            join(cgroup)
        except OSError:
            pass
    for descriptor in range(3):
        os.close(descriptor)
    time.sleep(600)
    os._exit(0)


HERE = tempfile.mkdtemp(prefix="audit-", dir=os.getcwd() if A["work_dir"] else None)
for name, function in ATTEMPTS:
    print(f"{name}: {run(function)}", flush=True)
os.rmdir(HERE)
if A["leave"]:
    leave_behind()

# Only where nothing of the host can be seen; who does it lives on.
if A["kill_all"]:
    with open("/proc/1/comm") as file:
        alone = file.read() == "runlane-init\n" and not os.path.exists(of(WORKER, ""))
    if alone:
        try:
            os.kill(-1, signal.SIGKILL)
        except OSError:
            pass
        print("killed", flush=True)
