"""Rows are checked like requests, and cut into bundles by rows and by bytes."""

import pytest

from modelserver.errors import (
    ModelUnavailableError,
    RequestError,
    UnknownModelError,
)
from modelserver.messaging.bundles import read_bundle
from modelserver.messaging.catalogue import Catalogue, CatalogueEntry, Down
from modelserver.messaging.wire import CHAT, COMPLETE, EMBED
from modelserver.runs.cutting import (
    MOST_BUNDLE_BYTES,
    CheckedRow,
    RowChecks,
    Sender,
    cut,
)
from modelserver.runs.rows import Row
from modelserver.store.batch import DEADLINE
from modelserver.values import Kind

MODELS = Catalogue(
    (
        CatalogueEntry("writer", Kind.COMPLETION, context_length=100),
        CatalogueEntry("other", Kind.COMPLETION),
        CatalogueEntry("vectors", Kind.EMBEDDING),
    ),
    {"completion": "writer"},
)
SENDER = Sender("r", 1, "r", None, None)


def checked(*rows: Row) -> list[CheckedRow]:
    checks = RowChecks(lambda: MODELS)
    return [checks.check(row) for row in rows]


def prompts(number: int, **parameters: object) -> list[Row]:
    shared = dict(parameters)
    return [Row(place, COMPLETE, f"p{place}", shared) for place in range(number)]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (Row(0, COMPLETE, "", {}), RequestError),
        (Row(0, COMPLETE, "a", {"model": "none"}), UnknownModelError),
        (Row(0, EMBED, "a", {"model": "writer"}), UnknownModelError),
        (Row(0, COMPLETE, "a", {"max_tokens": 100}), RequestError),
        (Row(0, COMPLETE, "a", {"top_q": 1}), RequestError),
        (Row(0, COMPLETE, "a", {"deadline": -1}), RequestError),
        (Row(0, COMPLETE, "a\udfff", {}), RequestError),
        (Row(0, CHAT, [], {}), RequestError),
        (Row(0, EMBED, [""], {}), RequestError),
    ],
)
def test_what_delay_refuses_is_refused(row: Row, kind: type[Exception]):
    with pytest.raises(kind):
        checked(row)


def test_rows_that_share_their_parameters_are_checked_each():
    shared = {"max_tokens": 5}
    with pytest.raises(RequestError, match="empty"):
        checked(Row(0, COMPLETE, "a", shared), Row(1, COMPLETE, "", shared))
    with pytest.raises(RequestError, match="half of a"):
        checked(Row(0, COMPLETE, "a", shared), Row(1, COMPLETE, "\ud800", shared))


def test_a_model_that_is_down_is_not_waited_for_where_the_fleet_says_so():
    down = MODELS.with_down({"writer": Down("writer", "fail", reason="no GPU")})
    now = [MODELS]
    checks = RowChecks(lambda: now[0])
    checks.check(Row(0, COMPLETE, "a", {}))
    now[0] = down
    with pytest.raises(ModelUnavailableError):
        checks.check(Row(1, COMPLETE, "b", {}))


def test_bundles_are_cut_by_rows():
    found = list(cut(checked(*prompts(10)), SENDER, lambda model: 4))
    assert [bundle.numbers for _, bundle in found] == [
        (0, 1, 2, 3),
        (4, 5, 6, 7),
        (8, 9),
    ]
    assert {queue for queue, _ in found} == {"writer"}


def test_bundles_are_cut_by_bytes():
    long = "x" * (MOST_BUNDLE_BYTES // 3 + 1)
    rows = checked(*[Row(place, COMPLETE, long, {}) for place in range(5)])
    found = [bundle.numbers for _, bundle in cut(rows, SENDER, lambda model: 64)]
    assert found == [(0, 1), (2, 3), (4,)]


def test_tasks_and_models_and_deadlines_go_apart():
    rows = checked(
        Row(0, COMPLETE, "a", {}),
        Row(1, EMBED, "a", {}),
        Row(2, COMPLETE, "b", {"model": "other"}),
        Row(3, COMPLETE, "c", {"deadline": 5}),
        Row(4, COMPLETE, "d", {"model": "writer"}),
    )
    found = [(queue, each.numbers) for queue, each in cut(rows, SENDER, lambda _: 9)]
    assert found == [
        ("writer", (0, 4)),
        ("vectors", (1,)),
        ("other", (2,)),
        ("writer", (3,)),
    ]


def test_a_row_says_its_own_parameters_where_they_differ():
    rows = checked(
        Row(0, COMPLETE, "a", {"seed": 1}),
        Row(1, COMPLETE, "b", {"seed": 1}),
        Row(2, COMPLETE, "c", {"seed": 2}),
    )
    ((_, bundle),) = cut(rows, SENDER, lambda model: 9)
    found = read_bundle(bundle.message)
    assert found
    own = [row.parameters for row in found.rows]
    assert own == [None, None, {"seed": 2, "model": "writer"}]
    assert found.body[1]["parameters"] == {"seed": 1, "model": "writer"}


def test_the_sooner_of_two_deadlines_counts():
    rows = checked(*prompts(1, deadline=1e9))
    sender = Sender("r", 1, "r", None, due=5.0)
    ((_, bundle),) = cut(rows, sender, lambda model: 9)
    found = read_bundle(bundle.message)
    assert found
    assert found.body[1]["state"][DEADLINE] == 5.0
    assert "deadline" not in found.body[1]["parameters"]
