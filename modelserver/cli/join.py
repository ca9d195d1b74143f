"""``modelserver join``: makes this machine a host of a fleet; ``leave`` ends it."""

import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import click
import psutil

from modelserver.births import await_end
from modelserver.cli.doctor import ask_program, show
from modelserver.cli.local_stack import Stack
from modelserver.cli.programs import environment, programs_folder, python_program
from modelserver.cli.stopping import StoppedBySignal, stop_by_signal
from modelserver.cli.up import changes, watch
from modelserver.control.applied_fleet import in_force, read
from modelserver.errors import ConfigurationError, ModelserverError
from modelserver.inventory import Host
from modelserver.joined import (
    JOINED,
    JOINED_FILE,
    NAME_FILE,
    find_name,
    joined_file,
    without_password,
)
from modelserver.operations.joining import (
    examine_host,
    find_missing_engines,
    find_models,
)
from modelserver.operations.status import Status, read_status
from modelserver.server_address import plain_url, read_address
from modelserver.settings import Settings, load
from modelserver.store import Store, connect
from modelserver.values import EngineState

#: The variable that may hold the URL with its password.
URL_VARIABLE = "MODELSERVER_REDIS_URL"
#: A host without an engine after so many looks of control gets none for now.
IDLE_LOOKS = 5
#: A launcher that still reports by this host's name after so many seconds is another
#: machine's: this one's own takes over sooner.
TWIN_SECONDS = 45.0
#: A launcher of this host that has not reported for so many seconds is named.
SILENT_SECONDS = 30.0
#: How often the fleet is looked at while this waits, in seconds.
LOOK_SECONDS = 0.5
FILE = """# Written by `modelserver join`. The fleet itself stands in Redis.
[redis]
url = {url}
"""


@click.command()
@click.argument("url", required=False)
@click.option("--name", help="What the fleet calls this host, if not its host name.")
@click.option(
    "--url-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the URL and its password.",
)
@click.option("--check", is_flag=True, help="Look at this host, and start nothing.")
@click.option(
    "--wait",
    default=900.0,
    show_default=True,
    help="Seconds to wait until this host's engines are ready.",
)
@click.option("--foreground", is_flag=True, help="Only run, until a signal ends it.")
def join(
    url: str | None,
    name: str | None,
    url_file: Path | None,
    check: bool,
    wait: float,
    foreground: bool,
) -> None:
    """Make this machine a host of the fleet at URL (redis://HOST:6379/0).

    Looks whether it can be one, installs the engines that it needs, and starts launcher
    and worker, which go on when this ends: see leave. A URL's password belongs into
    MODELSERVER_REDIS_URL or a file.
    """
    settings = _prepare(url, name, url_file)
    store = connect(settings)
    if foreground:
        _run(settings, store)
        return
    owner = _stack(settings).find_owner()
    _examine(settings, store, bool(owner))
    if check:
        return
    if owner:
        click.echo(f"{settings.host} has joined already (pid {owner.pid})")
    else:
        _install_engines(settings, store)
        _start(settings)
    _await_engines(settings, store, time.monotonic() + wait, bool(owner))


@click.command()
def leave() -> None:
    """Stop what join started on this machine; its work goes to other hosts."""
    named = os.environ.get("MODELSERVER_FLEET")
    written = sorted((load().home / JOINED).glob(f"*/{JOINED_FILE}"))
    stopped = 0
    for file in [Path(named)] if named else written:
        _go_by(file)
        if owner := _stack(load()).find_owner():
            click.echo(f"stopping launcher and worker (pid {owner.pid})")
            owner.terminate()
            await_end(owner)
            stopped += 1
    if not stopped:
        raise ModelserverError("nothing that join started runs here")
    click.echo("They are stopped.")


