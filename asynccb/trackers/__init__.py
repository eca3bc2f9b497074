"""
Experiment trackers: a tracker is a function from events to requests.

The contract is in `base`, and each tracker in a folder of its own.

May import: _ground, callbacks, _journal, delivery, checkpoint, _staging, _state, arguments.
"""
