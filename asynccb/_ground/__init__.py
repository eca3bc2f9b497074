"""
Definitions that every room uses, without state.

May import: nothing of asynccb.
"""
