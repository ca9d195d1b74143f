"""What a request must be, and what it becomes for an engine.

Pure. A client builds a request to find at once what is wrong with it; the worker builds
the same again to execute it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelserver.engine_protocol import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    DETOKENIZE_PATH,
    EMBEDDINGS_PATH,
    RESPONSES_PATH,
    TOKENIZE_PATH,
)
from modelserver.errors import RequestError
from modelserver.media_urls import find_forbidden_media
from modelserver.messaging.subjects import check_subject, is_one_text
from modelserver.messaging.wire import CHAT, COMPLETE, EMBED
from modelserver.parameters import (
    check_deadline,
    check_names,
    check_values,
    is_whole,
    plain,
)
from modelserver.values import Kind

#: A text may have so many times the token ids that its model's context has, and so many
#: at least: engines may be told to cut it. A request may have so many in all. More, of
#: which nothing can come, would hold a worker up while it looks at them.
TIMES_OF_CONTEXT, LEAST_IDS, MOST_IDS = 16, 65_536, 4_000_000
#: Value of ``deadline_from``: a deadline's seconds count from when the request is sent.
FROM_SUBMISSION = "submission"
#: Value of ``deadline_from``: they count from when its execution starts.
FROM_START = "start"


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request in an engine's terms, but for the model's own defaults."""

    #: The task's name.
    task: str
    #: The path on the engine.
    path: str
    #: What the engine is sent, without model.
    body: Mapping[str, Any]
    #: None where the caller left it to the fleet.
    model: str | None = None
    #: Whether the caller gets the engine's response body.
    raw: bool = False
    #: Seconds within which the answer is due.
    deadline: float | None = None
    #: Whether the caller gets a list.
    many: bool = False
    #: Whether ``max_tokens`` is the fleet's and not the caller's.
    max_tokens_is_default: bool = False

    @property
    def kind(self) -> Kind:
        """What kind of model this needs."""
        return Kind.EMBEDDING if self.task == EMBED else Kind.COMPLETION

    @property
    def is_of_other_path(self) -> bool:
        """Whether the answer is neither choices nor vectors, but an engine's body."""
        return self.path in _OTHER_PATHS

    @property
    def generates(self) -> bool:
        """Whether an engine's model has to do with it, and not its tokenizer alone."""
        return self.path not in (TOKENIZE_PATH, DETOKENIZE_PATH)

    @property
    def highest_token(self) -> int | None:
        """The highest token id in a prompt of token ids, None in one of text."""
        return max(map(max, self.token_ids), default=None)

    @property
    def subject(self) -> str:
        """The field that it is about."""
        return _OTHER_PATHS.get(self.path, {}).get(self.task, _TASKS[self.task][0])

    @property
    def token_ids(self) -> Sequence[Sequence[int]]:
        """The texts of it that are token ids."""
        if self.task == CHAT:
            return ()
        content = self.body[self.subject]
        if isinstance(content, str) or isinstance(content[0], str):
            return ()
        return (content,) if is_whole(content[0]) else content


#: By task: the name of its first argument, and the path on the engine.
_TASKS = {
    COMPLETE: ("prompt", COMPLETIONS_PATH),
    CHAT: ("messages", CHAT_PATH),
    EMBED: ("input", EMBEDDINGS_PATH),
}
#: By path of an engine besides those: the tasks that may be sent there, and what their
#: first argument is called there.
_OTHER_PATHS: Mapping[str, Mapping[str, str]] = {
    TOKENIZE_PATH: {COMPLETE: "prompt", CHAT: "messages"},
    DETOKENIZE_PATH: {COMPLETE: "tokens"},
    RESPONSES_PATH: {CHAT: "input"},
}


