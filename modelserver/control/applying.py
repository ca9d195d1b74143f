"""Puts a fleet file in force: what it changes, what is refused, when it is done.

Commands show what is found here, and ask; nothing here prints.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modelserver.control.applied_fleet import (
    PUBLISH_TRIES,
    Applied,
    compose,
    publish,
    read,
    read_unchecked,
    sealed,
    spec_of,
)
from modelserver.control.doubts import find_doubts
from modelserver.errors import FleetRefusedError, ModelserverError
from modelserver.fleet.file import Fleet
from modelserver.policy.changes import Changes, EngineMove, changes
from modelserver.policy.convergence import FleetView, OpenEnd, open_ends
from modelserver.python310 import StrEnum
from modelserver.settings import Settings
from modelserver.store import Store
from modelserver.store.fleet.control import read_steered, read_waiting, read_wishes
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.hosts import read_hosts
from modelserver.store.fleet.workers import read_backlog
from modelserver.store.messages.expired import drop_expired

#: The fleet counts as settled once nothing was missing for this long, in seconds: a
#: wish needs a moment to reach its launcher.
SETTLED_SECONDS = 2.5
#: What is missing until control has looked at a new version.
UNSEEN = (OpenEnd("control has not looked at it yet; that needs beat and a worker"),)
#: What is said of a fleet without a key that several hosts obey.
UNSIGNED = (
    "the fleet is not signed, so whoever can write to Redis can run programs on every "
    "host; write the same 32 random characters or more to {} and to that file on every "
    "other host (mode 0600), or into MODELSERVER_FLEET_KEY, and apply again"
)
#: Seconds after which it is said that control has not looked.
UNSEEN_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A fleet file beside the fleet in force."""

    #: The fleet as the file says.
    fleet: Fleet
    #: The fleet in force; None where none was applied yet.
    before: Applied | None
    #: What applying the file would change.
    changes: Changes
    #: How many requests wait for each model that it would remove.
    queued: Mapping[str, int]
    #: When this was read, in seconds since the epoch by the store's clock.
    at: float
    #: What may not be meant so, for people.
    doubts: tuple[str, ...] = ()
    #: Why this host refuses the fleet in force, "" where it does not.
    refused: str = ""
    #: Whether a key is made for it: it has none, and no other host needs it.
    makes_key: bool = False

    @property
    def changes_nothing(self) -> bool:
        """Whether the fleet in force is what the file says."""
        same = self.before is not None and not self.changes
        return same and not (self.refused or self.makes_key)

    def lines(self) -> tuple[str, ...]:
        """What would change, and which requests wait for what would go."""
        doubts = (f"warning: {each}" for each in self.doubts)
        return (*self.changes.lines(), *self._queues(), *self._key(), *doubts)

    def _key(self) -> Iterator[str]:
        if self.refused:
            yield f"takes the place of a fleet that this host refuses: {self.refused}"
        if self.makes_key:
            yield "is signed from now on, with a key that this host gets"

    def find_refusal(self) -> str | None:
        """Why it is not applied unless that is forced."""
        if not self.queued:
            return None
        return (
            f"nothing was applied: {', '.join(self._queues())}, which is to go; "
            "let them be answered first, or say --force: then they wait there until "
            "the model comes back"
        )

    def _queues(self) -> list[str]:
        return [
            f"{count} request{'s wait' if count > 1 else ' waits'} in the queue of "
            f"{model}"
            for model, count in self.queued.items()
        ]


def propose(store: Store, settings: Settings) -> Proposal:
    """Compare the fleet of these settings with the one in force."""
    before, refused = read_unchecked(store, settings)
    keyless = not settings.fleet_key.read()
    if keyless and refused:
        raise FleetRefusedError(refused)
    found = difference(before, settings.fleet)
    with store.reachable():
        drop_expired(store, found.removed)
        backlogs = {model: read_backlog(store, model) for model in found.removed}
        queued = {model: count for model, count in backlogs.items() if count}
        found = dataclasses.replace(found, moves=_moves(store, before, settings.fleet))
        hosts = read_hosts(store)
        doubts = find_doubts(settings.fleet, hosts, settings.host)
        alone = {each.name for each in hosts} <= {settings.host}
        if keyless and not alone:
            doubts = (*doubts, UNSIGNED.format(settings.fleet_key.file))
        return Proposal(
            *(settings.fleet, before, found, queued, store.now(), doubts),
            refused=refused,
            makes_key=keyless and alone,
        )


def _moves(
    store: Store, before: Applied | None, fleet: Fleet
) -> tuple[EngineMove, ...]:
    """The engines whose hosts are no longer part of the fleet."""
    listed = {host.name for host in fleet.hosts}
    if before is None or listed == {host.name for host in before.fleet.hosts}:
        return ()
    models = {model.name for model in fleet.specs()}
    pinned = {pin.id for pin in fleet.pins()}
    return tuple(
        EngineMove(name, wish.spec.model, wish.spec.host)
        for name, wish in read_wishes(store).items()
        if listed
        and wish.spec.host not in listed
        and wish.spec.model in models
        and name not in pinned
    )


