"""
Code that several trackers share.

May import: nothing of trackers.
"""
