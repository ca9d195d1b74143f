"""The gateway's paths as an OpenAPI document, for programs that read such. Pure.

What is a request's to say beside the fields here is the engine's to judge.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from modelserver.gateway.bodies import FORMATS, MOST_ANSWERS, MOST_PROMPTS
from modelserver.messaging.catalogue import CatalogueEntry
from modelserver.values import Kind

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_SOME_TEXT: Schema = {"type": "string", "minLength": 1}
_FLAG: Schema = {"type": "boolean"}
_TOKENS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_OBJECT: Schema = {"type": "object"}


def _number(least: float, most: float) -> Schema:
    return {"type": "number", "minimum": least, "maximum": most}


def _whole(least: int, most: int | None = None) -> Schema:
    found: Schema = {"type": "integer", "minimum": least}
    return found if most is None else found | {"maximum": most}


def _list(items: Schema, least: int = 1, most: int | None = None) -> Schema:
    found: Schema = {"type": "array", "items": items, "minItems": least}
    return found if most is None else found | {"maxItems": most}


#: Fields of completions and chats.
_SAMPLING: Mapping[str, Schema] = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "n": _whole(1, MOST_ANSWERS),
    "max_tokens": _whole(1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "logit_bias": {"type": "object", "additionalProperties": _number(-100, 100)},
    "seed": _whole(0, 2**31),
    "stop": {"oneOf": [_SOME_TEXT, _list(_SOME_TEXT)]},
    "stream": _FLAG,
    "stream_options": {"type": "object", "properties": {"include_usage": _FLAG}},
    "user": _TEXT,
}
_COMPLETION: Mapping[str, Schema] = {
    "prompt": {
        "oneOf": [
            _SOME_TEXT,
            _list(_SOME_TEXT, most=MOST_PROMPTS),
            _TOKENS | {"minItems": 1},
            _list(_TOKENS | {"minItems": 1}, most=MOST_PROMPTS),
        ]
    },
    **_SAMPLING,
    "echo": _FLAG,
    "logprobs": _whole(0, 20),
    "suffix": _TEXT,
}
_MESSAGE: Schema = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "user", "assistant"]},
        "content": {
            "oneOf": [
                _TEXT,
                _list(
                    {
                        "type": "object",
                        "required": ["type", "text"],
                        "properties": {"type": {"const": "text"}, "text": _TEXT},
                    }
                ),
            ]
        },
    },
}
_CHAT: Mapping[str, Schema] = {
    "messages": _list(_MESSAGE),
    **_SAMPLING,
    "max_completion_tokens": _whole(1),
    "logprobs": _FLAG,
    "top_logprobs": _whole(0, 20),
    "tools": _list(_OBJECT, least=0),
    "tool_choice": {"oneOf": [{"enum": ["none", "auto", "required"]}, _OBJECT]},
    "parallel_tool_calls": _FLAG,
    "response_format": {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}},
    },
}
_EMBEDDING: Mapping[str, Schema] = {
    "input": _COMPLETION["prompt"],
    "encoding_format": {"enum": list(FORMATS)},
    "dimensions": _whole(1),
    "user": _TEXT,
}
_RESPONSE: Mapping[str, Schema] = {
    "input": {"oneOf": [_SOME_TEXT, _list(_OBJECT)]},
    "instructions": _TEXT,
    "max_output_tokens": _whole(1),
    "stream": _FLAG,
    "previous_response_id": _TEXT,
    "store": _FLAG,
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
}
_TOKENIZE: Mapping[str, Schema] = {"prompt": _SOME_TEXT, "add_special_tokens": _FLAG}
_DETOKENIZE: Mapping[str, Schema] = {"tokens": _TOKENS | {"minItems": 1}}
_BATCH: Mapping[str, Schema] = {
    "input_file_id": _SOME_TEXT,
    "endpoint": {"enum": ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]},
    "completion_window": {"type": "string", "pattern": "^[1-9][0-9]{0,4}[smhd]$"},
    "metadata": {"type": "object", "additionalProperties": _TEXT},
}
_FILE: Mapping[str, Schema] = {
    "purpose": {"enum": ["batch"]},
    "file": {"type": "string", "format": "binary"},
}
_PAGE = (("limit", _whole(1, 100)), ("after", _TEXT))
#: Headers that any request for answers may have.
_HEADERS = (
    ("x-modelserver-priority", _whole(0, 9)),
    ("x-modelserver-deadline", {"type": "number", "exclusiveMinimum": 0}),
    ("x-modelserver-submitter", _TEXT),
    ("Idempotency-Key", _TEXT),
)


def document(models: Sequence[CatalogueEntry]) -> dict[str, Any]:
    """The document of a fleet with these models.

    >>> list(document([])["paths"]["/tokenize"])
    ['post']
    """
    writers = [each.name for each in models if each.kind is Kind.COMPLETION]
    embedders = [each.name for each in models if each.kind is Kind.EMBEDDING]
    return {
        "openapi": "3.1.0",
        "info": {"title": "modelserver", "version": "1"},
        "security": [{}, {"key": []}],
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR},
        },
        "paths": {
            "/v1/completions": {"post": _infers("Complete", _COMPLETION, writers)},
            "/v1/chat/completions": {"post": _infers("Answer", _CHAT, writers)},
            "/v1/embeddings": {"post": _infers("Embed", _EMBEDDING, embedders)},
            "/v1/responses": {"post": _infers("Respond", _RESPONSE, writers)},
            "/tokenize": {"post": _infers("Make tokens", _TOKENIZE, writers)},
            "/detokenize": {"post": _infers("Make text", _DETOKENIZE, writers)},
            **_OTHER_PATHS,
        },
    }


_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
        }
    },
}
_REFUSED: Schema = {
    "description": "refused, or failed",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}


def _operation(
    summary: str,
    fields: Mapping[str, Schema] | None = None,
    required: Sequence[str] = (),
    form: str = "application/json",
    **places: Sequence[tuple[str, Schema]],
) -> dict[str, Any]:
    """One method of a path; ``places`` are parameters by where they stand."""
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "done"}, "default": _REFUSED},
        "parameters": [
            {"name": name, "in": place, "schema": schema, "required": place == "path"}
            for place, named in places.items()
            for name, schema in named
        ],
    }
    if fields is not None:
        schema = {
            "type": "object",
            "required": list(required),
            "properties": dict(fields),
        }
        found["requestBody"] = {"required": True, "content": {form: {"schema": schema}}}
    return found


def _infers(
    summary: str, fields: Mapping[str, Schema], models: Sequence[str]
) -> dict[str, Any]:
    named = {"enum": list(models)} if models else _TEXT
    return _operation(
        summary,
        {"model": named, **fields},
        ("model", next(iter(fields))),
        header=_HEADERS,
    )


_OTHER_PATHS: Mapping[str, Any] = {
    "/v1/models": {"get": _operation("List models")},
    "/v1/models/{model}": {"get": _operation("Show", path=[("model", _SOME_TEXT)])},
    "/v1/files": {
        "get": _operation("List files", query=_PAGE),
        "post": _operation("Upload", _FILE, tuple(_FILE), "multipart/form-data"),
    },
    "/v1/files/{file}": {
        "get": _operation("Show", path=[("file", _SOME_TEXT)]),
        "delete": _operation("Remove", path=[("file", _SOME_TEXT)]),
    },
    "/v1/files/{file}/content": {
        "get": _operation("Read", path=[("file", _SOME_TEXT)])
    },
    "/v1/responses/{response}": {
        "get": _operation("Show", path=[("response", _SOME_TEXT)]),
        "delete": _operation("Remove", path=[("response", _SOME_TEXT)]),
    },
    "/v1/responses/{response}/input_items": {
        "get": _operation(
            "List what it answers", path=[("response", _SOME_TEXT)], query=_PAGE
        )
    },
    "/v1/batches": {
        "get": _operation("List batches", query=_PAGE),
        "post": _operation("Make a batch", _BATCH, list(_BATCH)[:3]),
    },
    "/v1/batches/{batch}": {"get": _operation("Show", path=[("batch", _SOME_TEXT)])},
    "/v1/batches/{batch}/cancel": {
        "post": _operation("Call off", path=[("batch", _SOME_TEXT)])
    },
    "/health": {"get": _operation("Tell whether it runs")},
    "/metrics": {"get": _operation("Tell of the fleet, for Prometheus")},
}
