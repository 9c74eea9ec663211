"""Changing settings, and the size of the pool."""

from __future__ import annotations

from queuectld.core import settings
from queuectld.store.base import Store

Stored = dict[str, int | float]


def set_setting(store: Store, key: str, given: float | str) -> Stored:
    """Store a setting; all that are set after it.

    Raises:
        ProtocolError: `not_found`, `invalid_params`.
    """
    # Checked against what is stored at this moment, not against what was in force when the request came.
    value = settings.check(key, given, settings.with_overrides(store.settings()))
    store.set_setting(key, value)
    return store.settings()


def unset_setting(store: Store, key: str) -> Stored:
    """Go back to a setting's default; all that are set after it.

    Raises:
        ProtocolError: `not_found`; `invalid_params` where the default is at odds with another setting.
    """
    settings.check(key, settings.definition(key).default, settings.with_overrides(store.settings()))
    store.unset_setting(key)
    return store.settings()


def resize(store: Store, workers: int) -> None:
    """Store how many workers there are to be, over restarts too."""
    store.set_desired_workers(workers)
