"""The engines as control sees them at one look. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from modelserver.inventory import Host
from modelserver.policy.health.memory import EngineMemory, HealthMemory, type_key
from modelserver.policy.snapshot import Snapshot
from modelserver.values import Canary, EngineReport, ModelSpec, Sample


@dataclass(frozen=True, slots=True)
class Observation:
    """One engine as control sees it at one look.

    ``crowd`` is how busy the processors are that it computes on, 0 to 1; 0 for one
    that has GPUs, or that somebody else runs on what we do not see.
    """

    report: EngineReport
    spec: ModelSpec
    place: str
    gpu: str
    samples: Sequence[Sample]
    canaries: Sequence[Canary]
    crowd: float = 0.0

    @property
    def type(self) -> str:
        """Which fit it goes by."""
        return type_key(self.spec.name, self.gpu)

    def idle(self, since: float = 0.0) -> list[float]:
        """Seconds of this incarnation's idle canaries, newest first."""
        return [each.seconds for each in self.own(since) if not each.loaded]

    def loaded(self, since: float = 0.0) -> list[float]:
        """The same of the loaded ones."""
        return [each.seconds for each in self.own(since) if each.loaded]

    def own(self, since: float = 0.0) -> list[Canary]:
        """This incarnation's canaries, newest first."""
        return [
            each
            for each in self.canaries
            if each.incarnation == self.report.incarnation and each.at >= since
        ]

    def fresh(self, memory: EngineMemory) -> list[Sample]:
        """The samples that count, newest first: this incarnation's, of this life."""
        return [
            each
            for each in self.samples
            if each.incarnation == self.report.incarnation
            and each.ended_at >= memory.fresh_from
        ]


def sights_of(snapshot: Snapshot, busy: Collection[str]) -> dict[str, Observation]:
    """The engines about which control may decide: where they are wanted, and live.

    Leaves out those of ``busy``, about which something else has been decided.
    """
    specs = {spec.name: spec for spec in snapshot.specs}
    hosts = {host.name: host for host in snapshot.hosts}
    sights = {}
    for name, wish in sorted(snapshot.wishes.items()):
        report, spec = snapshot.engines.get(name), specs.get(wish.spec.model)
        if report is None or spec is None or name in busy:
            continue
        if report.host == wish.spec.host and report.host in hosts:
            sights[name] = _sight(snapshot, report, spec, hosts[report.host])
    return sights


def _sight(
    snapshot: Snapshot, report: EngineReport, spec: ModelSpec, host: Host
) -> Observation:
    place = snapshot.wishes[report.id].spec
    used = [
        gpu
        for gpu in host.gpus
        if gpu.uuid in place.uuids or (not place.uuids and gpu.index in place.gpus)
    ]
    return Observation(
        report=report,
        spec=spec,
        place="/".join([report.host, *(gpu.uuid for gpu in used)]),
        gpu="+".join(sorted({gpu.name for gpu in used})),
        samples=snapshot.samples.get(report.id, ()),
        canaries=snapshot.canaries.get(report.id, ()),
        crowd=0.0 if used or place.url else host.busy,
    )


def remembered(
    memory: HealthMemory,
    snapshot: Snapshot,
    sights: Mapping[str, Observation],
    now: float,
) -> dict[str, EngineMemory]:
    """What is remembered of the wanted engines; one in a new place is a new one."""
    known = {
        name: own for name, own in memory.engines.items() if name in snapshot.wishes
    }
    for name, sight in sights.items():
        old = known.get(name)
        if old is None or old.place != sight.place:
            # Canaries go on being numbered where whoever sends them knows the number.
            known[name] = EngineMemory(
                sight.report.incarnation,
                sight.place,
                since=now,
                round=snapshot.wishes[name].canary,
            )
    return known
