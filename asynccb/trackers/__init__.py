"""
Experiment trackers: a tracker is a function from events to requests.

The contract is in `base`, and each tracker in a folder of its own.

May import: _ground, arguments, delivery, _staging, _state, callbacks, _journal, checkpoint.
"""
