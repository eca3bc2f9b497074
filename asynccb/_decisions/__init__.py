"""
The events alone determine which decision is applied where.

May import: _compiled, _ground, distributed, _state, callbacks, _lanes.
"""