def plain_arguments(
    task: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments as JSON can carry them. Raises RequestError for the others.

    >>> plain_arguments(COMPLETE, ("a",), {"logit_bias": {50256: -100}})
    (('a',), {'logit_bias': {'50256': -100}})
    """
    subject, _ = _TASKS[task]
    return (
        tuple(plain(each, subject) for each in args),
        {name: plain(each, name) for name, each in kwargs.items()},
    )


def split_subject(
    task: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """A call's prompt, messages or input, and the rest. Raises RequestError.

    >>> split_subject(COMPLETE, (), {"prompt": "a", "n": 2})
    ('a', {'n': 2})
    """
    subject, given = _TASKS[task][0], dict(kwargs)
    if len(args) == 1 and subject not in given:
        return args[0], given
    build(task, args, kwargs)
    return given.pop(subject), given


def build(
    task: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> InferenceRequest:
    """Read a call's arguments. Raises RequestError in the caller's terms."""
    subject, path = _TASKS[task]
    short = task.rpartition(".")[2]
    given = dict(kwargs)
    if len(args) > 1:
        raise RequestError(
            f"{short}() takes one positional argument, the {subject}, and got "
            f"{len(args)}; pass the others by name"
        )
    if args and subject in given:
        raise RequestError(
            f"{short}() got its {subject} twice, by position and by name; pass it once"
        )
    if not args and subject not in given:
        raise RequestError(
            f"{short}() needs its {subject}; pass it as the first argument"
        )
    content = args[0] if args else given.pop(subject)
    if (other := given.pop("engine_path", None)) is not None:
        path, subject = other, _subject_at(other, task)
    check_subject(task, content, path)
    return _with_options(task, path, {subject: content}, given)


def _subject_at(path: Any, task: str) -> str:
    """What a task's first argument is called at another path. Raises RequestError."""
    tasks = _OTHER_PATHS.get(path, {}) if isinstance(path, str) else {}
    if task not in tasks:
        raise RequestError(
            f"engine_path must be one of {', '.join(_OTHER_PATHS)}, not {path!r}"
        )
    return tasks[task]


def _with_options(
    task: str, path: str, body: dict[str, Any], given: dict[str, Any]
) -> InferenceRequest:
    model = given.pop("model", None)
    if model is not None and not (isinstance(model, str) and model):
        raise RequestError(f"model must be a model's name, not {model!r}")
    raw = given.pop("raw", False)
    deadline = given.pop("deadline", None)
    deadline = check_deadline(deadline)
    since = given.pop("deadline_from", FROM_SUBMISSION)
    if since not in (FROM_SUBMISSION, FROM_START):
        raise RequestError(
            f'deadline_from must be "{FROM_SUBMISSION}" or "{FROM_START}", '
            f"not {since!r}"
        )
    subject = next(iter(body))
    extra = _extra_body(given.pop("extra_body", None), subject)
    check_values({**given, **extra})
    given.pop("stream", None)
    check_names(task.rpartition(".")[2], given, subject)
    sent = {**body, **given, **extra}
    # vLLM's embeddings take messages as well; responses have them as their input.
    for name in ("messages", "input"):
        if problem := find_forbidden_media(sent.get(name)):
            raise RequestError(problem)
    return InferenceRequest(
        task, path, sent, model, bool(raw), deadline, _gives_many(task, sent)
    )


def _extra_body(extra: Any, subject: str) -> Mapping[str, Any]:
    """What a caller sends to the engine without our looking at the names."""
    if extra is None:
        return {}
    if not isinstance(extra, Mapping):
        raise RequestError(
            'extra_body must be an object like {"top_k": 5}, not '
            f"{type(extra).__name__}"
        )
    for name in (subject, "model", "stream"):
        if name in extra:
            raise RequestError(f"extra_body must not hold {name}; leave it out there")
    return extra


def _gives_many(task: str, sent: Mapping[str, Any]) -> bool:
    if task == EMBED:
        return not is_one_text(sent["input"])
    return (sent.get("n") or 1) > 1


def check_context(request: InferenceRequest, context_length: int | None) -> None:
    """Refuse what cannot fit whatever the tokenizer says. Raises RequestError."""
    lengths = [len(each) for each in request.token_ids]
    most = MOST_IDS
    if context_length:
        most = max(LEAST_IDS, TIMES_OF_CONTEXT * context_length)
    if max(lengths, default=0) > most or sum(lengths) > max(most, MOST_IDS):
        raise RequestError(
            f"{request.subject} has {sum(lengths):,} token ids, and no text for "
            f'"{request.model}" may have more than {most:,}, nor a request more than '
            f"{max(most, MOST_IDS):,}; this model's maximum context length is "
            f"{context_length or 'unknown'}"
        )
    asked = request.body.get("max_tokens") or request.body.get("max_completion_tokens")
    if context_length and asked and asked >= context_length:
        raise RequestError(
            f"max_tokens {asked} leaves no room for the prompt: this model's "
            f"maximum context length is {context_length} tokens "
            f'("{request.model}"); ask for fewer'
        )


def with_model(request: InferenceRequest, model: str) -> InferenceRequest:
    """The request with its model decided."""
    return replace(request, model=model)


def with_defaults(
    request: InferenceRequest, sampling: Mapping[str, Any], max_tokens: int
) -> InferenceRequest:
    """The request with what the fleet file says where the caller says nothing.

    ``max_tokens`` is only for ``complete``, which engines cut off after 16 tokens; 0
    leaves that to the engine. An answer to ``chat`` ends by itself.
    """
    if request.is_of_other_path:
        return request
    sent = {**sampling, **request.body}
    is_default = request.task == COMPLETE and max_tokens and "max_tokens" not in sent
    if is_default:
        sent["max_tokens"] = max_tokens
    return replace(
        request,
        body=sent,
        many=_gives_many(request.task, sent),
        max_tokens_is_default=bool(is_default),
    )
