"""The settings."""

from __future__ import annotations

from queuectl_protocol.messages import ConfigKeyParams, ConfigListResult, ConfigSetParams, NoParams, Setting
from queuectld.core import settings as core
from queuectld.handlers.context import Context
from queuectld.pool.supervisor import Peer
from queuectld.store.base import Reader, Store


def _setting(key: str, stored: dict[str, int | float]) -> Setting:
    rule = core.definition(key)
    return Setting(
        key=key,
        value=getattr(core.with_overrides(stored), key),
        default=rule.default,
        is_set=key in stored,
        description=rule.description,
    )


async def list_(context: Context, _peer: Peer, _params: NoParams) -> ConfigListResult:
    stored = await context.readers.run(lambda reader: reader.settings())
    return ConfigListResult(settings=[_setting(key, stored) for key in core.DEFINITIONS])


async def get(context: Context, _peer: Peer, params: ConfigKeyParams) -> Setting:
    def read(reader: Reader) -> Setting:
        return _setting(params.key, reader.settings())

    return await context.readers.run(read)


async def set_(context: Context, _peer: Peer, params: ConfigSetParams) -> Setting:
    def operation(store: Store) -> dict[str, int | float]:
        # Checked against what is stored at this moment, not against what was in force when the request came.
        value = core.check(params.key, params.value, core.with_overrides(store.settings()))
        store.set_setting(params.key, value)
        return store.settings()

    return _changed(context, params.key, await context.committer.submit(operation))


async def unset(context: Context, _peer: Peer, params: ConfigKeyParams) -> Setting:
    def operation(store: Store) -> dict[str, int | float]:
        rule = core.definition(params.key)
        # A default can be at odds with another setting that was changed.
        core.check(params.key, rule.default, core.with_overrides(store.settings()))
        store.unset_setting(params.key)
        return store.settings()

    return _changed(context, params.key, await context.committer.submit(operation))


def _changed(context: Context, key: str, stored: dict[str, int | float]) -> Setting:
    context.settings = core.with_overrides(stored)
    context.supervisor.settings_changed()
    context.retention.settings_changed()
    return _setting(key, stored)
