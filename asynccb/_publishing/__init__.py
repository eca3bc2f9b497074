"""
The training thread's end: records to the companion, letters to the thread.

May import: _compiled, _ground, _ring, _staging, _state, callbacks, _journal, _lanes, _decisions,
_companion.messages.
"""
