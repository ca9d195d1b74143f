"""Errors that reach a caller: one base, one class per thing a caller can do about it.

Every class is rebuilt on the caller's side from its message alone, so the class that
a worker raised is the class that ``.get()`` raises.
"""


class ModelserverError(Exception):
    """Anything that modelserver reports; catch this to catch them all."""


class ConfigurationError(ModelserverError):
    """The fleet file or the environment is wrong: correct it and start again."""

    #: Whether what is missed may still come, as with a disk that is mounted late.
    may_come = False


class EngineEnvironmentError(ConfigurationError):
    """An engine's own environment is missing or broken: install it again."""


class FleetRefusedError(ConfigurationError):
    """The fleet in the store is not signed with this host's key, or is an old one."""


class StoreUnreachableError(ModelserverError):
    """Redis does not answer: start it, or correct its URL."""


class StoreFullError(ModelserverError):
    """Redis has hardly any memory left: nothing new is taken until there is more."""


class RequestError(ModelserverError):
    """The request itself is wrong: change it; sending it again changes nothing."""


class UnknownModelError(RequestError):
    """The fleet has no such model of this kind."""


class UnknownPathError(RequestError):
    """The engines of this model have no such path."""


class AnswerFormError(ModelserverError):
    """An answer is not of the form that was asked for, however often it was asked."""


class BatchFileError(ModelserverError):
    """A file of a run cannot be read or written; what was written stays as it is."""

    #: The operating system's number of what went wrong, 0 where it is not its error.
    errno = 0


class EngineError(ModelserverError):
    """Engines failed at a sound request for as often as was allowed; try it later."""


class PoisonError(ModelserverError):
    """The request was set aside because engines or workers died of it.

    It lies among the dead letters; `modelserver dead` lists and resubmits them.
    """


class DeadlineExceededError(ModelserverError):
    """The request's deadline passed before an answer was there."""


class ModelUnavailableError(ModelserverError):
    """The model has no engine and the fleet file says not to wait for one."""
