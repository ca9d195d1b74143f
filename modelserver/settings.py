"""What a process is told: the fleet file, the folders, this host's name.

The only module that reads the environment, but for ``fleet.variables``, which lays some
over the fleet file. ``MODELSERVER_FLEET`` names that file, ``MODELSERVER_HOME`` the
folder for engine environments, models, logs and the embedded server's data,
``MODELSERVER_ENGINES_HOME`` another one for the first two, ``MODELSERVER_HOST`` this
host's name, ``MODELSERVER_CONTAINER_PROGRAM`` what runs containers on it,
``MODELSERVER_FLEET_KEY`` is what the fleet is signed with, or
``MODELSERVER_FLEET_KEY_FILE`` the file that holds it.
CUDA_VISIBLE_DEVICES and SLURM_JOB_GPUS keep a launcher to some of the host's GPUs.
``MODELSERVER_PASSWORD``, or the file that ``MODELSERVER_PASSWORD_FILE`` names, is the
password of the fleet page and Flower. ``MODELSERVER_LOG`` is how programs log,
``MODELSERVER_TRACES`` whether requests are traced.
"""

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from modelserver.errors import ConfigurationError, StoreUnreachableError
from modelserver.fleet.file import Fleet, make_fleet, read_fleet
from modelserver.fleet.key import KEY_FILE_VARIABLE, KEY_VARIABLE, FleetKey
from modelserver.fleet.names import check_host_name
from modelserver.fleet.sections import EMBEDDED
from modelserver.joined import find_joined, find_name
from modelserver.keyring import FOLDER, Keyring
from modelserver.private_folders import NO_FOLDER, make_private
from modelserver.server_address import plain_url, with_password
from modelserver.user import find_home
from modelserver.whole_files import write_whole

#: The fleet file in the working folder, unless MODELSERVER_FLEET names another.
FLEET_FILE = "fleet.toml"
#: The file in the run folder that says where the embedded server listens.
EMBEDDED_FILE = "valkey.json"
#: The file in the run folder that says which fleet has it.
NOTE_FILE = "fleet.json"
#: The variable in which Slurm names a job's GPUs.
SLURM_GPUS = "SLURM_JOB_GPUS"
#: This machine's own name, whatever the fleet calls it.
MACHINE = socket.gethostname()


