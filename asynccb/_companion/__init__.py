"""
The companion: the process on whose event loop the trackers run, away from the training's lock.

`_parent` starts and watches it, `_messages` is what the two say to each other over a socket, and
the rest runs inside: `_service` drains the ring into the journal, `_journal_lane` reads it for one
callback. Promises: it imports neither torch nor transformers nor the user's main module; it
outlives the training process and delivers what that left; it never delays it.

May import: _ground, _ring, _staging, _state, callbacks, _journal, _lanes.
"""
