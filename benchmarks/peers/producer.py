"""The side that submits and reads back, the same program for every peer.

``fill N`` submits N tasks, ``trickle RATE SECONDS`` submits at a steady rate; both
print ``TIME ID KEY`` for each, KEY being that of its result in Redis. ``read`` takes
ids from its input, reads each result by the library's own means and prints how many
were right.
"""

import sys
import time
from collections.abc import Callable

Submit = Callable[[str], tuple[str, str]]
Read = Callable[[str], str]


def prompt(number: int) -> str:
    """A prompt of the length of a short question."""
    return f"request {number}: where does the mug stand, and is it clean? " * 2


def main(submit: Submit, read: Read) -> None:
    """Do what the command line asks for."""
    action, *numbers = sys.argv[1:]
    if action == "fill":
        for number in range(int(numbers[0])):
            _show(time.monotonic(), *submit(prompt(number)))
    elif action == "trickle":
        _trickle(submit, int(numbers[0]), float(numbers[1]))
    else:
        ids = sys.stdin.read().split()
        print(sum(read(one).startswith("echo ") for one in ids))


def _trickle(submit: Submit, rate: int, seconds: float) -> None:
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        time.sleep(max(0.0, due - time.monotonic()))
        at = time.monotonic()
        _show(at, *submit(prompt(number)))
        sys.stdout.flush()


def _show(at: float, task: str, key: str) -> None:
    print(f"{at:.6f}\t{task}\t{key}")
