"""A fleet's programs as units of systemd. Pure: texts, and nothing is written.

>>> place = UnitPlace(("/opt/bin/modelserver",), "/etc/environment", "/srv", "ada")
>>> print(unit(PARTS[1], place, stop_seconds=60.0).splitlines()[1])
Description=modelserver launcher
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelserver.errors import ConfigurationError

#: The unit that starts and stops all others.
TARGET = "modelserver.target"


@dataclass(frozen=True, slots=True)
class UnitProgram:
    """One program of a fleet, and what its unit has beside the others."""

    name: str
    #: What the command line calls it, with its arguments.
    command: str
    #: Lines of its section [Service].
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UnitPlace:
    """Where the programs run, and as whom."""

    #: The path of ``modelserver``, or the words that start it.
    program: tuple[str, ...]
    environment_file: str
    folder: str
    #: "" for units of the user's own systemd.
    user: str = ""

    @property
    def wanted_by(self) -> str:
        """The target that starts them with the machine, or with the user's session."""
        return "multi-user.target" if self.user else "default.target"


#: What engines need. One that is killed for memory does not end its launcher; engines
#: outlive a launcher that dies or is reloaded, and the next one adopts them.
_LAUNCHER = (
    "KillMode=process",
    "ExecReload=/bin/kill -QUIT $MAINPID",
    "OOMPolicy=continue",
    "LimitMEMLOCK=infinity",
    "LimitSTACK=67108864",
    "TasksMax=infinity",
)
#: The first is there for the embedded server only.
PARTS = (
    UnitProgram("valkey", "valkey", ("NoNewPrivileges=yes",)),
    UnitProgram("launcher", "launcher", _LAUNCHER),
    UnitProgram("worker", "worker --loglevel INFO", ("KillMode=mixed",)),
    UnitProgram("beat", "beat", ("KillMode=mixed", "NoNewPrivileges=yes")),
    UnitProgram("batches", "batches", ("KillMode=mixed", "NoNewPrivileges=yes")),
    UnitProgram("gateway", "serve", ("KillMode=mixed", "NoNewPrivileges=yes")),
    UnitProgram("page", "ui", ("KillMode=mixed", "NoNewPrivileges=yes")),
    UnitProgram("flower", "flower", ("KillMode=mixed", "NoNewPrivileges=yes")),
)


def units(
    names: Sequence[str], place: UnitPlace, stop_seconds: Mapping[str, float]
) -> Iterator[tuple[str, str]]:
    """The units of these parts and their target, each with its file's name."""
    chosen = [part for part in PARTS if part.name in names]
    for part in chosen:
        yield _file(part), unit(part, place, stop_seconds[part.name])
    yield TARGET, _target([_file(part) for part in chosen], place)


def unit(part: UnitProgram, place: UnitPlace, stop_seconds: float) -> str:
    """The unit of one part."""
    lines = [
        "[Unit]",
        f"Description=modelserver {part.name}",
        f"PartOf={TARGET}",
        *_network(place),
        *([f"After={_file(PARTS[0])}"] if part is not PARTS[0] else []),
        # A fleet goes on where its server is away for an hour.
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        *([f"User={place.user}"] if place.user else []),
        f"WorkingDirectory={_plain(place.folder)}",
        f"EnvironmentFile={_plain(place.environment_file)}",
        f"ExecStart={' '.join(map(_word, place.program))} {part.command}",
        "Restart=always",
        "RestartSec=2",
        f"TimeoutStopSec={stop_seconds:.0f}",
        "LimitNOFILE=65536",
        *part.lines,
        "",
        "[Install]",
        f"WantedBy={TARGET}",
    ]
    return "\n".join(lines) + "\n"


def _target(files: Sequence[str], place: UnitPlace) -> str:
    lines = [
        "[Unit]",
        "Description=modelserver",
        f"Wants={' '.join(files)}",
        *_network(place),
        "",
        "[Install]",
        f"WantedBy={place.wanted_by}",
    ]
    return "\n".join(lines) + "\n"


def _network(place: UnitPlace) -> list[str]:
    """A user's own systemd does not know whether there is a network."""
    target = "network-online.target"
    return [f"After={target}", f"Wants={target}"] if place.user else []


def _plain(path: str) -> str:
    """A path that fills its line, which systemd takes but for its percent signs."""
    if not path.isprintable():
        raise ConfigurationError(
            f"{path!r} has characters that no unit can have; give it another name"
        )
    return path.replace("%", "%%")


def _word(text: str) -> str:
    """A word of a command. A backslash means to systemd what it means to JSON."""
    return json.dumps(_plain(text), ensure_ascii=False)


def _file(part: UnitProgram) -> str:
    return f"modelserver-{part.name}.service"
