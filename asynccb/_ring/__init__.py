"""
Records in shared memory that survive their writer's death.

May import: _compiled, _ground.
"""
