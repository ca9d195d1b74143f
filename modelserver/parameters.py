"""The parameters of a request: which are known, and what their values may be. Pure.

The names are those of OpenAI's API, SGLang 0.5.23 and vLLM 0.33 for each of the three
tasks, "complete", "chat" and "embed". What an engine knows and we do not goes into
``extra_body``.
"""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelserver.errors import RequestError


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Read by ourselves and not sent to an engine.
OURS = frozenset(
    {"model", "raw", "deadline", "deadline_from", "extra_body", "engine_path"}
)

#: Most lists and objects in one another: writers of JSON end at 254.
MOST_DEPTH = 200
#: The least whole number that writers of JSON take, and the most.
LEAST, MOST = -(2**63), 2**64 - 1
#: So many numbers are looked at together.
_BLOCK = 65_536
#: Most answers to one request: engines hold them all at once.
MOST_ANSWERS = 4_096

_SAMPLING = _names(
    """
    allowed_token_ids bad_words custom_logit_processor custom_params ebnf
    frequency_penalty ignore_eos include_stop_str_in_output json_schema length_penalty
    logit_bias logprob_token_ids logprobs max_tokens min_p min_tokens n no_stop_trim
    presence_penalty prompt_logprobs regex repetition_detection repetition_penalty
    response_format return_cached_tokens_details return_hidden_states return_token_ids
    return_token_offsets return_tokens_as_token_ids seed skip_special_tokens
    spaces_between_special_tokens stop stop_regex stop_token_ids structured_outputs
    temperature thinking_token_budget top_k top_p use_beam_search watermark watermarking
    """
)
_ANY = _names(
    """
    add_special_tokens cache_salt extra_key lora_path mm_processor_kwargs
    truncate_prompt_tokens truncation_side user
    """
)
_COMPLETE = _names(
    """
    best_of echo prompt_embeds suffix vllm_xargs
    """
)
_CHAT = _names(
    """
    add_generation_prompt audio chat_template chat_template_kwargs
    continue_final_message documents echo include_reasoning max_completion_tokens
    max_dynamic_patch media_io_kwargs metadata min_dynamic_patch modalities
    parallel_tool_calls prediction reasoning_effort return_meta_info return_prompt_text
    return_prompt_token_ids safety_identifier separate_reasoning service_tier store
    thinking tool_choice tools top_logprobs use_audio_in_video verbosity video_config
    vllm_xargs web_search_options
    """
)
_EMBED = _names(
    """
    dimensions embed_dtype encoding_format endianness padding use_activation
    """
)
#: Parameters that engines know, by task.
KNOWN: Mapping[str, frozenset[str]] = {
    "complete": _SAMPLING | _ANY | _COMPLETE,
    "chat": _SAMPLING | _ANY | _CHAT,
    "embed": _ANY | _EMBED,
}
#: Names from elsewhere, and what to say instead.
_ELSEWHERE = {
    "timeout": "say deadline=SECONDS for how long the answer is good for, or give "
    "the time that you wait to .get(timeout=SECONDS)",
    "max_new_tokens": "say max_tokens",
    "max_length": "say max_tokens",
    "max_output_tokens": "say max_tokens",
    "request_timeout": "say deadline=SECONDS",
    "messages": "chat() takes messages",
    "prompt": "complete() takes a prompt",
    "stream_options": "stream is not offered: a task has one result",
    "sampling_params": "give each parameter by its name",
    "extra_headers": "a request's headers are the queue's own; leave it out",
    "extra_query": "leave it out",
}
#: Options of Celery's messages, which ``delay`` does not take.
_OPTIONS = _names(
    """
    compression countdown eta exchange expires headers ignore_result link link_error
    priority queue retry retry_policy routing_key serializer shadow soft_time_limit
    task_id time_limit
    """
)


def check_names(task: str, given: Mapping[str, Any], subject: str) -> None:
    """Refuse parameters that no engine knows. Raises RequestError with the remedy."""
    for name in given:
        if name not in KNOWN[task]:
            raise RequestError(
                f'{task}() knows no parameter "{name}"{_hint(task, name, subject)}'
            )


