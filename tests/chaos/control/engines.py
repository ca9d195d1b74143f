"""One of three engines is slow, hangs or fails; or all are well and have more to do."""

import os
import signal
import time

from benchmarks.report import Goal, Report
from modelserver.store.fleet.workers import read_backlog
from tests.chaos.control.fleet import ENGINES, Fleet
from tests.chaos.control.run import (
    Outcomes,
    Run,
    promises,
    relaunched_once,
    report,
)
from tests.chaos.control.stuttering import stuttering
from tests.chaos.control.traffic import Mix, wandering

SICK = ENGINES[1]
#: Requests a second that leave the engines room: each has about two at once.
STEADY = Mix(8.0)
#: An engine without peers.
LONE = ENGINES[:1]
#: Requests a second that leave an engine without peers room even when it is slow.
LIGHT = Mix(2.0)
#: How many times longer a request takes on the slow engine.
SLOW = 3.0
#: The share of requests that fail on the engine with errors.
ERRORS = 0.2
#: How long an engine may stay in service, in seconds, when it is slow.
SLOW_SECONDS = 90.0
#: The same when it is slow and has no peers.
LONE_SECONDS = 120.0
#: The same when its requests fail.
ERRORS_SECONDS = 90.0
#: The same when it hangs.
HUNG_SECONDS = 45.0
#: The same when it hangs and has no metrics.
SILENT_SECONDS = 90.0
#: An engine that stutters stands still for so many seconds ...
STANDS_SECONDS = 10.0
#: ... of every so many.
EVERY_SECONDS = 60.0
#: How long an engine may stay in service, in seconds, when it stutters.
STUTTER_SECONDS = 300.0
#: The most attempts that may fail.
MOST_FAILED = 50
#: Requests a second that the engines can answer. Three engines of 8 sequences, 24
#: tokens to each in steps of 38 ms and 35 new tokens of prompt, make 21; 20 were seen.
SUSTAINED = 20.0
#: How many times more requests arrive than they can answer.
OVER = 2.2
#: How long too many requests arrive, in seconds.
OVERLOAD_SECONDS = 80.0
#: Fewest and most words of a prompt at first.
SHORT_WORDS = (10, 60)
#: Fewest and most words of a prompt once prompts have grown.
LONG_WORDS = (100, 600)
#: How long prompts are long, in seconds.
LONG_SECONDS = 120.0


def engine_slow() -> Report:
    """One of three engines three times slower: drained, verified, relaunched once."""
    with Fleet() as fleet, Run(fleet, ENGINES, STEADY) as run:
        run.calibrate()
        run.strike(SICK)
        fleet.fault(SICK, slow=SLOW)
        run.await_ready()
        done = run.finish("slow")
    return report([done], [*promises([done]), *relaunched_once(done, SLOW_SECONDS)])


def lone_engine_slow() -> Report:
    """The only engine three times slower, on a host with processors to spare."""
    with Fleet(engines=LONE) as fleet, Run(fleet, LONE, LIGHT) as run:
        run.calibrate()
        run.strike(*LONE)
        fleet.fault(*LONE, slow=SLOW)
        run.await_ready()
        done = run.finish("slow, alone")
    return report([done], [*promises([done]), *relaunched_once(done, LONE_SECONDS)])


def engine_hung() -> Report:
    """SIGSTOP of one of three engines, with a token counter and without."""
    counted = _hung("hung")
    silent = _hung("hung, no counter", "--no-metrics")
    goals = [
        *promises([counted, silent], may_abort=True),
        *relaunched_once(counted, HUNG_SECONDS),
        *relaunched_once(silent, SILENT_SECONDS),
    ]
    return report([counted, silent], goals)


def _hung(name: str, *options: str) -> Outcomes:
    with Fleet(*options) as fleet, Run(fleet, ENGINES, STEADY) as run:
        run.calibrate()
        run.strike(SICK)
        fleet.process(SICK).send_signal(signal.SIGSTOP)
        run.await_ready()
        return run.finish(name)


def engine_stutters() -> Report:
    """SIGSTOP of one of three engines for 10 s of every 60, and SIGCONT."""
    with Fleet() as fleet, Run(fleet, ENGINES, STEADY) as run:
        run.calibrate()
        run.strike(SICK)
        with stuttering(fleet.process(SICK).pid, STANDS_SECONDS, EVERY_SECONDS):
            run.await_ready(STUTTER_SECONDS + 60)
        done = run.finish("stutters")
    goals = [*promises([done], may_abort=True), *relaunched_once(done, STUTTER_SECONDS)]
    told = [each for each in run.watch.reasons if each.startswith("stutters")]
    goals.append(Goal("told to stutter", len(told), 1))
    return report([done], goals, *told[:1])


def engine_errors() -> Report:
    """One of three engines fails at 20 % of its requests, which others answer."""
    with Fleet() as fleet, Run(fleet, ENGINES, STEADY) as run:
        run.calibrate()
        run.strike(SICK)
        fleet.fault(SICK, status=500, rate=ERRORS)
        run.await_ready()
        done = run.finish("errors")
    failed = Goal("failed attempts", done.failed, MOST_FAILED, at_most=True)
    goals = [*promises([done], may_abort=True), failed]
    return report([done], [*goals, *relaunched_once(done, ERRORS_SECONDS)])


def overload() -> Report:
    """2.2 times the requests that three engines sustain: the backlog grows, no more."""
    with Fleet() as fleet, Run(fleet, ENGINES, STEADY) as run:
        run.calibrate()
        run.strike()
        run.traffic.mix = Mix(OVER * SUSTAINED)
        before = run.load.answered()
        time.sleep(OVERLOAD_SECONDS)
        rate = (run.load.answered() - before) / OVERLOAD_SECONDS
        waiting = read_backlog(fleet.store, "m")
        run.traffic.mix = STEADY
        run.over()
        done = run.finish("overload")
    goals = [*promises([done]), Goal("backlog at the end of it", waiting, 1000)]
    note = f"a second: {OVER * SUSTAINED:.1f} sent, {rate:.1f} answered"
    return report([done], goals, note)


def long_prompts() -> Report:
    """Prompts ten times as long: slower requests on engines that are well."""
    with Fleet() as fleet, Run(fleet, ENGINES, Mix(5.0, SHORT_WORDS)) as run:
        run.calibrate()
        run.strike()
        run.traffic.mix = Mix(5.0, LONG_WORDS)
        time.sleep(LONG_SECONDS)
        run.traffic.mix = Mix(5.0, SHORT_WORDS)
        run.over()
        done = run.finish("long prompts")
    return report([done], promises([done]))


def engines_well() -> Report:
    """Engines that are well, under a load that wanders: nothing is flagged.

    Rate, prompts and answers change all the time. WATCH_SECONDS in the environment sets
    how long that goes.
    """
    with Fleet() as fleet, Run(fleet, ENGINES, STEADY) as run:
        run.calibrate()
        run.strike()
        for mix in wandering(rates=(0.5, 2.0, 5.0, 10.0, 18.0)):
            run.traffic.mix = mix
        run.traffic.mix = STEADY
        run.over()
        done = run.finish("well")
    busy = f"load of the machine at the end: {os.getloadavg()[0]:.1f}"
    return report([done], promises([done]), busy)
