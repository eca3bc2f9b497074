"""
What is applied where depends on the events alone.

May import: _ground, _lanes, callbacks, distributed, _state.
"""
