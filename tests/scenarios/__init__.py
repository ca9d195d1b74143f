"""Control's decisions in simulated hours: the real ``decide`` in a small world."""