def _prepare(url: str | None, name: str | None, url_file: Path | None) -> Settings:
    """The settings of this host, with a fleet file that leads to Redis."""
    if name:
        os.environ["MODELSERVER_HOST"] = name
    if url_file:
        os.environ[URL_VARIABLE] = _read_secret(url_file)
    given = os.environ.get(URL_VARIABLE, "")
    if url:
        _refuse_other(url, given)
    if os.environ.get("MODELSERVER_FLEET"):
        if url:
            os.environ.setdefault(URL_VARIABLE, url)
        return load()
    if not url and not given:
        raise ConfigurationError(
            "say where the fleet's Redis is: modelserver join redis://HOST:6379/0"
        )
    plain = without_password(url or given)
    file = joined_file(load().home, plain)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        # JSON's strings are TOML's, but for escapes of two halves.
        text = FILE.format(url=json.dumps(plain, ensure_ascii=False))
        file.write_text(text, encoding="utf-8")
    _go_by(file)
    settings = load()
    before = find_name(file) or settings.host
    if before != settings.host and _stack(settings).find_owner():
        raise ConfigurationError(
            f"this machine has joined as {before}; run `modelserver leave` first"
        )
    file.with_name(NAME_FILE).write_text(settings.host)
    return settings


def _go_by(file: Path) -> None:
    """Have this process, and those that it starts, be the host that joined so."""
    os.environ["MODELSERVER_FLEET"] = str(file)
    if name := find_name(file):
        os.environ.setdefault("MODELSERVER_HOST", name)


def _read_secret(file: Path) -> str:
    """What a file holds that nobody else may read. Raises ConfigurationError."""
    if file.stat().st_mode & 0o077:
        raise ConfigurationError(
            f"others may read {file}, which may have a password; run: chmod 600 {file}"
        )
    return file.read_text().strip()


def _refuse_other(url: str, given: str) -> None:
    """Raise ConfigurationError where a URL on the command line is none to go by."""
    try:
        has_password = read_address(url).has_password
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    if has_password:
        raise ConfigurationError(
            "everybody on this machine can read a password on a command line (ps); put "
            f"the URL into {URL_VARIABLE} or into a file, and say --url-file FILE"
        )
    if given and without_password(given) != without_password(url):
        raise ConfigurationError(
            f"{URL_VARIABLE} is {plain_url(given)}, and the command says {url}; leave "
            "one out"
        )


def _stack(settings: Settings, say: Callable[[str], None] = click.echo) -> Stack:
    return Stack(settings, say, host_only=True)


def _examine(settings: Settings, store: Store, is_joined: bool) -> None:
    """Show what is looked at. Raises ModelserverError for a problem."""
    ask = partial(ask_program, settings)
    problems = sum(map(show, examine_host(settings, store, ask, is_joined)))
    if problems:
        raise ModelserverError(
            f"{problems} problem{'s' * (problems > 1)} found; nothing was started"
        )


def _install_engines(settings: Settings, store: Store) -> None:
    applied = read(store, settings)
    assert applied, "the checks have found it"
    models = find_models(applied, settings.host)
    home = ("--home", str(settings.engines_home))
    for name in find_missing_engines(models, settings, partial(ask_program, settings)):
        argv = python_program("launcher.environments", *home, "install", name)
        done = subprocess.run(argv, cwd=programs_folder(), env=environment(settings))
        if done.returncode:
            raise ModelserverError(f"engine {name} was not installed; see above")


