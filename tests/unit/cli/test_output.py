"""Tables on screens of any width."""

import pytest
from rich.console import Console

from modelserver.cli.output import FittingTable, printer, table


def drawn(width: int) -> list[str]:
    """The lines of a table of five columns, the third and fourth of them spare."""
    made = table("Engines", "engine", "state", "p95", "errors", "reason")
    made.add_row("tiny-chat-0", "STARTING", "0.2 s", "0", "loading weights " * 4)
    screen = Console(width=width, color_system=None)
    with screen.capture() as captured:
        screen.print(FittingTable(made, ("errors", "p95")))
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize(
    ("width", "header", "told"),
    [
        (200, "engine       state     p95    errors  reason", None),
        (60, "engine       state     p95    reason", "(no room for errors)"),
        (50, "engine       state     reason", "(no room for errors, p95)"),
        (30, "engine", "(no room for errors, p95)"),
    ],
)
def test_a_narrow_screen_shows_fewer_columns_and_whole_words(
    width: int, header: str, told: str | None
):
    lines = drawn(width)
    assert any(line.startswith(header) for line in lines), lines
    assert all(len(line) <= width for line in lines)
    assert (told in lines) if told else not any("no room" in line for line in lines)


@pytest.mark.parametrize("width", range(40, 90))
def test_what_is_shown_beside_a_long_reason_is_whole(width: int):
    numbers = ("inc", "errors", "in-flight", "p50")
    made = table("Engines", "engine", "host", *numbers, "reason", numbers=numbers)
    made.add_row("m-0", "gpu-1", "12", "9,876", "0/64", "0.216 s", "waits " * 40)
    screen = Console(width=width, color_system=None)
    with screen.capture() as captured:
        screen.print(FittingTable(made, ("inc", "host", "errors", "p50")))
    header, row = captured.get().splitlines()[1:3]
    whole = {"m-0", "gpu-1", "12", "9,876", "0/64", "0.216", "s", "waits"}
    assert set(row.split()) <= whole
    assert row.count("0.216 s ") == row.count("0.2")
    assert set(header.split()) <= {"engine", "host", *numbers, "reason"}


def test_what_programs_say_stays_in_one_line():
    screen = Console(width=40, color_system=None)
    told = "engine m-0 is FATAL, incarnation 1: see /var/lib/modelserver/logs/m-0.log"
    with screen.capture() as captured:
        printer(screen, markup=False, highlight=False)(told)
    assert captured.get() == f"{told}\n"
