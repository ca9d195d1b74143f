"""What a host has no more of for its launcher, told from the launcher's own faults."""

import errno

#: What is said, by an error's number.
_SAID = {
    errno.EMFILE: "has too many files open (ulimit -n)",
    errno.ENFILE: "has too many files open, as this host has (fs.file-max)",
    errno.EAGAIN: "may start no more processes (ulimit -u, or pids of its cgroup)",
    errno.ENOMEM: "gets no more memory (ulimit -v, or memory of its cgroup)",
}
#: How Python says that it got no thread.
NO_THREAD = "can't start new thread"


def find_shortage(error: BaseException) -> str:
    """What is short where something failed with this error, "" for another cause.

    >>> find_shortage(OSError(errno.EMFILE, "Too many open files"))
    'the launcher has too many files open (ulimit -n); raise that limit, or end others'
    >>> find_shortage(ValueError("4"))
    ''
    """
    said = ""
    if isinstance(error, OSError):
        said = _SAID.get(error.errno or 0, "")
    elif isinstance(error, MemoryError):
        said = _SAID[errno.ENOMEM]
    elif isinstance(error, RuntimeError) and NO_THREAD in str(error):
        said = "gets no more threads (ulimit -u or -v, or pids of its cgroup)"
    return f"the launcher {said}; raise that limit, or end others" if said else ""
