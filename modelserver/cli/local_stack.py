"""All programs of one machine, started in order, kept alive, and stopped in reverse."""

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from modelserver.births import Birth, find_birth, has_ended
from modelserver.cli.flower_options import FLOWER_PORT
from modelserver.cli.program_group import restart_seconds
from modelserver.cli.programs import environment, programs_folder, python_program
from modelserver.control.applying import put_own_file_in_force
from modelserver.decoding import decode
from modelserver.errors import ModelserverError
from modelserver.operations import embedded_valkey
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.whole_files import write_whole

#: How long the embedded server may take to load its file, in seconds.
SERVER_SECONDS = 60.0
#: How long a program of a killed run may take to end, in seconds.
LEFTOVER_SECONDS = 30.0
#: Seconds that a program may take to end once it is killed.
KILLED_SECONDS = 10.0
#: The gateway's usual port; any free one if somebody else has it.
GATEWAY_PORT = 8080
#: The fleet page's usual port; any free one if somebody else has it.
PAGE_PORT = 8090
#: Name of the file that says which processes a killed stack left behind.
STACK_FILE = "stack.json"
#: The same for launcher and worker alone.
HOST_FILE = "host.json"


def stop_seconds(settings: Settings) -> dict[str, float]:
    """How long each program may take to end after SIGTERM, in seconds."""
    specs = settings.fleet.specs()
    return {
        "valkey": 20.0,
        "launcher": max((spec.drain_seconds for spec in specs), default=0.0) + 60,
        "worker": settings.fleet.rules.grace_seconds + 30,
        "beat": 10.0,
        "batches": 30.0,
        "gateway": 40.0,
        "page": 10.0,
        "flower": 10.0,
    }


