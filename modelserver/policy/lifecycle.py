"""The life of an engine as a table: which event leads from which state to which.

Pure: ``now`` is an argument (seconds of any monotonic clock). An event for which the
table has no entry changes nothing, so an event that comes late does no harm.
"""

from dataclasses import dataclass, replace

from modelserver.values import Cause, EngineState

#: Seconds until an engine is started again after its first, second, ... death in a row.
BACKOFF_SECONDS = (0.0, 5.0, 15.0, 45.0, 135.0, 300.0, 900.0)
#: Seconds of service after which the earlier deaths of an engine are forgiven.
FORGIVEN_AFTER_SECONDS = 300.0
#: An engine is not started again after 5 deaths ...
FATAL_DEATHS = 5
#: ... within 600 seconds.
FATAL_WINDOW_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The engine is wanted, for the first time or again."""


@dataclass(frozen=True, slots=True)
class Held:
    """It cannot start yet: a port or a GPU is taken."""

    reason: str


@dataclass(frozen=True, slots=True)
class Started:
    """Its process runs."""

    incarnation: int
    #: What is special about this start, "" for nothing.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Proved:
    """It has generated a token."""


@dataclass(frozen=True, slots=True)
class Degraded:
    """Control gives it fewer requests."""

    reason: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """Control gives it all its requests again."""


@dataclass(frozen=True, slots=True)
class Lost:
    """An engine that somebody else runs does not answer."""

    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """Its process ended, which nobody asked for, or there could be none now."""

    reason: str
    #: Whether it died at its start of what may go away by itself, such as too little
    #: free memory, or files that are not there yet.
    may_heal: bool = False
    #: The line in its log that tells of an error of CUDA, "" for none.
    cuda: str = ""


@dataclass(frozen=True, slots=True)
class StartTimedOut:
    """It generated no token within the time that a start may take."""

    reason: str


@dataclass(frozen=True, slots=True)
class RetryDue:
    """Time has passed; changes nothing before the backoff is over."""


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """It is to take nothing new, and end."""

    reason: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Stopped:
    """Its processes are gone, as was asked for."""


@dataclass(frozen=True, slots=True)
class CannotHeal:
    """It failed for a cause that starting it again does not remove."""

    reason: str
    #: The incarnation whose start failed before there was a process, 0 for none.
    incarnation: int = 0


Event = (
    Wanted
    | Held
    | Started
    | Proved
    | Degraded
    | Recovered
    | Lost
    | Died
    | StartTimedOut
    | RetryDue
    | DrainAsked
    | Stopped
    | CannotHeal
)

_S = EngineState
_TRANSITIONS: dict[tuple[EngineState, type[Event]], EngineState] = {
    (_S.PENDING, Held): _S.PENDING,
    (_S.PENDING, Started): _S.STARTING,
    (_S.PENDING, Died): _S.BACKOFF,
    (_S.PENDING, CannotHeal): _S.FATAL,
    (_S.PENDING, DrainAsked): _S.STOPPED,
    (_S.STARTING, Proved): _S.READY,
    (_S.STARTING, Died): _S.BACKOFF,
    (_S.STARTING, StartTimedOut): _S.BACKOFF,
    (_S.STARTING, CannotHeal): _S.FATAL,
    (_S.STARTING, DrainAsked): _S.DRAINING,
    (_S.READY, Degraded): _S.DEGRADED,
    (_S.DEGRADED, Degraded): _S.DEGRADED,
    (_S.DEGRADED, Recovered): _S.READY,
    (_S.READY, Died): _S.BACKOFF,
    (_S.DEGRADED, Died): _S.BACKOFF,
    (_S.READY, Lost): _S.STARTING,
    (_S.DEGRADED, Lost): _S.STARTING,
    (_S.READY, DrainAsked): _S.DRAINING,
    (_S.DEGRADED, DrainAsked): _S.DRAINING,
    # It was to end anyway.
    (_S.DRAINING, Died): _S.STOPPED,
    (_S.DRAINING, Stopped): _S.STOPPED,
    (_S.BACKOFF, RetryDue): _S.PENDING,
    (_S.BACKOFF, DrainAsked): _S.STOPPED,
    (_S.FATAL, Wanted): _S.PENDING,
    (_S.FATAL, DrainAsked): _S.STOPPED,
    (_S.STOPPED, Wanted): _S.PENDING,
}


@dataclass(frozen=True, slots=True)
class Life:
    """The state of an engine, and how it came there."""

    state: EngineState = EngineState.PENDING
    #: When its state last changed.
    since: float = 0.0
    incarnation: int = 0
    #: What led to its state, for people.
    reason: str = ""
    #: Why it is ended, if it is.
    cause: Cause = Cause.NONE
    #: When it died, oldest first.
    deaths: tuple[float, ...] = ()
    #: When its backoff is over.
    retry_at: float = 0.0
    #: How often this launcher started it.
    starts: int = 0
    #: When it last began to serve.
    serves_since: float = 0.0


def advance(life: Life, event: Event, now: float) -> Life:
    """The life after an event; the very same value where the event changes nothing."""
    state = _TRANSITIONS.get((life.state, type(event)))
    if state is None or (isinstance(event, RetryDue) and now < life.retry_at):
        return life
    since = life.since if state is life.state else now
    moved = replace(
        life,
        state=state,
        since=since,
        reason=getattr(event, "reason", ""),
        cause=getattr(event, "cause", Cause.NONE),
    )
    match event:
        case Started():
            return replace(moved, incarnation=event.incarnation, starts=life.starts + 1)
        case Proved():
            return replace(moved, serves_since=now)
        case Died() | StartTimedOut() if state is EngineState.BACKOFF:
            may_heal = isinstance(event, Died) and event.may_heal
            return _after_death(life, moved, may_heal, now)
        case CannotHeal():
            counted = max(life.incarnation, event.incarnation)
            return replace(moved, incarnation=counted)
        case Wanted():
            return replace(moved, deaths=(), retry_at=0.0)
        case RetryDue():
            # Why it died can be read until it has started again.
            return replace(moved, reason=life.reason)
    return moved


def _after_death(life: Life, moved: Life, may_heal: bool, now: float) -> Life:
    deaths = (*_unforgiven(life, now), now)
    if may_heal:
        retry_at = now + backoff_seconds(len(deaths))
        return replace(moved, deaths=deaths, retry_at=retry_at)
    recent = [at for at in deaths if now - at <= FATAL_WINDOW_SECONDS]
    if len(recent) >= FATAL_DEATHS:
        minutes = FATAL_WINDOW_SECONDS / 60
        reason = (
            f"failed {len(recent)} times in {minutes:g} minutes, so it is not started "
            f"again; the last time: {moved.reason}; remove the cause and relaunch it"
        )
        return replace(moved, state=EngineState.FATAL, reason=reason, deaths=deaths)
    retry_at = now + backoff_seconds(len(deaths))
    return replace(moved, deaths=deaths, retry_at=retry_at)


def _unforgiven(life: Life, now: float) -> tuple[float, ...]:
    served = now - life.serves_since if life.state.serves else 0.0
    return () if served >= FORGIVEN_AFTER_SECONDS else life.deaths


def backoff_seconds(deaths: int) -> float:
    """Seconds to wait after this number of deaths in a row.

    >>> [backoff_seconds(deaths) for deaths in (1, 2, 3, 4, 5, 6, 99)]
    [0.0, 5.0, 15.0, 45.0, 135.0, 300.0, 900.0]
    """
    return BACKOFF_SECONDS[min(max(deaths, 1), len(BACKOFF_SECONDS)) - 1]
