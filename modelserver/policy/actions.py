"""What a decision says is to be done. Pure."""

from dataclasses import dataclass

from modelserver.values import Cause, EngineSpec


@dataclass(frozen=True, slots=True)
class Want:
    """Action: have this engine, in this place."""

    spec: EngineSpec
    #: The host that it is taken from on purpose, "" where it is not.
    leaves: str = ""


@dataclass(frozen=True, slots=True)
class Relaunch:
    """Action: end this incarnation of an engine and start the next."""

    engine: str
    incarnation: int
    #: Why, for people.
    reason: str
    #: Why, for decisions.
    cause: Cause


@dataclass(frozen=True, slots=True)
class Drop:
    """Action: no longer have this engine."""

    engine: str
    reason: str


@dataclass(frozen=True, slots=True)
class Treat:
    """Action: change how an engine is used; ``Wish`` says what the fields mean."""

    engine: str
    incarnation: int
    limit: int = 0
    degraded: str = ""
    hold: str = ""
    drained: bool = False
    abort: int = 0
    canary: int = 0
    #: Why, for people; "" for small changes that nobody needs to hear of.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """Action: tell people."""

    #: An engine's id, or a model's name.
    engine: str
    reason: str


Action = Want | Relaunch | Drop | Treat | Alert
