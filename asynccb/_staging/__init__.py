"""
Turns logged values into plain numbers; no call waits for a device.

This is the only room that reads tensors.

May import: _compiled, _ground, _ring.
"""
