"""Fault runs of control: a launcher, workers and beat, engines under steady load."""
