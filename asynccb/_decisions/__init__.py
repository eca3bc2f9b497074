"""
What is applied where depends on the events alone.

May import: _ground, distributed, _state, callbacks, _lanes.
"""
