"""How control judges and treats engines: slow, sick, or merely busy. Pure.

``control`` is one look at all engines. ``cost`` says what a request should take,
``judging`` makes the ``verdicts``, ``moves`` is the table of what follows from them,
``guards`` say when it may not, ``treatment`` turns where an engine stands into a wish,
and ``memory`` is what control remembers from one look to the next.
"""
