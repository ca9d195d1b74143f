"""What the numbers of the fleet file cannot exceed. Pure.

A typing error of some zeros must not have control plan for ever, or a timer overflow.
"""

from collections.abc import Iterator

from pydantic import BaseModel

#: The most seconds of any key: about 30 years, which stand for "never".
MOST_SECONDS = 1e9
#: The most by the ends of keys' names: engines of a model, tokens, requests, GiB.
MOST = {
    # A program that runs cannot be waited for much longer: its timer would overflow.
    "hook_seconds": 86_400,
    "_seconds": MOST_SECONDS,
    "_engines": 10_000,
    "context_length": 2**31 - 1,
    "max_tokens": 2**31 - 1,
    "max_running": 1_000_000,
    "data_parallel": 1024,
    "_gib": 1_000_000,
    "_connections": 1_000_000,
    "per_second": 1e9,
}


def find_bound_problems(section: BaseModel) -> Iterator[str]:
    """Which of a section's numbers are larger than they can be meant.

    >>> from modelserver.fleet.sections import RulesSection
    >>> list(find_bound_problems(RulesSection(lease_seconds=1e12)))
    ['lease_seconds is 1e+12; it can be 1e+09 at most']
    """
    for name, value in section:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        for end, most in MOST.items() if is_number else ():
            if name.endswith(end) and value > most:
                yield f"{name} is {value:g}; it can be {most:g} at most"
