"""
From what is logged to plain numbers; no call waits for a device.

The only room that reads a tensor.

May import: _ground, _ring.
"""
