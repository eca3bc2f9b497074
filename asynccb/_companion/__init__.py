"""
The companion process: its event loop runs the trackers, outside the training process's GIL.

`_publishing/companion.py` starts and watches it from the training process. `messages.py` defines
the messages of their socket. The other modules run in the companion: `service.py` drains the ring
into the journal, `journal_lane.py` reads the journal for one callback. Promises: the companion
imports neither torch nor transformers nor the user's main module. It outlives the training process
and delivers the remaining records. It never delays the training.

May import: _ground, _ring, _staging, _state, callbacks, _journal, _lanes.
"""
