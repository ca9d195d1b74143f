"""Names of keys. Queues and results carry the same prefix through kombu and Celery."""

import hashlib
import re
from dataclasses import dataclass

#: kombu's separator between a queue's name and a priority other than 0.
PRIORITY_SEPARATOR = "\x06\x16"
#: kombu's priority steps: 0 is served first, 9 last.
PRIORITIES = (0, 3, 6, 9)
#: Requests that an engine's list of samples keeps.
SAMPLES_KEPT = 64
#: Canaries that an engine's list keeps: several rounds.
CANARIES_KEPT = 16
#: Seconds by which samples and counters outlive an engine's last request.
SAMPLES_SECONDS = 7 * 86_400

#: A submitter's name is no longer than this in the names of lists, in characters.
SUBMITTER_LENGTH = 128
#: What a submitter's name may not hold in the names of lists: control characters, and
#: halves of characters.
_UNFIT_FOR_KEYS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def priority_step(priority: int | None) -> int:
    """Which of a queue's lists a priority goes to.

    >>> [priority_step(priority) for priority in (None, 0, 2, 3, 9)]
    [0, 0, 0, 1, 3]
    """
    return sum(each <= (priority or 0) for each in PRIORITIES) - 1


def list_name(value: object) -> str:
    """A submitter's name as a part of the names of lists.

    >>> list_name("team\\nA")
    'team%0AA'
    """
    name = str(value or "")
    if _UNFIT_FOR_KEYS.search(name):
        name = _UNFIT_FOR_KEYS.sub(lambda match: f"%{ord(match.group()):02X}", name)
    if len(name) > SUBMITTER_LENGTH:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        name = f"{name[: SUBMITTER_LENGTH - 17]}~{digest}"
    return name