@dataclass(frozen=True)
class Settings:
    """What this process goes by."""

    fleet: Fleet
    #: The fleet file, which may not exist.
    fleet_file: Path
    #: The folder of everything that modelserver keeps on this host.
    home: Path
    #: This host's name in the fleet.
    host: str
    #: What runs containers, "" for docker or podman, whichever works.
    container_program: str = ""
    #: The variable that keeps a launcher to some GPUs and its value, empty for none.
    gpu_variable: tuple[str, str] = ("", "")
    #: The fleet's key as the environment gives it, "" where it does not.
    given_key: str = field(default="", repr=False)
    #: The folder of engine environments and built-in models, None for ``home``.
    shared_home: Path | None = None
    #: The password of the fleet page and Flower, "" for that of a file.
    password: str = field(default="", repr=False)
    #: The file with that password, None for one that is made in ``home``.
    password_file: Path | None = None
    #: Whether programs log JSON, an object a line.
    json_logs: bool = False
    #: Whether requests are traced by OpenTelemetry.
    is_traced: bool = False

    @property
    def engines_home(self) -> Path:
        """The folder of engine environments, which hosts may share."""
        return self.shared_home or self.home

    @cached_property
    def run_dir(self) -> Path:
        """Logs and data of this fleet on this host; one folder per host and fleet file.

        A file that was renamed keeps the folder that it had. Hosts may share a home.
        """
        digest = hashlib.sha256(str(self.fleet_file).encode()).hexdigest()[:8]
        name = f"{self.fleet_file.parent.name or 'root'}-{digest}"
        own = self.home / "run" / self.host / name
        if own.exists():
            return own
        return next(self._earlier_run_dirs(name), own)

    def _earlier_run_dirs(self, name: str) -> Iterator[Path]:
        """This machine's run folders of this very fleet: without a host in their path,
        of another name of this host, or of a fleet file that is gone."""
        runs = self.home / "run"
        notes = (*runs.glob(f"*/{NOTE_FILE}"), *runs.glob(f"*/*/{NOTE_FILE}"))
        for path in sorted(notes):
            try:
                note = json.loads(path.read_text())
                same = note["fleet"] == self._identity
                file = Path(note["file"])
                here = note.get("machine", MACHINE) == MACHINE
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
            renamed = same and self.fleet_file.is_file() and not file.exists()
            if here and (file == self.fleet_file or renamed):
                yield path.parent
        if (runs / name / "logs").exists() and not (runs / name / NOTE_FILE).exists():
            yield runs / name

    @property
    def files_dir(self) -> Path:
        """The files of the gateway, which gateways of one home share."""
        return self.home / "run" / self.run_dir.name / "files"

    @property
    def _identity(self) -> str:
        """What a fleet keeps when its file is renamed: its server and prefix."""
        where = str(self.fleet_file.parent)
        redis = self.fleet.redis
        name = f"{where if self.embedded else plain_url(redis.url)} {redis.prefix}"
        return hashlib.sha256(name.encode()).hexdigest()

    def note_run_dir(self) -> None:
        """Write down whose run folder it is, for when the fleet file is renamed."""
        self.make_run_dir()
        note = {
            "file": str(self.fleet_file),
            "fleet": self._identity,
            "machine": MACHINE,
        }
        write_whole(self.run_dir / NOTE_FILE, json.dumps(note))

    def make_run_dir(self) -> Path:
        """The run folder, there from now on, and closed to other users."""
        make_private(self.run_dir)
        with suppress(PermissionError):  # It is another user's, who decides.
            self.run_dir.chmod(0o700)
        return self.run_dir

    def keyring(self) -> Keyring:
        """The API keys of this fleet's engines on this host."""
        return Keyring(self.run_dir / FOLDER)

    @property
    def fleet_key(self) -> FleetKey:
        """What this host tells by which fleets it may obey."""
        return FleetKey(self.run_dir, self.fleet.redis.prefix, self.given_key)

    @property
    def embedded(self) -> bool:
        """Whether this fleet runs its own Redis-compatible server."""
        return self.fleet.redis.url == EMBEDDED

    @property
    def redis_url(self) -> str:
        """The URL of queues and state.

        Raises StoreUnreachableError where the embedded server does not run.
        """
        if self.embedded:
            return self._embedded_url()
        return self._with_password(self.fleet.redis.url)

    @property
    def results_url(self) -> str:
        """The URL of results, the same server unless the fleet file says otherwise."""
        apart = self.fleet.redis.results_url
        return self._with_password(apart) if apart else self.redis_url

    def _with_password(self, url: str) -> str:
        """The URL with the password of a file. Raises ConfigurationError."""
        if not self.fleet.redis.password_file:
            return url
        path = self.fleet_file.parent / self.fleet.redis.password_file
        try:
            return with_password(url, path.read_text().strip())
        except OSError as error:
            raise ConfigurationError(
                f"redis.password_file names {path}, which cannot be read "
                f"({error.strerror}); correct it, or let this user read it"
            ) from error

    def _embedded_url(self) -> str:
        path = self.run_dir / EMBEDDED_FILE
        try:
            return str(json.loads(path.read_text())["url"])
        except (OSError, ValueError, KeyError):
            if not self.fleet_file.is_file():
                raise StoreUnreachableError(
                    f"there is no fleet file {self.fleet_file}, so it is not known "
                    "which fleet is meant; set MODELSERVER_FLEET to the fleet file, or "
                    "MODELSERVER_REDIS_URL to the fleet's Redis"
                ) from None
            raise StoreUnreachableError(
                f"the embedded server of {self.fleet_file} does not run (no {path}); "
                "start it with `modelserver up`, or set MODELSERVER_HOME as it has "
                "it, or MODELSERVER_REDIS_URL to a running Redis or Valkey"
            ) from None


