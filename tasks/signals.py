"""What is told of builds to whoever listens in a worker's processes (its log, its metrics).

They are Celery's own kind of signal: a listener that fails is logged, and the build goes on.
"""

from celery.utils.dispatch import Signal

build_began = Signal(name="build_began", providing_args=["build"])
"""The entry took a request; `build` is the `Build`."""

build_ended = Signal(name="build_ended", providing_args=["build", "report"])
"""A report was written, once for each build; `report` is the `BuildReport`."""

step_ended = Signal(name="step_ended", providing_args=["step", "seconds"])
"""A step has done its work, and the chain goes on; `seconds` is how long this run of it took."""

step_retried = Signal(name="step_retried", providing_args=["step"])
"""A step will be tried again after a transient error."""

step_redelivered = Signal(name="step_redelivered", providing_args=["step"])
"""A step was taken over from a worker that died."""

message_refused = Signal(name="message_refused", providing_args=[])
"""A message was put with the dead letters, since nobody can work with it."""

cache_asked = Signal(name="cache_asked", providing_args=["cache", "hit"])
"""Something kept from an earlier build was looked for: `cache` is `source` (the fetched tree of a
commit or an archive on the node), `hash` (the hash of one) or `image` (an image from which only code
differs); `hit` says whether it was there, and did.
"""

context_stored = Signal(name="context_stored", providing_args=["size"])
"""A build context is stored; `size` is that of its files, in bytes."""