def difference(before: Applied | None, fleet: Fleet) -> Changes:
    """What applying a file's fleet would change."""
    if before is None:
        new = spec_of(fleet)
        nothing = dataclasses.replace(new, models=(), pins=())
        return changes(nothing, new)
    return changes(before.spec(), spec_of(sealed(fleet, before.salt)))


def put_in_force(store: Store, settings: Settings, proposal: Proposal) -> Applied:
    """Write the next version; ModelserverError where somebody else did meanwhile."""
    applied = _write(store, settings, proposal)
    if applied is not None:
        return applied
    other = read(store, settings)
    who = f"{other.by} applied version {other.version}" if other else "it was lost"
    raise ModelserverError(
        f"nothing was applied: {who} at the same time; run `modelserver apply` again "
        "to see the difference to that"
    )


def put_own_file_in_force(store: Store, settings: Settings) -> Proposal:
    """Apply this program's fleet file whatever it changes; returns what that was."""
    for _ in range(PUBLISH_TRIES):
        proposal = propose(store, settings)
        if proposal.changes_nothing or _write(store, settings, proposal):
            return proposal
    raise ModelserverError("the fleet is being changed by others; try again")


def _write(store: Store, settings: Settings, proposal: Proposal) -> Applied | None:
    """The version that is now in force; None if another one came in between."""
    with store.reachable():
        left = _left(store, proposal)
        now = store.now()
    key = settings.fleet_key
    if proposal.makes_key:
        key.make()
    applied = compose(proposal.fleet, proposal.before, now, left, key)
    if not publish(store, applied, proposal.before):
        return None
    key.note_version(applied.version)
    return applied


def _left(store: Store, proposal: Proposal) -> dict[str, str]:
    """The kinds of models that are gone and whose queues are still to be shown."""
    before, found = proposal.before, proposal.changes
    if before is None:
        return {}
    kinds = {model.name: model.kind.value for model in before.fleet.models}
    added = {each.name for each in found.models if each.verb == "added"}
    older = {k: v for k, v in before.left.items() if k not in added}
    older = {name: kind for name, kind in older.items() if read_backlog(store, name)}
    return older | {name: kinds[name] for name in found.removed}


class Settling(StrEnum):
    """How far a fleet has come on its way to a version."""

    #: Something is still missing, or was until a moment ago.
    UNDER_WAY = "under way"
    #: Everything is as applied.
    DONE = "done"
    #: No launcher reports, so nothing happens until one is started.
    UNATTENDED = "unattended"
    #: What is missing does not come by waiting.
    STUCK = "stuck"
    #: It takes longer than it may.
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Convergence:
    """A fleet on its way to a version, as it is after one look."""

    #: When waiting for it began. All times here are of one monotonic clock.
    began: float
    #: How long it may take, in seconds.
    within: float
    #: When the fleet was last looked at.
    now: float
    #: What was still missing then; None where no launcher could bring it.
    missing: tuple[OpenEnd, ...] | None = UNSEEN
    #: Since when nothing is missing; None while something is.
    complete_since: float | None = None

    def after(self, missing: tuple[OpenEnd, ...] | None, now: float) -> "Convergence":
        """The same after one more look."""
        since = self.complete_since
        since = None if missing else now if since is None else since
        return dataclasses.replace(self, now=now, missing=missing, complete_since=since)

    def settling(self) -> Settling:
        """What the last look showed."""
        if self.missing is None:
            return Settling.UNATTENDED
        since = self.complete_since
        if since is not None and self.now - since >= SETTLED_SECONDS:
            return Settling.DONE
        if self.missing and all(end.hopeless for end in self.missing):
            return Settling.STUCK
        late = self.now - self.began > self.within
        return Settling.LATE if late else Settling.UNDER_WAY

    def to_tell(self) -> tuple[OpenEnd, ...]:
        """What is missing, for people; control's first look gets some time."""
        if self.missing is None:
            return ()
        early = self.now - self.began <= UNSEEN_SECONDS
        return () if early and self.missing == UNSEEN else self.missing


def find_missing(
    store: Store, applied: Applied, models: frozenset[str]
) -> tuple[OpenEnd, ...] | None:
    """What is still to happen to these models; None where no launcher could do it."""
    with store.reachable():
        hosts = read_hosts(store)
        steered_at, _ = read_steered(store)
        if not hosts:
            return None
        view = FleetView(
            hosts, read_engines(store), read_wishes(store), read_waiting(store)
        )
    if steered_at <= applied.at:
        return UNSEEN
    return open_ends(applied.spec(), applied.version, models, view)
