"""A fleet file with engines of both kinds; ``encoders`` is a folder of models."""

FLEET = """
[[models]]
name = "vllm-chat"
path = "builtin:tiny-chat"
engine = "vllm-cpu"
context_length = 4096
drain_seconds = 5

[[models.adapters]]
name = "vllm-style"
path = "{encoders}/style"

[[models]]
name = "vllm-embed"
kind = "embedding"
path = "{encoders}/mean"
engine = "vllm-cpu"
drain_seconds = 5

[[models]]
name = "sglang-chat"
path = "builtin:tiny-chat"
engine = "sglang-cpu"
context_length = 4096
drain_seconds = 5

[[models.adapters]]
name = "sglang-style"
path = "{encoders}/style"

[[models]]
name = "sglang-embed"
kind = "embedding"
path = "tests/cls"
engine = "sglang-cpu"
drain_seconds = 5
environment = {{ HF_HUB_CACHE = "{encoders}/hub", HF_HUB_OFFLINE = "1" }}

[defaults]
embedding = "vllm-embed"
"""
