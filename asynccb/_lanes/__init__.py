"""
Who listens; events in order; a hook's failure stays in its lane.

May import: _ground, callbacks, _state, _staging, delivery.
"""
