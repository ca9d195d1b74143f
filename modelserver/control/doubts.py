"""What is doubtful about a fleet that is to be applied, though it may be meant so."""

from collections.abc import Collection, Iterable, Iterator

from modelserver.fleet.arguments import names_port
from modelserver.fleet.engine_versions import find_model_version_problem
from modelserver.fleet.file import Fleet
from modelserver.inventory import Host
from modelserver.missing_files import describe_missing, files_named


def find_doubts(
    fleet: Fleet, reports: Collection[Host], here: str = ""
) -> tuple[str, ...]:
    """A sentence for each doubt; ``reports`` are those of the hosts.

    Where this program runs on a host of the fleet, ``here``, files are looked for.
    """
    known = {report.name for report in reports}
    return (
        *_hosts(fleet, known),
        *_gpus(fleet, reports),
        *_commands(fleet),
        *_versions(fleet),
        *(_files(fleet, here) if here in known else ()),
    )


def _hosts(fleet: Fleet, known: Collection[str]) -> Iterator[str]:
    if not known:
        return  # No launcher runs yet.
    names = ", ".join(sorted(known))
    remedy = f"start its launcher, or correct the name (hosts that report: {names})"
    for host in fleet.hosts:
        if host.name not in known:
            yield f'no launcher of host "{host.name}" reports; {remedy}'
    listed = {host.name for host in fleet.hosts}
    for model in fleet.models:
        for name in model.hosts:
            if name not in {*known, *listed}:
                yield (
                    f'model {model.name} names host "{name}", whose launcher does not '
                    f"report; {remedy}"
                )
    for pin in fleet.pins():
        if pin.host and pin.host not in {*known, *listed}:
            yield (
                f"engine {pin.id} is pinned to host "
                f'"{pin.host}", whose launcher does not report; {remedy}'
            )


def _gpus(fleet: Fleet, reports: Iterable[Host]) -> Iterator[str]:
    """GPUs that are named and that their host does not have."""
    there = {report.name: {gpu.index for gpu in report.gpus} for report in reports}
    named = [("[[hosts]]", host.name, host.gpus or ()) for host in fleet.hosts]
    named += [(f"engine {pin.id}", pin.host, pin.gpus) for pin in fleet.pins()]
    for who, host, gpus in named:
        lacking = sorted(set(gpus) - there.get(host, set(gpus)))
        if lacking:
            told = ", ".join(map(str, lacking))
            may = ", ".join(map(str, sorted(there[host]))) or "none"
            yield f'{who} names GPU {told} of host "{host}", which reports {may}'


def _files(fleet: Fleet, here: str) -> Iterator[str]:
    """Files that this host's engines need and that are not on it."""
    for model in fleet.specs():
        hosts = [pin.host for pin in fleet.pins() if pin.model == model.name]
        elsewhere = len(hosts) >= model.max_engines and not {here, ""} & set(hosts)
        if elsewhere or here not in (model.hosts or [here]):
            continue
        for key, path in files_named(model):
            if missing := describe_missing(path):
                yield f"model {model.name}, host {here}: {key} {missing}"


def _versions(fleet: Fleet) -> Iterator[str]:
    """Versions of engines that launchers of this version do not run."""
    for model in fleet.specs():
        if problem := find_model_version_problem(model):
            yield f"model {model.name}: {problem}"


def _commands(fleet: Fleet) -> Iterator[str]:
    for model in fleet.specs():
        words = (*model.command, *model.extra_args)
        if not model.command or names_port(words):
            continue
        pins = [pin for pin in fleet.pins() if pin.model == model.name]
        told = [pin for pin in pins if pin.port or names_port(pin.extra_args)]
        if len(told) < max(len(pins), model.max_engines):
            yield (
                f"model {model.name}: its command does not say {{port}}, so an engine "
                "without a port of its own does not hear on which it is to listen"
            )
