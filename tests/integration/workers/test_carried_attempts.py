"""Attempts are counted by request, over two hosts with an engine each."""

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from modelserver.errors import EngineError, RequestError
from modelserver.operations.status import read_status
from modelserver.store.fleet.measurements import read_counters, read_samples
from modelserver.values import Outcome
from tests.engine.openai_api import answer_text
from tests.support.processes import ValkeyProcess, eventually
from tests.support.shared_fleet import prompts
from tests.support.workers import PATIENCE, FleetSite, answers, open_fleet

#: What engines fail at, if they are told to.
POISON = "arsenic"
HOSTS = {"writer-0": "h1", "writer-1": "h2"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetSite]:
    """Two workers of different hosts, each with an engine."""
    folder = tmp_path_factory.mktemp("pair")
    valkey = ValkeyProcess(folder).start()
    with open_fleet(folder, valkey.url) as site:
        for name, host in HOSTS.items():
            site.engine(name, "--latency", "0.2", host=host, limit=8)
            site.worker(host=host)
        yield site
    valkey.stop()


@pytest.fixture
def fleet(pair: FleetSite) -> FleetSite:
    """Both engines well, and both have answered."""
    for engine in pair.engines.values():
        engine.fault()
    before = received(pair)
    while received(pair).keys() - (received(pair) - before).keys():
        answers(pair.send(prompts("hello", 16)))
    return pair


def received(fleet: FleetSite) -> Counter[str]:
    """How many requests each engine got so far."""
    return Counter(
        {name: each.stats()["received"] for name, each in fleet.engines.items()}
    )


def outcomes(fleet: FleetSite) -> Counter[str]:
    """How many attempts ended in which way so far, on both engines."""
    total: Counter[str] = Counter()
    for name in fleet.engines:
        total.update(read_counters(fleet.store, name))
    return total


def test_poison_among_others_costs_few_attempts(fleet: FleetSite):
    for engine in fleet.engines.values():
        engine.fault(status=500, marked=POISON)
    chance, before = random.Random(1), outcomes(fleet)
    texts = [
        f"{POISON} {number}" if chance.random() < 0.15 else f"sound {number}"
        for number in range(400)
    ]
    results = dict(zip(texts, fleet.send(texts), strict=True))
    bad = [results.pop(text) for text in texts if POISON in text]
    assert answers(list(results.values())) == [answer_text(text) for text in results]
    for result in bad:  # The last of them with nobody else on the engines.
        with pytest.raises(RequestError, match="an injected fault"):
            result.get(PATIENCE)

    def told() -> Counter[str]:
        return outcomes(fleet) - before

    eventually(
        lambda: told()[Outcome.WITHDRAWN] == told()[Outcome.ENGINE_FAULT], PATIENCE
    )
    attempts = told()[Outcome.ENGINE_FAULT] + told()[Outcome.REPEATED]
    # Two or three once the workers know; on a busy machine more before that.
    assert attempts <= 6 * len(bad), attempts / len(bad)


def test_where_nobody_else_asks_the_worker_does(fleet: FleetSite):
    for engine in fleet.engines.values():
        engine.fault(status=500, marked=POISON)
    before = received(fleet)
    results = fleet.send([f"{POISON} {number}" for number in range(6)])
    for result in results:
        with pytest.raises(RequestError, match="an injected fault"):
            result.get(PATIENCE)
    # Twenty attempts of each once, with a hundred seconds of waits.
    assert (received(fleet) - before).total() <= 8 * len(results)


