"""The fleet in force: one for all programs, with a version, kept in the store.

A fleet file takes effect by being applied: what it says, but for ``[redis]``, stands in
the store under the next version, signed with the fleet's key. Values of a model's
``environment`` may be secrets, so the store holds a fingerprint of each; a launcher
takes the values from the file of its own host.
"""

import dataclasses
import functools
import hashlib
import json
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from modelserver.errors import ConfigurationError, FleetRefusedError
from modelserver.fleet.file import Fleet, make_fleet
from modelserver.fleet.key import SIGNATURE, FleetKey
from modelserver.fleet.sections import RedisSection
from modelserver.policy.changes import FleetSpec
from modelserver.settings import Settings
from modelserver.store.fleet.applied import publish_fleet, read_applied_fleet
from modelserver.store.server.state import Store
from modelserver.user import find_user

#: Sections that the store holds. ``[redis]`` is each program's own: it leads there.
#: ``[workers]`` and ``[gateway]`` are each host's.
SECTIONS = ("models", "engines", "hosts", "defaults", "rules", "probe", "alerts")
#: Keys that the version before refuses; left out where they say nothing.
NEW_KEYS = (
    *("priority", "schedule", "time_zone", "itl_seconds", "max_running"),
    *("host_grace_seconds", "min_gpu_gib", "gpu_name", "hosts", "load_in_turns"),
    "adapters",
)
#: Rounds of hashing in a fingerprint: too many for short values to be guessed quickly.
FINGERPRINT_ROUNDS = 100_000
#: How often writing a version is tried while others write theirs.
PUBLISH_TRIES = 5


@dataclass(frozen=True, slots=True)
class Applied:
    """The fleet as it was applied."""

    #: One more for each fleet that is applied; the first is 1.
    version: int
    #: When it was applied, in seconds since the epoch.
    at: float
    #: Who applied it, as user@host.
    by: str
    #: What all fingerprints of this fleet are made with.
    salt: str
    #: The kinds of models that are gone, but whose queues may not be empty.
    left: Mapping[str, str]
    #: The fleet itself, without secrets.
    fleet: Fleet
    #: All of this as the store holds it.
    text: str
    #: Whether it has a signature, which need not be right.
    is_signed: bool = False

    def spec(self) -> FleetSpec:
        """The fleet as plain values; fingerprints stand for the environments."""
        return spec_of(self.fleet)


def spec_of(fleet: Fleet) -> FleetSpec:
    """A fleet as plain values, to be compared with another."""
    values = {
        f"{section}.{key}": value
        for section in ("defaults", "rules", "probe", "alerts")
        for key, value in getattr(fleet, section).model_dump(mode="json").items()
    }
    values["hosts"] = [str(host) for host in fleet.hosts]
    return FleetSpec(fleet.specs(), fleet.pins(), values)


def fingerprint(value: str, salt: str) -> str:
    """What the store holds of a secret: equal for equal values, and tells no more."""
    return _fingerprint(value, salt)


@functools.lru_cache(maxsize=256)
def _fingerprint(value: str, salt: str) -> str:
    data = hashlib.pbkdf2_hmac(
        "sha256", value.encode(), salt.encode(), FINGERPRINT_ROUNDS
    )
    return data.hex()[:24]


