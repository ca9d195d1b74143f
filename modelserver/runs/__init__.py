"""Many requests as one job: a run.

Its rows are numbered in the order of its input. From the caller down:

- ``mapping``: ``map_prompts``, answers to any iterable of prompts
- ``rollouts``: ``map_rows``, an async function with several calls for each row
- ``files``: a file of requests, in the form of OpenAI's Batch API
- ``hosting``: such a file that the fleet carries out, by lease
- ``embedding``: ``embed_texts``, vectors of many texts
- ``prompts``: from texts, chats and objects with a template to rows
- ``answer``: what a caller gets for a row
- ``repeats``: identical rows asked once, answers of the wrong form again
- ``answer_cache``: answers in a file, for identical requests of later runs
- ``progress``: how far it is, in a terminal and in a notebook
- ``telling``: tells in Redis how far a run of a program is
- ``waiting``: what one that is carried out waits for
- ``listed``: runs as lists show them, whoever carries them out
- ``feeder``: keeps a window of rows under way
- ``journaled_lane``: the lane of a call whose answers a journal keeps
- ``row_journal``: results and answers in a file, for the next time
- ``interrupts``: Ctrl-C while answers are in the caller's hands
- ``patience``: a Redis that does not answer, borne for a while
- ``sqlite_files``: files of SQLite that runs keep
- ``lane``: the way of rows to the fleet, and of answers back
- ``cutting``: rows that are checked, and cut into bundles
- ``rows``: the values that go there and come back
"""
