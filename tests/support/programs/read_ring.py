"""Read records from an inherited ring until there were enough; print their number and digest."""

import hashlib
import sys
import time

from asynccb._journal.writer import split_frames
from asynccb._ring.frame import HEADER
from asynccb._ring.ring import RingReader

reader = RingReader(int(sys.argv[1]))
wanted = int(sys.argv[2])
count = 0
digest = hashlib.sha256()
while count < wanted:
    frames, _, _ = reader.read()
    for record, start, _ in split_frames(frames):
        assert record == count, (record, count)
        length = HEADER.unpack_from(frames, start - HEADER.size)[0]
        digest.update(b"%d " % length + frames[start : start + length])
        count += 1
    reader.release()
    time.sleep(0.0005)
print(count, digest.hexdigest())
