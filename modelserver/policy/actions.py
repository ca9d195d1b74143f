"""What a decision says is to be done. Pure."""

from dataclasses import dataclass

from modelserver.values import Cause, EngineSpec


@dataclass(frozen=True, slots=True)
class Want:
    """Action: have this engine, in this way."""

    spec: EngineSpec


@dataclass(frozen=True, slots=True)
class Relaunch:
    """Action: end this incarnation of an engine and start the next."""

    engine: str
    incarnation: int
    reason: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Drop:
    """Action: have this engine no longer."""

    engine: str
    reason: str


@dataclass(frozen=True, slots=True)
class Treat:
    """Action: use this incarnation thus; the fields are those of ``Wish``."""

    engine: str
    incarnation: int
    limit: int = 0
    degraded: str = ""
    hold: str = ""
    drained: bool = False
    abort: int = 0
    canary: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """Action: tell people. ``engine`` is an engine's id, or a model's name."""

    engine: str
    reason: str


Action = Want | Relaunch | Drop | Treat | Alert
