"""The only owner of engine processes: starts, watches, adopts and ends them.

An engine leads a session and a process group of its own: a Ctrl-C at the launcher does
not reach it, and what it leaves behind can be found. Its processes are those of
its group, their children, and whoever carries its mark in the environment.

An engine in a container is the client (``docker run``) that waits for it, and all that
is in the container, which outlives a client that is killed.
"""

import errno
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psutil

from launcher import environments
from launcher.engine_types import Launch
from launcher.host import containers
from launcher.host.logs import bound
from launcher.host.process_environment import environment_of
from modelserver.births import Birth, find_birth, has_ended, present_moment
from modelserver.errors import ConfigurationError

#: An environment variable with the same random value in all processes of one start.
MARK = "MODELSERVER_ENGINE_MARK"
#: An environment variable with the run folder of the launcher that started it.
RUN = "MODELSERVER_ENGINE_RUN"
#: Variables that every engine gets on top of its own.
ENGINE_VARIABLES = {
    # Engines rename their processes; without this that overwrites the mark.
    "SPT_NOENV": "1",
    # A log that is read while the engine lives.
    "PYTHONUNBUFFERED": "1",
}
#: Errors of a program that stay, unlike a disk or memory that is not there now.
LASTING_ERRORS = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR),
        *(errno.E2BIG, errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG),
    }
)
#: Seconds by which two readings of one process's epoch time may differ.
CLOCK_SLACK_SECONDS = 2.0
#: Clock ticks by which a process may seem older than the moment before its start.
BIRTH_SLACK_TICKS = 2

#: Titles of the processes that SGLang and vLLM cannot do without; compilers and helpers
#: come and go under others.
VITAL_TITLES = re.compile(r"sglang::|VLLM::")
#: The variables that name what is asked without a proxy; libraries read one or other.
NO_PROXY = ("no_proxy", "NO_PROXY")
#: This host, as its own engines call it.
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Identity:
    """An engine's first process; its birth tells it from later ones."""

    #: 0 before it is known.
    pid: int
    #: An epoch time; the versions before knew a process by it.
    created: float
    #: Random, and in the environment of all of its children.
    mark: str
    #: The program that runs its container, "" for no container.
    runtime: str = ""
    #: This host's pid of the first process in the container, 0 where it is not known.
    inner_pid: int = 0
    inner_created: float = 0.0
    #: When it began; before it is known, when it was about to.
    birth: Birth = field(default_factory=Birth)
    inner_birth: Birth = field(default_factory=Birth)

    @property
    def container(self) -> str:
        """The name of its container, "" where it has none."""
        return containers.container_name(self.mark) if self.runtime else ""

    @property
    def core(self) -> int:
        """The pid of the process of which the engine's others are children."""
        return self.inner_pid or self.pid

    @property
    def head_lives(self) -> bool:
        """Whether its first process lives."""
        return is_alive(self.pid, self.birth, self.created)

    @property
    def inner_lives(self) -> bool:
        """Whether the first process of its container is known and lives."""
        known = self.inner_pid > 0
        return known and is_alive(self.inner_pid, self.inner_birth, self.inner_created)


@dataclass(frozen=True, slots=True)
class VitalProcess:
    """A process that an engine cannot do without."""

    pid: int
    birth: Birth
    title: str


