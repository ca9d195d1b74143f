"""Many requests as one job: a run.

- ``lane``: the way of rows to the fleet, and of answers back
- ``cutting``: rows that are checked, and cut into bundles
- ``rows``: the values that go there and come back
"""