def load(environ: Mapping[str, str] = os.environ, cwd: Path | None = None) -> Settings:
    """Read the fleet file and the environment.

    Without one in the folder, it is that of the fleet that this machine has joined.
    Raises ConfigurationError, which names the file, the key and the remedy.
    """
    folder = cwd or _working_folder()
    named = environ.get("MODELSERVER_FLEET")
    path = (folder / (named or FLEET_FILE)).absolute()
    if named and path.is_dir():
        raise ConfigurationError(
            f"MODELSERVER_FLEET names {path}, which is a folder; name the file in it"
        )
    if named and not path.is_file():
        raise ConfigurationError(
            f"MODELSERVER_FLEET names {path}, which does not exist; correct it"
        )
    home = _folder("MODELSERVER_HOME", environ) or _default_home(environ)
    joined = ""
    if not path.is_file():
        path = find_joined(home, environ.get("MODELSERVER_REDIS_URL", "")) or path
        joined = find_name(path)
    return Settings(
        fleet=read_fleet(path) if path.is_file() else make_fleet(str(path), {}),
        fleet_file=path,
        home=home,
        host=_host(environ, joined or MACHINE),
        container_program=environ.get("MODELSERVER_CONTAINER_PROGRAM", ""),
        gpu_variable=_gpu_variable(environ),
        given_key=_given_key(environ, folder),
        shared_home=_folder("MODELSERVER_ENGINES_HOME", environ),
        password=environ.get("MODELSERVER_PASSWORD", ""),
        password_file=(folder / file).absolute()
        if (file := environ.get("MODELSERVER_PASSWORD_FILE"))
        else None,
        json_logs=_is_set_to("json", "MODELSERVER_LOG", environ),
        is_traced=_is_set_to("otel", "MODELSERVER_TRACES", environ),
    )


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise ConfigurationError(
            "the working folder is not there any more; go to another one"
        ) from None


def _is_set_to(value: str, variable: str, environ: Mapping[str, str]) -> bool:
    """Whether a variable that can have one value has it. Raises ConfigurationError."""
    given = environ.get(variable, "")
    if given not in ("", value):
        raise ConfigurationError(
            f"{variable} is {given!r}; set it to {value!r}, or not at all"
        )
    return given == value


def _host(environ: Mapping[str, str], otherwise: str) -> str:
    name = environ.get("MODELSERVER_HOST")
    if not name:
        return otherwise
    try:
        return check_host_name(name)
    except ValueError as error:
        raise ConfigurationError(f"MODELSERVER_HOST: {error}") from None


def _given_key(environ: Mapping[str, str], folder: Path) -> str:
    named = environ.get(KEY_FILE_VARIABLE)
    if KEY_VARIABLE in environ or not named:
        return environ.get(KEY_VARIABLE, "").strip()
    try:
        return (folder / named).read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"{KEY_FILE_VARIABLE} names {named}, which cannot be read "
            f"({error.strerror}); correct it, or let this user read it"
        ) from error


def _gpu_variable(environ: Mapping[str, str]) -> tuple[str, str]:
    """To CUDA an empty variable means no GPU; Slurm leaves out its own then."""
    if "CUDA_VISIBLE_DEVICES" in environ:
        return "CUDA_VISIBLE_DEVICES", environ["CUDA_VISIBLE_DEVICES"]
    gpus = environ.get(SLURM_GPUS, "")
    return (SLURM_GPUS, gpus) if gpus else ("", "")


def secret(
    variable: str,
    key: str = "api_key_env",
    program: str = "launcher",
    environ: Mapping[str, str] = os.environ,
) -> str:
    """The value of a variable that the fleet file names by ``key``, for a program.

    Raises ConfigurationError where it is not set, or can stand in no header.
    """
    # Secrets of files often end with a line break.
    value = environ.get(variable, "").strip()
    about = f"the environment variable {variable}, which the fleet file names by {key},"
    if not value:
        raise ConfigurationError(
            f"{about} is not set for this {program}; set it and restart the {program}"
        )
    if not (value.isascii() and value.isprintable()):
        raise ConfigurationError(
            f"{about} holds characters that no key has (line breaks, or others than "
            f"ASCII); correct it and restart the {program}"
        )
    return value


def _folder(variable: str, environ: Mapping[str, str]) -> Path | None:
    """The folder that a variable names. Raises ConfigurationError."""
    if not (named := environ.get(variable)):
        return None
    try:
        folder = Path(named).expanduser().absolute()
        folder.exists()
    except OSError as error:
        if error.errno in NO_FOLDER:
            raise ConfigurationError(
                f"{variable} names what can be no folder ({error.strerror}); correct it"
            ) from None
    except RuntimeError:
        raise ConfigurationError(
            f"{variable} names {named}, and this machine has no such user; correct it"
        ) from None
    return folder


def find_base(variable: str, below_home: str, environ: Mapping[str, str]) -> Path:
    """One of freedesktop's base folders, such as XDG_DATA_HOME.

    One that is not absolute is left aside, as its definition says: in each working
    folder it would be another one.
    """
    named = Path(environ.get(variable, ""))
    return named if named.is_absolute() else find_home() / below_home


def _default_home(environ: Mapping[str, str]) -> Path:
    return find_base("XDG_DATA_HOME", ".local/share", environ) / "modelserver"
