"""
What a hook is given: state, control, run; live for the loop, frozen for hooks.

May import: _ground, arguments, _staging.
"""
