"""The ids of new jobs. They are made on this side, so that a request that is sent again can't enqueue a job twice."""

from __future__ import annotations

from queuectl_protocol.ids import Ids

_ids = Ids()

make = _ids.make
put_back = _ids.put_back