def test_a_request_at_fault_is_tried_on_another_host_and_told_so(fleet: FleetSite):
    for engine in fleet.engines.values():
        engine.fault(status=500, marked=POISON)
    outcomes_before = outcomes(fleet)

    def try_on_both() -> Counter[str] | None:
        before = received(fleet)
        with pytest.raises(RequestError, match="an injected fault"):
            fleet.complete.delay(POISON).get(PATIENCE)
        tried = received(fleet) - before
        return tried if tried.keys() == fleet.engines.keys() else None

    # A host that is too busy to take what the other one leaves it may miss one.
    tried = eventually(try_on_both, PATIENCE)
    # Twenty attempts of each once, and as many looks at how the engines do.
    assert tried
    assert tried.total() <= 15

    def told() -> Counter[str]:
        return outcomes(fleet) - outcomes_before

    eventually(lambda: told()[Outcome.WITHDRAWN] >= 1, PATIENCE)
    eventually(
        lambda: told()[Outcome.WITHDRAWN] == told()[Outcome.ENGINE_FAULT], PATIENCE
    )
    assert told()[Outcome.REPEATED] >= 1


def test_what_is_withdrawn_is_no_request(fleet: FleetSite):
    for engine in fleet.engines.values():
        engine.fault(status=500, marked=POISON)
    with pytest.raises(RequestError):
        fleet.complete.delay(POISON).get(PATIENCE)
    samples = [s for name in HOSTS for s in read_samples(fleet.store, name)]
    eventually(
        lambda: any(
            sample.outcome is Outcome.WITHDRAWN
            for name in HOSTS
            for sample in read_samples(fleet.store, name)
        ),
        PATIENCE,
    )
    assert samples
    for engine in read_status(fleet.store, fleet.settings).engines:
        counts = read_counters(fleet.store, engine.id)
        assert engine.requests == sum(counts.get(each, 0) for each in TOLD)


#: The outcomes of attempts.
TOLD = [each for each in Outcome if each.is_attempt]


def test_what_an_engine_fails_at_is_answered_by_that_of_another_host(
    fleet: FleetSite,
):
    fleet.engines["writer-0"].fault(status=500, marked=POISON)
    before = outcomes(fleet)
    texts = [f"{POISON} {number}" for number in range(12)]
    assert answers(fleet.send(texts)) == [answer_text(text) for text in texts]
    assert not (outcomes(fleet) - before)[Outcome.WITHDRAWN]


def test_what_is_passed_on_is_not_taken_back(fleet: FleetSite):
    """The other host has a free place once in a while, its own many a second."""
    fleet.engines["writer-0"].fault(status=500, marked=POISON)
    fleet.engines["writer-1"].fault(slow=8.0)
    before = outcomes(fleet)
    texts = [
        f"{POISON if number % 20 == 0 else 'sound'} {number}" for number in range(240)
    ]
    assert answers(fleet.send(texts)) == [answer_text(text) for text in texts]
    told = outcomes(fleet) - before
    # Each failed on the one host once, at most.
    assert told[Outcome.ENGINE_FAULT]
    assert not told[Outcome.REPEATED]


def test_twenty_attempts_are_twenty_over_all_hosts(fleet: FleetSite):
    for engine in fleet.engines.values():
        engine.fault(status=429, marked=POISON)
    before = received(fleet)
    told = {"attempts": 19, "passes": 5, "tries": [["writer-0", 1, "", 1.0]]}
    result = fleet.complete.apply_async((POISON,), headers={"failed_tries": told})
    with pytest.raises(EngineError, match="failed 20 times"):
        result.get(PATIENCE)
    assert (received(fleet) - before).total() == 1


def test_what_waits_for_its_next_attempt_takes_no_room(fleet: FleetSite):
    for engine in fleet.engines.values():
        engine.fault(status=503, retry_after=6, marked=POISON)
    before = received(fleet)
    waiting = fleet.send([f"{POISON} {number}" for number in range(60)])
    eventually(lambda: (received(fleet) - before).total() >= 60, PATIENCE)
    texts = prompts("beside", 60)
    assert answers(fleet.send(texts)) == [answer_text(text) for text in texts]
    assert not any(result.ready() for result in waiting)
    for engine in fleet.engines.values():
        engine.fault()
    assert len(answers(waiting)) == 60