class EngineProcess:
    """One started or adopted engine with all of its processes."""

    def __init__(
        self, identity: Identity, popen: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        self.identity = identity
        self._popen = popen
        self._ending: str | None = None

    def ended(self) -> str | None:
        """How the head process ended, None while it lives. Leaves no zombie."""
        if self._ending is None:
            if self._popen is not None:
                code = self._popen.poll()
                self._ending = None if code is None else _describe(code)
            elif not self.identity.head_lives:
                self._ending = "ended"
        return self._ending

    def terminate(self) -> None:
        """Ask the head process to end; it ends its children."""
        if self.ended() is None:
            with suppress(ProcessLookupError):
                os.kill(self.identity.pid, signal.SIGTERM)

    def look_inside(self) -> None:
        """Find the first process of its container, if there is one; may take 0.1 s."""
        known = self.identity
        if not known.runtime or known.inner_pid:
            return
        pid = containers.first_pid(known.runtime, known.container)
        # Where this launcher is in a container itself, the pid is another process's.
        birth = find_birth(pid) if pid else None
        if birth is not None and birth.ticks >= known.birth.ticks:
            self.identity = replace(known, inner_pid=pid, inner_birth=birth)

    def kill(self, seconds: float = 10.0) -> list[str]:
        """End all of this engine by force; returns what is left, such as "pid 12"."""
        # First: what watches the container is one of the processes.
        self._remove_container()
        deadline = time.monotonic() + seconds
        while left := survivors(self.identity):
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=0.2)
            self.ended()
            if time.monotonic() > deadline:
                break
        self.ended()
        # A killed client may have had its container made meanwhile.
        fault = self._remove_container()
        return [f"pid {process.pid}" for process in left] + fault

    def _remove_container(self) -> list[str]:
        if not self.identity.runtime:
            return []
        name = self.identity.container
        fault = containers.remove(self.identity.runtime, name)
        return [f"container {name} ({fault})"] if fault else []


def new_identity(runtime: str = "") -> Identity:
    """The identity of an engine that is about to be started."""
    born = present_moment()
    return Identity(0, time.time(), uuid4().hex, runtime, birth=born)


def start(
    launch: Launch,
    log: Path,
    title: str,
    born: Identity,
    inherited: tuple[int, ...] = (),
) -> EngineProcess:
    """Start an engine whose output goes to the end of its log.

    ``inherited`` are descriptors that it has open, too. Raises ConfigurationError where
    the program cannot be started at all.
    """
    environment = {
        **environments.inherited(os.environ),
        **ENGINE_VARIABLES,
        **launch.environment,
        MARK: born.mark,
    }
    environment |= without_proxy(environment)
    with log.open("ab") as output:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        output.write(f"--- {when} {title}: {' '.join(launch.argv)}\n".encode())
        output.flush()
        popen = _popen(launch.argv, environment, output.fileno(), inherited)
    # It is this process's child, so its number is its own until it is reaped.
    birth = find_birth(popen.pid) or present_moment()
    identity = replace(born, pid=popen.pid, created=time.time(), birth=birth)
    return EngineProcess(identity, popen)


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep loopback traffic from a proxy, added to what is set.

    An engine asks its own address when it starts, by libraries that obey http_proxy.
    """
    given = [environment.get(name, "") for name in NO_PROXY]
    names = [name.strip() for each in given for name in each.split(",")]
    listed = dict.fromkeys([*filter(None, names), *LOOPBACK_NAMES])
    return dict.fromkeys(NO_PROXY, "*" if "*" in listed else ",".join(listed))


def _popen(
    argv: tuple[str, ...],
    environment: Mapping[str, str],
    output: int,
    inherited: tuple[int, ...],
) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=inherited,
        )
    except (OSError, ValueError, IndexError) as error:
        refusal = ConfigurationError(
            f"{argv[0] if argv else 'an empty command'} cannot be started: {error}"
        )
        refusal.may_come = isinstance(error, OSError) and not (
            error.errno in LASTING_ERRORS
            or (error.errno == errno.ENOENT and "/" not in argv[0])
        )
        raise refusal from error


def rotate(log: Path) -> int:
    """Set a large log aside before a start; returns the bytes that the log then has."""
    log.parent.mkdir(parents=True, exist_ok=True)
    bound(log)
    return log.stat().st_size if log.exists() else 0


def head_lives(identity: Identity) -> bool:
    """Whether an engine's head lives, by its pid, its start time and its mark."""
    if not identity.pid or not identity.head_lives:
        return False
    with suppress(psutil.NoSuchProcess):
        return _may_be_marked(psutil.Process(identity.pid), identity)
    return False