def sealed(fleet: Fleet, salt: str) -> Fleet:
    """The fleet without secrets: a fingerprint for each value of an environment."""

    def secret(environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
        values = {name: fingerprint(each, salt) for name, each in environment.items()}
        return {"environment": values}

    models = [each.model_copy(update=secret(each.environment)) for each in fleet.models]
    pins = [each.model_copy(update=secret(each.environment)) for each in fleet.engines]
    return fleet.model_copy(update={"models": tuple(models), "engines": tuple(pins)})


def compose(
    fleet: Fleet,
    before: Applied | None,
    now: float,
    left: Mapping[str, str] = MappingProxyType({}),
    key: FleetKey | None = None,
) -> Applied:
    """The next version, not written yet; ``fleet`` is as its file says.

    With a ``key`` it is signed, and later than any version that this host has obeyed.
    """
    salt = before.salt if before else secrets.token_hex(8)
    fleet = sealed(fleet, salt)
    last = max(before.version if before else 0, key.last_version() if key else 0)
    head: dict[str, Any] = {
        "version": last + 1,
        "at": round(now, 3),
        "by": f"{find_user()}@{socket.gethostname()}",
        "salt": salt,
        "left": dict(left),
    }
    sections = fleet.model_dump(mode="json", include=set(SECTIONS))
    for section in (sections["rules"], *sections["models"]):
        for name in NEW_KEYS:
            if not section.get(name):
                section.pop(name, None)
        if section.get("nodes") == 1:
            del section["nodes"]
    for pin in sections["engines"]:
        for name in ("extra_args", "environment"):
            if not pin[name]:
                del pin[name]
    for host in sections["hosts"]:
        if host["gpus"] is None:
            del host["gpus"]
        if not host["address"]:
            del host["address"]
    values = {**head, **sections}
    if signature := key.sign(values) if key else "":
        values[SIGNATURE] = signature
    return _read(json.dumps(values), fleet.redis)


def read(store: Store, settings: Settings) -> Applied | None:
    """The fleet in force, None before any was applied.

    Raises FleetRefusedError where this host may not obey it, ConfigurationError where a
    newer modelserver has written it.
    """
    with store.reachable():
        text = read_applied_fleet(store)
    return parse(text, settings) if text else None


def read_unchecked(store: Store, settings: Settings) -> tuple[Applied | None, str]:
    """The fleet in the store, to be compared and replaced but not obeyed.

    Also why this host refuses it, "" where it does not.
    """
    with store.reachable():
        text = read_applied_fleet(store)
    if not text:
        return None, ""
    try:
        return parse(text, settings), ""
    except FleetRefusedError as refused:
        return _read(text, settings.fleet.redis), str(refused)


def parse(text: str, settings: Settings) -> Applied:
    """The fleet from its JSON, if this host obeys it.

    Raises FleetRefusedError where it does not, and ConfigurationError.
    """
    try:
        values = json.loads(text)
        who = f"version {values['version']} of the fleet, applied by {values['by']},"
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(f"the applied fleet is unreadable: {error}") from error
    if refusal := settings.fleet_key.find_refusal(values):
        raise FleetRefusedError(f"{who} {refusal}")
    return _read(text, settings.fleet.redis)


# Cached: the same text is read every other second.
@functools.lru_cache(maxsize=8)
def _read(text: str, redis: RedisSection) -> Applied:
    values: Mapping[str, Any] = json.loads(text)
    try:
        version, by = values["version"], values["by"]
        values = {"alerts": {}, **values}  # The first fleets had none.
        sections = {name: values[name] for name in SECTIONS}
        at, salt, left = values["at"], values["salt"], values["left"]
    except KeyError as error:
        raise ConfigurationError(f"the applied fleet has no {error}") from error
    source = (
        f"version {version} of the fleet, applied by {by} (upgrade this host, or apply "
        "a fleet file from it)"
    )
    fleet = make_fleet(source, {**sections, "redis": redis.model_dump()})
    signed = SIGNATURE in values
    return Applied(version, at, by, salt, left, fleet, text, signed)


def publish(store: Store, applied: Applied, before: Applied | None) -> bool:
    """Write a composed version; False if ``before`` is no longer what stands there."""
    with store.reachable():
        return publish_fleet(store, applied.text, before.version if before else 0)


def provide(store: Store, settings: Settings) -> Applied:
    """The fleet in force; the file of this program where there is none yet."""
    for _ in range(PUBLISH_TRIES):
        applied = read(store, settings)
        if applied is None:
            key = settings.fleet_key
            applied = compose(settings.fleet, None, store.now(), key=key)
            if not publish(store, applied, None):
                continue
        return applied
    raise ConfigurationError("the fleet in the store changes all the time; try again")


def unknown(redis: RedisSection) -> Applied:
    """What a program goes by before it has read the fleet: no models, version 0."""
    return Applied(
        0, 0.0, "", "", {}, make_fleet("", {"redis": redis.model_dump()}), ""
    )


def in_force(store: Store, settings: Settings) -> Settings:
    """The settings with the fleet that is in force, the file's before any is."""
    applied = read(store, settings)
    return dataclasses.replace(settings, fleet=applied.fleet) if applied else settings
