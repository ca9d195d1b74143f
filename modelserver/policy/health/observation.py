"""What control sees of each engine at one look. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from modelserver.inventory import Host
from modelserver.measured import Canary, Sample
from modelserver.policy.health.memory import EngineMemory, HealthMemory, type_key
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineReport, ModelSpec


@dataclass(frozen=True, slots=True)
class Observation:
    """One engine as control sees it at one look."""

    report: EngineReport
    spec: ModelSpec
    #: Its host and GPUs.
    place: str
    #: The type of its GPUs, "" without any.
    gpu: str
    #: Its last requests, newest first.
    samples: Sequence[Sample]
    #: Its last canaries, newest first.
    canaries: Sequence[Canary]
    #: Whether it computes on its host's processors, as it does without GPUs.
    on_processors: bool = False
    #: How busy the processors of its host are, 0 to 1; 0 for an engine that computes on
    #: GPUs, or on a machine that nobody reports of.
    host_busy: float = 0.0
    #: By ``fresh_from``: what ``fresh_samples`` has found, as a look asks repeatedly.
    _fresh: dict[float, list[Sample]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def type(self) -> str:
        """The key of its type, by which its fit is found."""
        return type_key(self.spec.name, self.gpu)

    def idle_seconds(self, since: float = 0.0) -> list[float]:
        """Seconds of this incarnation's idle canaries, newest first."""
        return [each.seconds for each in self.own_canaries(since) if not each.loaded]

    def loaded_seconds(self, since: float = 0.0) -> list[float]:
        """Seconds of this incarnation's loaded canaries, newest first."""
        return [each.seconds for each in self.own_canaries(since) if each.loaded]

    def own_canaries(self, since: float = 0.0) -> list[Canary]:
        """This incarnation's canaries, newest first."""
        return [
            each
            for each in self.canaries
            if each.incarnation == self.report.incarnation and each.at >= since
        ]

    def fresh_samples(self, memory: EngineMemory) -> list[Sample]:
        """This incarnation's samples since ``fresh_from``, newest first."""
        since, incarnation = memory.fresh_from, self.report.incarnation
        if since not in self._fresh:
            self._fresh[since] = [
                each
                for each in self.samples
                if each.incarnation == incarnation and each.ended_at >= since
            ]
        return self._fresh[since]


def observations_of(
    snapshot: Snapshot, busy: Collection[str]
) -> dict[str, Observation]:
    """The engines about which control may decide: on the live host they are wanted on.

    Leaves out those of ``busy``, about which something else has been decided.
    """
    specs = {spec.name: spec for spec in snapshot.specs}
    hosts = {host.name: host for host in snapshot.hosts}
    observations = {}
    for name, wish in sorted(snapshot.wishes.items()):
        report, spec = snapshot.engines.get(name), specs.get(wish.spec.model)
        if report is None or spec is None or name in busy:
            continue
        if report.host == wish.spec.host and report.host in hosts:
            observations[name] = _observation(
                snapshot, report, spec, hosts[report.host]
            )
    return observations


def _observation(
    snapshot: Snapshot, report: EngineReport, spec: ModelSpec, host: Host
) -> Observation:
    place = snapshot.wishes[report.id].spec
    used = [
        gpu
        for gpu in host.gpus
        if gpu.uuid in place.uuids or (not place.uuids and gpu.index in place.gpus)
    ]
    on_processors = not used and not place.url
    return Observation(
        report=report,
        spec=spec,
        place="/".join([report.host, *(gpu.uuid for gpu in used)]),
        gpu="+".join(sorted({gpu.name for gpu in used})),
        samples=snapshot.samples.get(report.id, ()),
        canaries=snapshot.canaries.get(report.id, ()),
        on_processors=on_processors,
        host_busy=host.busy if on_processors else 0.0,
    )


def remembered(
    memory: HealthMemory,
    snapshot: Snapshot,
    observations: Mapping[str, Observation],
    now: float,
) -> dict[str, EngineMemory]:
    """The memories of the wanted engines; one in a new place begins anew."""
    known = {
        name: own for name, own in memory.engines.items() if name in snapshot.wishes
    }
    for name, observation in observations.items():
        old = known.get(name)
        if old is None or old.place != observation.place:
            # The numbers of canary rounds go on from the one that the launcher knows.
            known[name] = EngineMemory(
                observation.report.incarnation,
                observation.place,
                since=now,
                round=snapshot.wishes[name].canary,
            )
    return known