def _start(settings: Settings) -> None:
    """Start launcher and worker, which outlive this command; wait until they are noted.

    Another join may be first, and they are its own. Raises ModelserverError.
    """
    log = settings.make_run_dir() / "join.log"
    with log.open("ab") as stream:
        child = subprocess.Popen(
            python_program("modelserver.cli", "join", "--foreground"),
            cwd=programs_folder(),
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    click.echo(f"launcher and worker start (pid {child.pid}, log {log})")
    has_ended = False
    # One that gives way to another join ends once that one is noted.
    while _stack(settings).find_owner() is None:
        if has_ended:
            raise ModelserverError(f"they ended; see {log}")
        has_ended = child.poll() is not None
        time.sleep(LOOK_SECONDS)


def _run(settings: Settings, store: Store) -> None:
    """Launcher and worker, until a signal ends them."""
    stack = _stack(in_force(store, settings), partial(print, flush=True))
    stop_by_signal()
    try:
        stack.start()
        watch(stack)
    except StoppedBySignal as stopped:
        print(f"{stopped}: stopping", flush=True)
    finally:
        stack.stop()


class Silence:
    """For how long no launcher has reported by a host's name. Times are monotonic."""

    def __init__(self, since: float) -> None:
        self._since = since

    def note(self, reports: bool, now: float) -> bool:
        """Note whether one does now; whether none has for SILENT_SECONDS."""
        if reports:
            self._since = now
        return now - self._since > SILENT_SECONDS


def _await_engines(
    settings: Settings, store: Store, until: float, has_joined: bool
) -> None:
    """Show what becomes of this host's engines until all are ready."""
    seen: dict[str, str] = {}
    looks: set[float] = set()
    twin_since, log = float("inf"), ""
    silence = Silence(time.monotonic())
    while (now := time.monotonic()) < until:
        stack = _stack(settings)
        owner, launcher = stack.find_owner(), stack.find_launcher()
        if owner is None:
            raise ModelserverError(f"they ended; see {settings.run_dir / 'join.log'}")
        status = _here(read_status(store, settings), settings.host)
        is_silent = silence.note(bool(status.hosts), now)
        if status.hosts and (launcher is None or launcher.pid != status.hosts[0].pid):
            twin_since = min(twin_since, now)
            if now - twin_since > TWIN_SECONDS:
                _refuse_twin(owner, status.hosts[0])
            time.sleep(LOOK_SECONDS)
            continue
        twin_since = float("inf")
        if not status.hosts:
            # What Redis has of its engines is of before.
            if is_silent and not log:
                log = str(settings.run_dir / "logs" / "launcher.log")
                _tell_silence(settings.host, log, has_joined)
            time.sleep(LOOK_SECONDS)
            continue
        for line in changes(seen, status):
            click.echo(line)
        if status.workers:
            looks.add(status.steered_at)
            if _is_settled(status, len(looks)):
                return
        time.sleep(LOOK_SECONDS)
    raise ModelserverError(
        f"{settings.host} is not ready yet; it goes on: see `modelserver status`"
    )


def _tell_silence(host: str, log: str, has_joined: bool) -> None:
    """Say that the launcher of this host does not report.

    Raises ModelserverError where it was not started just now: it may go by a password
    or a key of before.
    """
    if has_joined:
        raise ModelserverError(
            f"{host} has joined, and its launcher does not report; see {log}. Where "
            "the password of Redis or the fleet's key is a new one: run `modelserver "
            "leave`, then join again"
        )
    click.echo(f"the launcher does not report yet; see {log}")


def _refuse_twin(owner: psutil.Process, twin: Host) -> NoReturn:
    """End what was started while another machine joined by the same name."""
    owner.terminate()
    await_end(owner)
    raise ModelserverError(
        f"a launcher reports as {twin.name} already (pid {twin.pid} of its machine), "
        "so this one is stopped; join again with another --name"
    )


def _is_settled(status: Status, looks: int) -> bool:
    """Whether this host has come to where it is of use; says so."""
    states, host = {engine.state for engine in status.engines}, status.hosts[0].name
    if EngineState.FATAL in states:
        raise ModelserverError(
            "an engine of this host does not start; see `modelserver doctor`"
        )
    if states and all(state.serves for state in states):
        click.echo(f"{host} is in the fleet, and its engines serve")
        return True
    if not states and looks > IDLE_LOOKS:
        click.echo(f"{host} is in the fleet; it has no engines yet")
        return True
    return False


def _here(status: Status, host: str) -> Status:
    """What of the fleet is on this host."""
    return dataclasses.replace(
        status,
        engines=tuple(each for each in status.engines if each.host == host),
        hosts=tuple(each for each in status.hosts if each.name == host),
        workers=tuple(each for each in status.workers if each.host == host),
    )
