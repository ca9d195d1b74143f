"""Runs: many requests as one job.

``feeding`` is what whoever feeds a run writes and reads, ``hosted`` what is kept of
runs that were submitted, ``programs`` what programs tell of those of their own.
"""
