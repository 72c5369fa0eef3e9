"""claim -> send -> record: short coroutines, bounded by request slots, joined by one queue.

`lanes` claims for free slots, `sending` carries one batch through its request, `recording`
writes what has gathered. They are given what they call as functions and know no other room.
"""
