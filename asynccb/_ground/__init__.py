"""
Vocabulary that every room uses; no state.

May import: nothing of asynccb.
"""
