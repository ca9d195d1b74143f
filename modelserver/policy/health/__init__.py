"""Judge engines: slow, failing, hung, or merely busy; and act on that. Pure.

From a look at the engines to what follows:

- ``observation``: what control sees of each engine.
- ``speed``: whether an engine is slow, by its requests.
- ``stutter``: whether it stands still again and again.
- ``bands``: whether it is slow for long prompts or long answers only.
- ``tail``: both, for all engines at one look.
- ``canaries``: whether it is slow, by requests whose normal seconds are known.
- ``failures``: whether it fails at too many requests.
- ``failing_together``: whether requests of a model fail on all its engines.
- ``silence``: whether it hangs.
- ``verdicts``: what can be wrong, each with its figures.
- ``blame``: whether slowness is an engine's own, or that of its host or of all.
- ``common_cause``: what slows all engines of a model together.
- ``telling``: how often people are told what a model's engines have in common.
- ``shared_verification``: one engine is verified for all that are slow with it.
- ``disproved``: slowness that canaries disproved twice is not believed again so soon.
- ``case``: one engine at one look, and what becomes of it.
- ``leaving``: how it is drained, relaunched, or degraded instead.
- ``transitions``: what follows from a verdict; the table of an engine's health.
- ``accepting``: engines that are slow by their requests, not by their canaries.
- ``guards``: how many engines may be drained or relaunched, and how often.
- ``restrictions``: an engine's limit, hold, abort and canaries, by its health.
- ``judge``: the entry; one look at all engines, with all of these.

What is learned and remembered:

- ``cost_model``: what a request should take.
- ``learning``: fits, levels and wander of engines that are well.
- ``tallies``: what an engine's requests of the last minutes were like.
- ``counting``: how they get there, and which of them are late.
- ``type_baselines``: what canaries take on engines of a type that were well.
- ``limits``: how many requests an engine may have at once, by its metrics.
- ``memory``: what control remembers from one look to the next.
"""