@dataclass(frozen=True, slots=True)
class Keys:
    """Every key, below one prefix."""

    prefix: str

    def queue(self, name: str) -> list[str]:
        """The lists of one queue, most urgent first."""
        return [self.prefix + name] + [
            f"{self.prefix}{name}{PRIORITY_SEPARATOR}{step}" for step in PRIORITIES[1:]
        ]

    def is_of_filler(self, key: str) -> bool:
        """Whether a list is of the least urgent priority."""
        _, *steps = key.removeprefix(self.prefix).split(PRIORITY_SEPARATOR)
        return steps[:1] == [str(PRIORITIES[-1])]

    def of_submitter(self, key: str, submitter: str) -> str:
        """The list beside a queue's list that a submitter has to itself."""
        return f"{key}{PRIORITY_SEPARATOR}from:{list_name(submitter)}"

    def queue_of(self, key: str) -> str:
        """The queue that a list belongs to."""
        return key.removeprefix(self.prefix).partition(PRIORITY_SEPARATOR)[0]

    def result(self, task: str) -> str:
        """A task's result, as Celery's backend names it."""
        return f"{self.prefix}celery-task-meta-{task}"

    def put(self, task: str) -> str:
        """There while a repeat of a task, for which that is asked, is not put again."""
        return f"{self.prefix}put:{task}"

    def bell(self, name: str) -> str:
        """Channel that rings when something comes into an empty queue."""
        return f"{self.prefix}bell:{name}"

    def unacked(self, worker: str) -> str:
        """Hash of what a worker holds: delivery tag -> list and message."""
        return f"{self.prefix}unacked:{worker}"

    def published(self, task: str) -> str:
        """Set of what was published that follows a task, until that is settled."""
        return f"{self.prefix}published:{task}"

    @property
    def tags(self) -> str:
        """Counter of deliveries, a part of each one's tag."""
        return f"{self.prefix}tags"

    def worker(self, worker: str) -> str:
        """A worker's lease, whose value is its report. Ends with its time to live."""
        return f"{self.prefix}worker:{worker}"

    @property
    def workers(self) -> str:
        """Set of workers that have ever held a message and are not reaped."""
        return f"{self.prefix}workers"

    def shares(self, host: str) -> str:
        """Hash of what the workers of a host may have in flight: worker -> JSON."""
        return f"{self.prefix}shares:{host}"

    def trial(self, worker: str) -> str:
        """The delivery that a worker runs as the one under suspicion."""
        return f"{self.prefix}trial:{worker}"

    @property
    def memory_short(self) -> str:
        """Stands while the server's memory is short, and says how short."""
        return f"{self.prefix}memory:short"

    @property
    def memory_seen(self) -> str:
        """There for a moment after somebody looked at the server's memory."""
        return f"{self.prefix}memory:seen"

    @property
    def delayed(self) -> str:
        """Sorted set of messages with an ETA: list and message by due time."""
        return f"{self.prefix}delayed"

    @property
    def revoked(self) -> str:
        """Sorted set of revoked tasks by when they are forgotten."""
        return f"{self.prefix}revoked"

    @property
    def dead(self) -> str:
        """Hash of dead letters: task -> list, reason, time and message as JSON."""
        return f"{self.prefix}dead"

    @property
    def deadlines(self) -> str:
        """Sorted set of unanswered requests by deadline (seconds since the epoch)."""
        return f"{self.prefix}deadlines"

    def host(self, name: str) -> str:
        """A launcher's lease, whose value is its report."""
        return f"{self.prefix}host:{name}"

    @property
    def hosts(self) -> str:
        """Set of hosts that have ever reported."""
        return f"{self.prefix}hosts"

    @property
    def data(self) -> str:
        """A random name, there as long as the store keeps its data."""
        return f"{self.prefix}control:data"

    @property
    def engines(self) -> str:
        """Hash of launchers' reports: engine -> JSON."""
        return f"{self.prefix}engines"

    @property
    def engines_needed(self) -> str:
        """Hash of what workers need of each report: engine -> JSON."""
        return f"{self.prefix}engines:needed"

    @property
    def engine_versions(self) -> str:
        """Sorted set of engines by when workers had to look at them last."""
        return f"{self.prefix}engines:versions"

    @property
    def engines_version(self) -> str:
        """Counter of changes that workers had to look at."""
        return f"{self.prefix}engines:version"

    @property
    def desired(self) -> str:
        """Hash of what control wants: engine -> JSON."""
        return f"{self.prefix}desired"

    @property
    def incarnations(self) -> str:
        """Hash of counters of starts: engine -> number."""
        return f"{self.prefix}incarnations"

    @property
    def changed(self) -> str:
        """Channel that rings when an engine's report or wish changed."""
        return f"{self.prefix}changed"

    def samples(self, engine: str) -> str:
        """List of an engine's last requests, newest first."""
        return f"{self.prefix}samples:{engine}"

    def counters(self, engine: str) -> str:
        """Hash of an engine's totals: requests by outcome, tokens."""
        return f"{self.prefix}counters:{engine}"

    def model_times(self, model: str) -> str:
        """Hash of what is counted of a model: its requests' times, cut off answers."""
        return f"{self.prefix}times:{model}"

    def canaries(self, engine: str) -> str:
        """List of an engine's last canaries, newest first."""
        return f"{self.prefix}canaries:{engine}"

    @property
    def metrics(self) -> str:
        """Hash of what engines tell of themselves now: engine -> JSON."""
        return f"{self.prefix}metrics"

    @property
    def fleet(self) -> str:
        """The applied fleet: models, engines, rules and the like, with a version."""
        return f"{self.prefix}fleet"

    @property
    def lock(self) -> str:
        """Held by the controller at work."""
        return f"{self.prefix}control:lock"

    @property
    def token(self) -> str:
        """The fencing token of the newest controller."""
        return f"{self.prefix}control:token"

    @property
    def steered(self) -> str:
        """When control last looked at the fleet, and which controller that was."""
        return f"{self.prefix}control:steered"

    @property
    def waiting(self) -> str:
        """Hash of engines without a place: engine -> why. Replaced at each look."""
        return f"{self.prefix}control:waiting"

    @property
    def decisions(self) -> str:
        """Stream of decisions with the values that they were made from."""
        return f"{self.prefix}decisions"

    @property
    def operator(self) -> str:
        """Hash of operators' orders: "kind:target" -> JSON."""
        return f"{self.prefix}operator"

    @property
    def availability(self) -> str:
        """How each model stands, as JSON. Ends soon after control's last look."""
        return f"{self.prefix}availability"

    @property
    def outages(self) -> str:
        """Since when each model is missed, as JSON: control's memory of it."""
        return f"{self.prefix}control:outages"

    @property
    def silences(self) -> str:
        """Since when hosts are silent, as JSON: control's memory of it."""
        return f"{self.prefix}control:silences"

    @property
    def troubles(self) -> str:
        """Since when troubles stand, and what people were told of, as JSON."""
        return f"{self.prefix}control:troubles"

    @property
    def data_lost(self) -> str:
        """There for a while after a launcher found that the store lost its data."""
        return f"{self.prefix}control:data:lost"

    @property
    def alerts(self) -> str:
        """Stream of alerts."""
        return f"{self.prefix}alerts"

    @property
    def open_alerts(self) -> str:
        """Hash of alerts that still stand: what and about whom -> JSON."""
        return f"{self.prefix}alerts:open"

    @property
    def alert_counts(self) -> str:
        """Hash of totals: alerts raised, repeated, ended; hooks that failed."""
        return f"{self.prefix}alerts:counts"

    @property
    def unsent_alerts(self) -> str:
        """Hash of alerts that a hook did not take: key -> JSON."""
        return f"{self.prefix}alerts:unsent"

    def alerted(self, digest: str) -> str:
        """There as long as an alert is not to be repeated."""
        return f"{self.prefix}alerted:{digest}"

    @property
    def memory(self) -> str:
        """Hash of what control remembers: part -> JSON, deflated."""
        return f"{self.prefix}control:memory"

    @property
    def snapshots(self) -> str:
        """Stream of what the last decisions were made from, deflated."""
        return f"{self.prefix}control:snapshots"

    def run(self, name: str, round: int = 0, part: str = "") -> str:
        """A part of a round of a run; without them, the number of its round.

        ``sent`` and ``done`` begin the names of bitmaps by row, ``answers`` is the
        stream of those that nobody has settled, ``cancelled`` stands once it is.
        """
        head = f"{self.prefix}run:{list_name(name)}"
        return f"{head}:{round}:{part}" if part else head

    def stream(self, task: str) -> str:
        """List of the parts of an answer that is told while it is generated."""
        return f"{self.prefix}stream:{task}"

    def gateway(self, gateway: str) -> str:
        """Channel of the parts that one process of the gateway waits for."""
        return f"{self.prefix}gateway:{gateway}"

    @property
    def hosted_open(self) -> str:
        """Sorted set of submitted runs that have not ended, by when they were."""
        return f"{self.prefix}hosted:open"

    @property
    def hosted_ended(self) -> str:
        """Sorted set of submitted runs that have ended, by when they did."""
        return f"{self.prefix}hosted:ended"

    def hosted_run(self, run: str) -> str:
        """Hash of what is kept of a submitted run."""
        return f"{self.prefix}hosted:run:{run}"

    @property
    def program_runs(self) -> str:
        """Sorted set of runs of programs, by when they last said how far they are."""
        return f"{self.prefix}program:runs"

    def program_run(self, run: str) -> str:
        """What such a run last said of itself."""
        return f"{self.prefix}program:run:{run}"

    @property
    def holders(self) -> str:
        """Set of processes that have carried out submitted runs."""
        return f"{self.prefix}hosted:holders"

    def holder(self, name: str) -> str:
        """Such a process's sign of life, whose value is its report."""
        return f"{self.prefix}hosted:holder:{name}"

    @property
    def api_keys(self) -> str:
        """Hash of API keys: digest of the secret -> JSON."""
        return f"{self.prefix}api:keys"

    def minute(self, name: str, minute: int) -> str:
        """Hash of what an API key asked for in a minute of the epoch."""
        return f"{self.prefix}api:minute:{name}:{minute}"

    def books(self, name: str, day: str) -> str:
        """Hash of what an API key used on a day, by model."""
        return f"{self.prefix}api:day:{day}:{name}"

    def counted(self, task: str) -> str:
        """There while what a request used is not counted again."""
        return f"{self.prefix}api:counted:{task}"

    @property
    def in_books(self) -> str:
        """Set of the API keys that ever used anything."""
        return f"{self.prefix}api:names"

    @property
    def answers(self) -> str:
        """Hash of totals: results stored, late results refused."""
        return f"{self.prefix}answers"
