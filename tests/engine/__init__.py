"""A stand-in for an inference engine, with faults, for the tests."""