def _hint(task: str, name: str, subject: str) -> str:
    if name in _OPTIONS:
        call = f"{task}.apply_async(({subject},), {name}=...)"
        return f": it is an option of the message; say {call}"
    if name in _ELSEWHERE:
        return f": {_ELSEWHERE[name]}"
    unlooked = f"as extra_body={{{name!r}: ...}}"
    near = difflib.get_close_matches(name, KNOWN[task] | OURS, n=1, cutoff=0.7)
    if near:
        return f'; did you mean "{near[0]}"? If the engine knows it, pass it {unlooked}'
    return f"; if the engine does, pass it {unlooked}"


def check_values(given: Mapping[str, Any]) -> None:
    """Refuse values that no engine takes. Raises RequestError with the remedy.

    >>> check_values({"temperature": 0, "max_tokens": 0, "echo": True})
    """
    if given.get("stream"):
        raise RequestError("stream is not offered: a task has one result; leave it out")
    # To score a prompt, nothing is generated and the prompt comes back.
    least = {"max_tokens": 0 if given.get("echo") else 1}
    # Engines take true for 1, and would give vectors of one number.
    for name in ("n", "max_tokens", "max_completion_tokens", "dimensions"):
        value, lowest = given.get(name), least.get(name, 1)
        if value is not None and not (is_whole(value) and value >= lowest):
            hint = ""
            if name == "max_tokens" and value == 0:
                hint = "; with echo=True, 0 scores the prompt"
            raise RequestError(
                f"{name} must be a whole number from {lowest}, not {value!r}{hint}"
            )
    if (given.get("n") or 1) > MOST_ANSWERS:
        raise RequestError(
            f"n must be at most {MOST_ANSWERS:,}, not {given['n']}; send more requests"
        )
    for name, most in (("temperature", None), ("top_p", 1)):
        value = given.get(name)
        if value is None:
            continue
        if not is_number(value) or value < 0 or (most and value > most):
            upto = f" to {most}" if most else ""
            raise RequestError(f"{name} must be a number from 0{upto}, not {value!r}")
    form = given.get("response_format")
    # SGLang answers 500 to this, which would be tried again and again.
    if form is not None and not isinstance(form, Mapping):
        raise RequestError(
            'response_format must be an object like {"type": "json_object"}, not '
            f"{type(form).__name__}"
        )


def check_deadline(deadline: Any) -> float | None:
    """A deadline as a plain number. Raises RequestError for what is no time to come.

    >>> check_deadline(None), check_deadline(0.5)
    (None, 0.5)
    """
    seconds = plain(deadline, "deadline")
    if seconds is not None and not (is_number(seconds) and seconds > 0):
        raise RequestError(
            f"deadline must be a number of seconds above 0, not {seconds!r}"
        )
    return seconds  # type: ignore[no-any-return]


def check_priority(priority: Any) -> int | None:
    """A message's priority as a plain number. Raises RequestError for another.

    >>> check_priority(None), check_priority(9)
    (None, 9)
    """
    number = plain(priority, "priority")
    if number is not None and not (is_whole(number) and 0 <= number <= 9):
        raise RequestError(
            "priority must be a whole number from 0, the most urgent, to 9, "
            f"not {number!r}"
        )
    return number  # type: ignore[no-any-return]


def check_task_id(task_id: Any) -> None:
    """Refuse an id that is no text, as a row's number. Raises RequestError.

    >>> check_task_id(None), check_task_id("row-17")
    (None, None)
    """
    if task_id is not None and not isinstance(task_id, str):
        raise RequestError(
            f'task_id must be a text, as in task_id=f"row-{{number}}", not {task_id!r}'
        )


def is_number(value: Any) -> bool:
    """Whether a value is a number, and not true or false."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, and not true or false."""
    return isinstance(value, int) and not isinstance(value, bool)


#: What to pass in place of a value that has such a method, the last one counts.
_REMEDIES = {
    "__next__": "list(...) of it",
    "total_seconds": "its .total_seconds()",
    "to_list": "its .to_list()",
    "tolist": "its .tolist()",
    "model_dump": "its .model_dump()",
}


