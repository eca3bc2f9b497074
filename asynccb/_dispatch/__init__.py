"""
`CallbackDispatcher`: an event costs a look-up, or microseconds.

May import: _ground, _publishing, _companion, _decisions, _lanes, _journal, _ring, _staging, _state,
callbacks, checkpoint, distributed, delivery, arguments.
"""
