"""
One HTTP request, and what its answer means; retried until acknowledged.

The only room that imports httpx.

May import: _ground.
"""