def plain(value: Any, place: str, depth: int = 0) -> Any:
    """The value as JSON can carry it; what is NumPy's or Arrow's becomes plain.

    ``place`` names the value in an error. Raises RequestError for what JSON has no form
    for, at any depth: not a number, infinity, other objects, half of a surrogate pair;
    and for lists and objects in one another, more than MOST_DEPTH of them.

    >>> plain({"7": (1, 2.5), 8: None}, "logit_bias")
    {'7': [1, 2.5], '8': None}
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, place)
    if isinstance(value, int):
        return _whole(int(value), place)
    if isinstance(value, float):
        return _number(float(value), place)
    if depth > MOST_DEPTH:
        raise RequestError(
            f"{place.partition('[')[0]} has more than {MOST_DEPTH} lists and objects "
            "in one another; make it flatter"
        )
    if isinstance(value, Mapping):
        return dict(_entries(value, place, depth))
    if isinstance(value, (list, tuple)):
        if are_whole(value) and all(
            min(each) >= LEAST and max(each) <= MOST for each in _blocks(value)
        ):
            return list(value)
        return [
            plain(each, f"{place}[{index}]", depth + 1)
            for index, each in enumerate(value)
        ]
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return plain(value.tolist(), place, depth)
    if hasattr(value, "as_py"):
        return plain(value.as_py(), place, depth)
    if isinstance(value, type) and hasattr(value, "model_json_schema"):
        name = value.__name__
        raise RequestError(
            f"{place} is the class {name}, as map_prompts() takes it; here pass "
            f'{{"type": "json_schema", "json_schema": {{"name": "{name}", "schema": '
            f"{name}.model_json_schema()}}}}"
        )
    if is_empty(value):
        raise RequestError(f"{place} is empty ({value}); leave it out there")
    remedy = "text, numbers, booleans, lists and objects"
    for name, told in _REMEDIES.items():
        if hasattr(value, name):
            remedy = told
    raise RequestError(
        f"{place} is of type {type(value).__name__}, which cannot be sent as JSON; "
        f"pass {remedy}"
    )


def is_empty(value: Any) -> bool:
    """Whether a cell has no value: None, any NaN, pandas' NA and NaT.

    >>> is_empty(None), is_empty(float("nan")), is_empty(""), is_empty(0)
    (True, True, False, False)
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, (str, list, tuple, Mapping)):
        return False
    try:
        # So are NumPy's and the decimal ones, which are no float.
        return bool(value != value)
    except (TypeError, ValueError, RuntimeError, ArithmeticError):
        return False  # An array, which is neither.


def are_whole(values: Sequence[Any]) -> bool:
    """Whether all are whole numbers, as a text's tokens are; millions at once.

    >>> are_whole([1, 2]), are_whole([1, True]), are_whole([1, "2"])
    (True, False, False)
    """
    return all(set(map(type, block)) == {int} for block in _blocks(values))


def _blocks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """A long list in parts, so that other threads come to their turns."""
    for start in range(0, len(values), _BLOCK):
        yield values[start : start + _BLOCK]


def held(value: Any) -> Any:
    """What a scalar of Arrow holds; any other value as it is."""
    return value.as_py() if hasattr(value, "as_py") else value


def _entries(
    value: Mapping[Any, Any], place: str, depth: int
) -> Iterator[tuple[str, Any]]:
    for key, each in value.items():
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise RequestError(
                f"{place} has the key {key!r}; keys must be text or whole numbers"
            )
        name = _text(key if isinstance(key, str) else str(key), f"a key of {place}")
        yield name, plain(each, f"{place}[{name!r}]", depth + 1)


def _text(value: str, place: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{place} has half of a surrogate pair at character {error.start}, which "
            "is no text; repair it, as by text.encode(errors='replace').decode()"
        ) from None
    # What it holds, whatever a class of texts says of itself (an enumeration's name).
    return str.__str__(value)


def _whole(value: int, place: str) -> int:
    if not LEAST <= value <= MOST:
        raise RequestError(f"{place} is {value}, beyond 64 bits; choose a smaller one")
    return value


def _number(value: float, place: str) -> float:
    if math.isfinite(value):
        return value
    said = "not a number (NaN)" if math.isnan(value) else "infinite"
    hint = (
        "; pandas says so where a cell is empty: leave it out there"
        if math.isnan(value)
        else "; give a finite number"
    )
    raise RequestError(f"{place} is {said}, which JSON cannot carry{hint}")
