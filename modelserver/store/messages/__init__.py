"""Messages, results and what follows them: what workers (asyncio) and callers do.

``delivery`` is what one does with messages and results, ``embedded`` reads what follows
a task, ``reaps`` takes over what dead workers held, ``dead_letters`` are set aside,
``revoking`` keeps what was revoked, ``cancelling`` takes waiting requests out,
``expired`` those that were answered at their deadline, ``memory`` watches the server's
memory, ``shares`` divides the limits of engines among the workers of one host,
``streams`` keeps the parts of answers.
"""