@dataclass(slots=True)
class Program:
    """One program of the stack. It logs to a file and leads a session of its own."""

    name: str
    argv: tuple[str, ...]
    log: Path
    #: How long it may take to end after SIGTERM, in seconds.
    stop_seconds: float
    process: "subprocess.Popen[bytes] | None" = None
    #: How often it has ended by itself.
    deaths: int = 0
    #: When it is to be started again, by the monotonic clock; 0 while it runs.
    due: float = 0.0

    def start(self, env: Mapping[str, str]) -> None:
        """Start it. A session of its own keeps a Ctrl-C for the stack alone."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=programs_folder(),
                env=dict(env),
                start_new_session=True,
            )

    def stop(self) -> bool:
        """End it; True if it had to be killed.

        It may be there even then: a driver or a disk that it waits for may not answer.
        """
        process = self.process
        if process is None or process.poll() is not None:
            return False
        process.terminate()
        try:
            process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(KILLED_SECONDS)
            return True
        return False

    @property
    def lives(self) -> bool:
        """Whether its process has not ended."""
        return self.process is not None and self.process.poll() is None

    def last_lines(self, most: int = 8) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-most:])


@dataclass(slots=True)
class Stack:
    """The programs that ``up`` and ``demo`` run, in the order of their start."""

    settings: Settings
    #: Shows a line to the user.
    say: Callable[[str], None]
    #: Whether Flower runs as well.
    flower: bool = True
    #: Whether OpenAI's HTTP API is served as well.
    gateway: bool = True
    #: Whether the fleet page is served as well.
    page: bool = False
    #: Whether the page has buttons.
    actions: bool = False
    #: Only launcher and worker: this host is one of a fleet that is in force.
    host_only: bool = False
    programs: list[Program] = field(default_factory=list)
    flower_url: str = ""
    page_url: str = ""
    #: Where clients of OpenAI's API look.
    api_url: str = ""
    server: embedded_valkey.Embedded | None = None
    #: Whether the note of what runs is this stack's, and not another one's.
    _is_owner: bool = False

    @property
    def logs(self) -> Path:
        """The folder of the programs' logs."""
        return self.settings.run_dir / "logs"

    def start(self) -> None:
        """Start everything. Raises ModelserverError naming the program and its log."""
        self.settings.make_run_dir()
        self.logs.mkdir(exist_ok=True)
        self._claim()
        if self.settings.embedded:
            self._start_server()
        if not self.host_only:
            store = connect(self.settings)
            self._apply_fleet(store)
            store.client.close()
        for program in self._wanted():
            self._begin(program)

    def _apply_fleet(self, store: Store) -> None:
        """Put the fleet file in force, and say what that changes."""
        proposal = put_own_file_in_force(store, self.settings)
        before = proposal.before
        if before is None or proposal.changes_nothing:
            return
        version = before.version
        self._tell(f"fleet version {version + 1} takes the place of {version}:")
        for line in proposal.lines():
            self._tell(f"  {line}")

    def _start_server(self) -> None:
        self.server = embedded_valkey.prepare(self.settings.run_dir)
        program = Program(
            "valkey",
            self.server.argv,
            self.logs / "valkey.log",
            stop_seconds(self.settings)["valkey"],
        )
        self._begin(program)
        end = time.monotonic() + SERVER_SECONDS
        while not self.server.answers():
            if time.monotonic() > end or self._ended(program):
                raise ModelserverError(
                    f"the embedded server did not start; see {program.log}:\n"
                    f"{program.last_lines()}"
                )
            time.sleep(0.05)
        self.server.announce()

    def _wanted(self) -> Iterator[Program]:
        seconds = stop_seconds(self.settings)

        def program(name: str, *argv: str) -> Program:
            log = self.logs / f"{name}.log"
            return Program(name, tuple(python_program(*argv)), log, seconds[name])

        yield program("launcher", "launcher")
        alone = self.settings.fleet.workers.processes == 1
        worker = ("celery", "-A", "tasks") if alone else ("modelserver.cli",)
        name = ("-n", f"celery@{self.settings.host}") if alone else ()
        yield program("worker", *worker, "worker", *name, "-l", "INFO")
        if self.host_only:
            return
        schedule = str(self.settings.run_dir / "beat-schedule")
        yield program("beat", "celery", "-A", "tasks", "beat", "--schedule", schedule)
        yield program("batches", "modelserver.cli", "batches")
        if self.gateway:
            port = embedded_valkey.free_port(GATEWAY_PORT)
            self.api_url = f"http://127.0.0.1:{port}/v1"
            yield program("gateway", "modelserver.cli", "serve", f"--port={port}")
        if self.flower:
            port = embedded_valkey.free_port(FLOWER_PORT)
            self.flower_url = f"http://127.0.0.1:{port}"
            yield program("flower", "celery", "-A", "tasks", "flower", f"--port={port}")
        if self.page:
            port = embedded_valkey.free_port(PAGE_PORT)
            self.page_url = f"http://127.0.0.1:{port}"
            links = (f"--port={port}", f"--flower-url={self.flower_url}")
            buttons = ("--actions",) * self.actions
            yield program("page", "modelserver.cli", "ui", *links, *buttons)

    def _begin(self, program: Program) -> None:
        program.start(environment(self.settings))
        self.programs.append(program)
        self._note()
        pid = program.process.pid if program.process else 0
        self._tell(f"{program.name:9} pid {pid:<7} log {program.log}")

    def _ended(self, program: Program) -> bool:
        return program.process is not None and program.process.poll() is not None

    def look_after(self, now: float) -> None:
        """Start again what ended by itself; to be called about every second."""
        for program in self.programs:
            if not self._ended(program):
                continue
            if not program.due:
                program.deaths += 1
                wait = restart_seconds(program.deaths)
                program.due = now + wait
                code = program.process.returncode if program.process else 0
                self._tell(
                    f"{program.name} ended (status {code}), starts again in {wait:g} s;"
                    f" see {program.log}"
                )
            elif now >= program.due:
                program.due = 0.0
                program.start(environment(self.settings))
                self._note()

    def stop(self) -> None:
        """Stop everything in the reverse order; the server last."""
        for program in reversed(self.programs):
            self._tell(f"stopping {program.name}")
            if program.stop():
                self._tell(
                    f"{program.name} did not end within {program.stop_seconds:g} s and "
                    f"was killed; see {program.log}"
                )
        if self.server:
            self.server.withdraw()
        # The next one is to know of what is left.
        if not self._tell_left() and self._is_owner:
            self._file.unlink(missing_ok=True)

    # A stack that was killed leaves its programs behind; the next one ends them.

    def _tell(self, line: str) -> None:
        """Say it, if anybody still reads: a pipe may be closed, a terminal gone."""
        with suppress(OSError):
            self.say(line)

    def _tell_left(self) -> bool:
        """Say which programs no signal ends; whether there are any."""
        left = [each for each in self.programs if each.lives]
        for each in left:
            pid = each.process.pid if each.process else 0
            self._tell(
                f"{each.name} (pid {pid}) does not end: it waits for a driver or a "
                "disk; see `dmesg`, and restart this host if it stays"
            )
        return bool(left)

    @property
    def _file(self) -> Path:
        return self.settings.run_dir / (HOST_FILE if self.host_only else STACK_FILE)

    def _claim(self) -> None:
        """Be the only owner. Of two that start at once, the second one is refused."""
        with self._file.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._end_leftovers()
            self._note()
            self._is_owner = True

    def _note(self) -> None:
        entries = {}
        for program in self.programs:
            if program.process and program.lives:
                with suppress(psutil.NoSuchProcess):
                    created = psutil.Process(program.process.pid).create_time()
                    entries[program.name] = [program.process.pid, created]
        owner = [os.getpid(), psutil.Process().create_time()]
        pids = [pid for pid, _ in (owner, *entries.values())]
        births = {pid: asdict(find_birth(pid) or Birth()) for pid in pids}
        values = {"owner": owner, "programs": entries, "births": births}
        # In one step: other commands read it at any moment.
        write_whole(self._file, json.dumps(values))

    def find_owner(self) -> psutil.Process | None:
        """The process that runs these programs now, None if none does."""
        return self._read_note()[0]

    def find_launcher(self) -> psutil.Process | None:
        """The launcher that is one of these programs, None if none lives."""
        return self._read_note()[1].get("launcher")

    def _read_note(self) -> tuple[psutil.Process | None, dict[str, psutil.Process]]:
        """The owner, and the programs by name, of those that live."""
        try:
            left = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return None, {}
        births = {
            int(pid): decode(Birth, birth)
            for pid, birth in left.get("births", {}).items()
        }
        found = {
            name: process
            for name, (pid, created) in left["programs"].items()
            if (process := _living(pid, created, births))
        }
        pid, created = left["owner"]
        return _living(pid, created, births), found

    def _end_leftovers(self) -> None:
        owner, programs = self._read_note()
        if owner:
            raise ModelserverError(
                f"this fleet is up already (pid {owner.pid}, run folder "
                f"{self.settings.run_dir}); stop that one with Ctrl-C first"
            )
        for name, process in reversed(programs.items()):
            self._tell(
                f"ending {name} (pid {process.pid}), left behind by a killed run"
            )
            process.terminate()
            psutil.wait_procs([process], timeout=LEFTOVER_SECONDS)
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _living(
    pid: int, created: float, births: Mapping[int, Birth]
) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        if has_ended(process):
            return None
    except psutil.NoSuchProcess:
        return None
    # The versions before knew a process by an epoch time.
    same = abs(process.create_time() - created) < 1
    if pid in births:
        same = births[pid].is_that_of(find_birth(pid))
    return process if same else None
