"""Files of requests that the fleet carries out: ``modelserver batch submit``.

Processes of ``modelserver batches`` take runs that nobody holds, each by a lease, and
carry them out with the code of ``batch run``. When one dies its lease ends, and another
goes on with what stands in the output.

- ``holder``: such a process, which looks for runs and renews its leases
- ``held_run``: one run that it carries out, in a thread of its own
- ``quota_lane``: the way of its rows within the limits of an API key
- ``run_lease``: the right to carry out a run, and its end
- ``choosing``: which runs are taken, and which one a name means. Pure.
- ``sight``: whether this host sees a run's files
- ``submitting``: from a file to a run that is waiting
- ``orders``: what operators want of a run, done at once where nobody holds it
- ``telling``: how far a run is, from its holder through the store to whoever watches
"""