def is_alive(pid: int, birth: Birth, created: float = 0.0) -> bool:
    """Whether the process with this number and birth has not ended.

    ``created`` counts where no birth is known.
    """
    try:
        process = psutil.Process(pid)
        return _is_same(process, birth, created) and not has_ended(process)
    except psutil.NoSuchProcess:
        return False


def _is_same(process: psutil.Process, birth: Birth, created: float) -> bool:
    if birth.known:
        return birth.is_that_of(find_birth(process.pid))
    return bool(abs(process.create_time() - created) < CLOCK_SLACK_SECONDS)


def survivors(identity: Identity) -> list[psutil.Process]:
    """Every living process of an engine, whether or not its head still lives."""
    if identity.birth.known and not identity.birth.in_this_boot:
        return []
    groups_match = _group_is_its_own(identity)
    found: dict[int, psutil.Process] = {}
    for pid in psutil.pids():
        with suppress(psutil.Error, ProcessLookupError):
            birth = find_birth(pid)
            if birth is None or birth.ticks < identity.birth.ticks - BIRTH_SLACK_TICKS:
                continue
            process = psutil.Process(pid)
            grouped = groups_match and os.getpgid(process.pid) == identity.pid
            if grouped or (identity.mark and _mark_of(process) == identity.mark):
                found[process.pid] = process
    if identity.inner_lives:
        # A container's processes may be another user's, who hides the mark.
        with suppress(psutil.NoSuchProcess):
            found[identity.inner_pid] = psutil.Process(identity.inner_pid)
    for process in list(found.values()):
        with suppress(psutil.Error):
            found.update({each.pid: each for each in process.children(recursive=True)})
    found.pop(os.getpid(), None)
    return _living(found.values())


def vital_processes(head: Identity) -> tuple[VitalProcess, ...]:
    """The vital processes of an engine now, outside or inside a container."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(head.core).children(recursive=True):
            with suppress(psutil.Error):
                title = " ".join(child.cmdline()).strip()
                if VITAL_TITLES.match(title):
                    birth = find_birth(child.pid) or Birth()
                    found.append(VitalProcess(child.pid, birth, title))
    return tuple(found)


def find_ended(vital: tuple[VitalProcess, ...]) -> VitalProcess | None:
    """The first that works no more, None while all do; a head may outlive these."""
    return next((each for each in vital if not _works(each)), None)


def _works(vital: VitalProcess) -> bool:
    """Whether it lives with its first thread; others of it may hang in a driver."""
    with suppress(psutil.NoSuchProcess):
        dead = psutil.Process(vital.pid).status() == psutil.STATUS_ZOMBIE
        return not dead and is_alive(vital.pid, vital.birth)
    return False


def _group_is_its_own(identity: Identity) -> bool:
    if not identity.pid:
        return False
    # A pid is not given anew while a group has it: only a leader with another birth,
    # or without the mark, means that the group is a stranger's.
    try:
        leader = psutil.Process(identity.pid)
        if not _is_same(leader, identity.birth, identity.created):
            return False
        dead = leader.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    return dead or not identity.mark or _may_be_marked(leader, identity)


def _may_be_marked(head: psutil.Process, identity: Identity) -> bool:
    """Whether nothing in a head's environment speaks against its identity."""
    if values := environment_of(head):
        return values.get(MARK) == identity.mark
    # It has none while it becomes another program, or where it cleared it or another
    # user runs it: then its birth tells.
    return identity.birth.known


def find_engines() -> list[tuple[int, str, str]]:
    """The processes of engines that this user may see: pid, mark and run folder.

    Of each engine only the first process that is there.
    """
    found: dict[str, tuple[int, str, str]] = {}
    for pid in sorted(psutil.pids()):
        with suppress(psutil.Error, OSError):
            values = environment_of(psutil.Process(pid))
            mark, run = values.get(MARK, ""), values.get(RUN, "")
            if mark and run:
                found.setdefault(mark, (pid, mark, run))
    return list(found.values())


def _mark_of(process: psutil.Process) -> str:
    return environment_of(process).get(MARK, "")


def _living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if not has_ended(process)]


def _describe(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
