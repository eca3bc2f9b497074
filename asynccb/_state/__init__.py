"""
The arguments of a hook: state, control and run; live for the loop, frozen for async hooks.

May import: _compiled, _ground, arguments, _staging.
"""
