"""
`CallbackDispatcher`: an event costs a look-up, or microseconds.

May import: _compiled, _ground, arguments, _ring, _staging, _state, callbacks, _journal, _lanes,
_decisions, _publishing.
"""
