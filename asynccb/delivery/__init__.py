"""
Send HTTP requests, turn their answers into errors, and retry until acknowledged.

No other room imports httpx.

May import: _ground.
"""
