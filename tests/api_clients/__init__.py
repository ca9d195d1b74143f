"""Other people's clients of OpenAI's API: ``python -m tests.api_clients [NAME ...]``.

Each is unchanged and has an environment of its own, made at its first run. They ask
real SGLang and real vLLM through ``modelserver up``.

- ``registry``: the clients, and how each is installed
- ``fleet``: what they ask
- ``programs``: what their users write, with assertions
"""
