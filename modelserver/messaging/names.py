"""Names of tasks, and of the queues that are no models'."""

from modelserver.values import Kind

#: Queue of the beat job, which workers read with the next one, and before it.
STEER_QUEUE = "control:steer"
#: Queue of every task that is not a request to a model.
CONTROL_QUEUE = "control"
#: Name of the task that completes a prompt.
COMPLETE = "modelserver.complete"
#: Name of the task that answers messages.
CHAT = "modelserver.chat"
#: Name of the task that embeds texts.
EMBED = "modelserver.embed"
#: Name of the task that carries many rows of a run: a bundle.
ROWS = "modelserver.rows"
#: Name of the beat job, which is not a request.
STEER = "modelserver.steer"
#: By task: the kind of model that it needs.
KINDS = {
    COMPLETE: Kind.COMPLETION,
    CHAT: Kind.COMPLETION,
    EMBED: Kind.EMBEDDING,
}
