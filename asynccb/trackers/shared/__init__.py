"""
Code that several trackers share.

May import: names.
"""
