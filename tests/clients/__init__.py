"""The client in environments of its own: ``python -m tests.clients [NAME]``.

- ``environments``: finds interpreters, builds the wheel, installs it for one of them
- ``pipeline``: what a pipeline does, by a program that has the client alone
"""
