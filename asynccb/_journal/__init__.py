"""
A run on disk: segments, cursors, kept files. Nothing that was appended is lost.

May import: _ground, _ring, _state.
"""
