"""Other ways to do the same work, each as small as its documentation shows it.

Every module but ``calls`` and ``producer`` is one library's, and is run by the
environment that the benchmark makes for the peers. Nothing here imports modelserver.
"""
