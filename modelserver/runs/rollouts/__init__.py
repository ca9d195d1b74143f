"""Several dependent calls for each row: ``map_rows`` of an async function.

- ``mapping``: ``map_rows``, for callers with and without asyncio
- ``running``: many rows' functions under way in one event loop
- ``rows``: one row's function and its calls, and what they are known by
- ``calls``: the calls of all rows, sent and answered in bulk
- ``loops``: an event loop in a thread of its own
- ``stalls``: a function that blocks its event loop, found and named
"""
