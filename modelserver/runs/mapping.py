"""``map_prompts``: answers to any iterable of prompts, with bounded memory."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from celery import Celery

from modelserver.api import default_client
from modelserver.errors import AnswerFormError, RequestError
from modelserver.messaging.wire import KINDS
from modelserver.parameters import check_priority, plain
from modelserver.runs.answer import PromptAnswer, answer_of
from modelserver.runs.answer_cache import MAX_AGE_SECONDS, MAX_BYTES, CacheFile
from modelserver.runs.feeder import Feeder
from modelserver.runs.interrupts import InterruptWatch, is_cancelled
from modelserver.runs.journaled_lane import JournaledLane
from modelserver.runs.lane import Lane
from modelserver.runs.progress import open_bar
from modelserver.runs.prompts import (
    SOUND_PROMPTS,
    Template,
    check,
    check_call,
    check_many,
    length_of,
    payload_of,
    task_of,
)
from modelserver.runs.repeats import AnswersOfRun, Form, unsent
from modelserver.runs.rows import Answered, Row, RowError
from modelserver.runs.telling import RunTeller

log = logging.getLogger(__name__)

#: What ``on_error`` may be.
ON_ERROR = ("raise", "return", "skip")


def map_prompts(
    prompts: Iterable[Any],
    *,
    model: str | None = None,
    ordered: bool = True,
    on_error: str = "raise",
    deadline: float | None = None,
    priority: int | None = None,
    progress: bool | None = None,
    template: str | None = None,
    is_chat: bool = False,
    journal: str | PathLike[str] | None = None,
    cache: bool | str | PathLike[str] | None = None,
    cache_max_bytes: int = MAX_BYTES,
    cache_max_age_seconds: float = MAX_AGE_SECONDS,
    response_format: Any = None,
    app: Celery | None = None,
    **sampling: Any,
) -> "PromptRun":
    """Answer any iterable of prompts: ``for answer in map_prompts(prompts): ...``.

    A prompt is a text, a list of messages, or with ``template`` an object whose columns
    fill it. The answers come in the order of the prompts unless ``ordered`` is false,
    by ``for`` or by ``async for``. ``on_error`` says what a prompt without an answer
    does: "raise" its error, "return" an answer with ``error``, or "skip".
    ``is_chat`` sends texts as a user's messages. ``deadline`` and ``sampling`` are
    those of ``complete`` and ``chat``. ``response_format`` may be a pydantic class:
    then ``value`` is its instance. Identical prompts are asked once with ``cache``,
    by default at temperature 0; a path keeps answers for other runs too, in a file of
    at most so many bytes and for at most so many seconds. ``journal`` names a file: the
    same call goes on with what it has after any end. ``app`` is the fleet's client, by
    default that of this process. Nothing is sent before the first answer is asked for.
    """
    if on_error not in ON_ERROR:
        raise RequestError(
            f"on_error must be one of {', '.join(ON_ERROR)}, not {on_error!r}"
        )
    check_many(prompts, "map_prompts", "prompts")
    priority = check_priority(priority)
    form = Form.of(response_format)
    parameters: dict[str, Any] = {**sampling, "raw": True}
    for name, value in (("model", model), ("deadline", deadline)):
        if value is not None:
            parameters[name] = value
    if form is not None:
        parameters["response_format"] = form.schema
    elif response_format is not None:
        parameters["response_format"] = response_format
    parameters = {name: plain(value, name) for name, value in parameters.items()}
    file = None
    if cache is None:
        cache = parameters.get("temperature") == 0 and (parameters.get("n") or 1) == 1
    elif not isinstance(cache, bool):
        file = CacheFile(Path(cache), cache_max_bytes, cache_max_age_seconds)
    app = app or default_client()
    return PromptRun(
        app,
        prompts,
        parameters,
        template=None if template is None else Template(template),
        is_chat=is_chat,
        is_ordered=ordered,
        on_error=on_error,
        priority=priority,
        progress=progress,
        answers=AnswersOfRun(form, bool(cache), app.modelserver_models, file),
        journal=None if journal is None else Path(journal),
    )


class PromptRun:
    """The answers of one run, to be iterated over once."""

    def __init__(
        self,
        app: Celery,
        prompts: Iterable[Any],
        parameters: dict[str, Any],
        *,
        template: Template | None,
        is_chat: bool,
        is_ordered: bool,
        on_error: str,
        priority: int | None,
        progress: bool | None,
        answers: AnswersOfRun,
        journal: Path | None,
    ) -> None:
        self._app = app
        self._prompts = prompts
        self._parameters = parameters
        self._template = template
        self._is_chat = is_chat
        self._is_ordered = is_ordered
        self._on_error = on_error
        self._progress = progress
        self._answers = answers
        self._journaled = JournaledLane.of(
            app, journal, ("map", "prompts"), parameters, priority
        )
        run = f"map-{uuid.uuid4().hex[:12]}"
        self._lane = self._journaled or Lane(app, run, priority=priority)
        #: How many prompts there are, None where that is not known before.
        self.total = length_of(prompts)
        #: How many are answered.
        self.done = 0
        #: How many of these are errors.
        self.failed = 0
        #: Prompts whose answers did not come yet, by number.
        self._open: dict[int, Any] = {}
        #: Answers that wait for earlier ones.
        self._held: dict[int, PromptAnswer] = {}
        self._next = 0
        self._is_begun = False
        #: How far it came, once it has ended early by other than Ctrl-C in here.
        self._said = ""
        self._feeder = Feeder(self._lane, self._rows(), self.total)

    @property
    def id(self) -> str:
        """Names the run in Redis; its submitter, for `modelserver cancel`.

        With a journal it is known once the first answer was asked for.
        """
        return self._lane.run

    @property
    def cached(self) -> int:
        """How many were answered without being asked."""
        return self._answers.hits

    def __iter__(self) -> Iterator[PromptAnswer]:
        blocks = self._blocks()
        with InterruptWatch() as watch:
            try:
                for block in blocks:
                    yield from block
            finally:
                blocks.close()
                if watch.is_interrupted and self._said:
                    log.warning(self._said)

    async def __aiter__(self) -> AsyncIterator[PromptAnswer]:
        loop, blocks = asyncio.get_running_loop(), self._blocks()
        owner = asyncio.current_task()
        try:
            # One thread: the caller's iterable is used by no two.
            with ThreadPoolExecutor(1, "modelserver run") as thread:
                try:
                    while block := await loop.run_in_executor(thread, _next, blocks):
                        for answer in block:
                            yield answer
                finally:
                    self._feeder.stop()
                    await asyncio.shield(loop.run_in_executor(thread, blocks.close))
        finally:
            if is_cancelled(owner) and self._said:
                log.warning(self._said)

    def _blocks(self) -> Generator[list[PromptAnswer], None, None]:
        if self._is_begun:
            raise RuntimeError("a run is iterated over once; call map_prompts() again")
        self._is_begun = True
        return self._run()

    def _run(self) -> Generator[list[PromptAnswer], None, None]:
        if self._journaled:
            self._journaled.open()
        bar = open_bar("prompts", self.total, self._progress)
        settings, of = self._app.modelserver_tasks[0].settings, ("prompts", self.total)
        teller = RunTeller(settings, self.id, of, lambda: (self.done, self.failed))
        is_over = is_ended = False
        try:
            self._answers.open()
            for block in self._feeder:
                found = list(self._finished(block))
                self._feeder.settle([each.number for each in block])
                bar.advance(len(found), sum(each.error is not None for each in found))
                ready = list(self._in_order(found))
                self._feeder.held = len(self._held)
                error = self._find_error(ready)
                if told := self._told(ready):
                    yield told
                if error is not None:
                    raise error
            is_over = not self._feeder.is_stopped
        except KeyboardInterrupt:
            is_ended = True
            raise KeyboardInterrupt(self._take_back()) from None
        finally:
            bar.close()
            self._answers.close()
            if not is_over and not is_ended:
                self._said = self._take_back()
            if self._journaled:
                self._journaled.close(is_over)
            teller.end(is_over)

    def _take_back(self) -> str:
        """Take back what has not begun; says what is done."""
        of = "" if self.total is None else f" of {self.total:,}"
        told = f"{self.done:,}{of} prompts are answered; {self._feeder.take_back()}"
        return self._journaled.told(told) if self._journaled else told

    # From prompts to rows.

    def _rows(self) -> Iterator[Row | Answered]:
        parameters, is_checked = dict(self._parameters), False
        for number, prompt in enumerate(self._prompts):
            self._open[number] = prompt
            try:
                payload = payload_of(prompt, self._template, self._is_chat)
            except RequestError as error:
                yield Answered(unsent(number), error=RowError.of(error))
                continue
            task = task_of(payload)
            if not is_checked:
                models = self._app.modelserver_models()
                check_call(SOUND_PROMPTS, task, parameters, models)
                # So that all go to the same one.
                model = parameters.get("model")
                parameters["model"] = models.pick(KINDS[task], model)
                is_checked = True
            try:
                check(task, payload, parameters)
            except RequestError as error:
                yield Answered(unsent(number), error=RowError.of(error))
                continue
            row = Row(number, task, payload, parameters)
            yield from self._answers.asked(row)

    # From what came to answers.

    def _finished(self, block: list[Answered]) -> Iterator[PromptAnswer]:
        for answered in block:
            row, number = self._answers.repeat(answered)
            if row is not None:
                self._feeder.again(row)
                continue
            for same in self._answers.all_of(number, answered):
                yield self._finish(same, answered, answered.cached or same != number)

    def _finish(self, number: int, answered: Answered, is_cached: bool) -> PromptAnswer:
        prompt = self._open.pop(number)
        self.done += 1
        found = PromptAnswer(number, prompt)
        error = answered.error
        if error is None:
            found = answer_of(number, prompt, answered.value, is_cached)
            if form := self._answers.form:
                try:
                    found = replace(found, value=form.read(found))
                except AnswerFormError as wrong:
                    error = RowError.of(wrong)
        if error is not None:
            self.failed += 1
            found = replace(found, error=error.exception(f"prompt {number}: "))
        return found

    def _in_order(self, found: list[PromptAnswer]) -> Iterator[PromptAnswer]:
        if not self._is_ordered:
            yield from found
            return
        self._held |= {each.number: each for each in found}
        while self._next in self._held:
            yield self._held.pop(self._next)
            self._next += 1

    def _find_error(self, answers: list[PromptAnswer]) -> Exception | None:
        """The first error, where it is to be raised; what follows it is dropped."""
        for place, answer in enumerate(answers):
            if answer.error is not None and self._on_error == "raise":
                del answers[place:]
                return answer.error
        return None

    def _told(self, answers: list[PromptAnswer]) -> list[PromptAnswer]:
        """What the caller sees of these."""
        if self._on_error == "return":
            return answers
        return [each for each in answers if each.error is None]


def _next(blocks: Iterator[list[PromptAnswer]]) -> list[PromptAnswer]:
    """The next block that is not empty; an empty one is the end."""
    return next(blocks, [])
