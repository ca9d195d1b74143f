"""On which GPUs an engine is not to be tried again."""

from launcher.engine.failed_place import FailedPlace
from modelserver.policy.lifecycle import Died

HERE, THERE = ("GPU-a",), ("GPU-b",)
MISSING = Died("path /nfs/m is not there", may_heal=True)


def test_gpus_are_given_up_after_the_second_death_that_others_may_not_have():
    once = FailedPlace().after(MISSING, HERE)
    assert once.given_up == ()
    twice = once.after(MISSING, HERE)
    assert twice.given_up == HERE
    # On others it begins anew, and what would happen anywhere counts for nothing.
    assert twice.after(MISSING, THERE).given_up == ()
    assert once.after(Died("exit code 1"), HERE).given_up == ()
