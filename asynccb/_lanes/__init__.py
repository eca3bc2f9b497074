"""
Who listens; events in order; a hook's failure stays in its lane.

May import: _ground, delivery, _staging, _state, callbacks.
"""
