"""
The training thread's end: records to the companion, letters to the thread.

May import: _ground, _companion.messages, _decisions, _lanes, _journal, _ring, _staging, _state,
callbacks.
"""
