"""The fleet's state, as functions of ``Store`` (blocking), by what they read and write.

``hosts`` and ``engines`` are what launchers report, ``measurements`` what engines
measure, ``workers`` what workers report and the queues, ``control`` control's lock,
wishes and memory, ``applied`` the applied fleet, ``decisions`` the log of decisions,
``availability`` how the models stand, ``alerts`` what people are told,
``unsent_alerts`` what a hook did not take, ``orders`` what operators order,
``api_keys`` who may use OpenAI's API.
"""
