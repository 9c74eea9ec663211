"""The settings."""

from __future__ import annotations

from queuectl_protocol.messages import ConfigKeyParams, ConfigListResult, ConfigSetParams, NoParams, Setting
from queuectld.core import settings as core
from queuectld.handlers.context import Context
from queuectld.pool.handles import Peer
from queuectld.queue import configure
from queuectld.queue.configure import Stored
from queuectld.store.base import Reader


def _setting(key: str, stored: Stored) -> Setting:
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
    stored = await context.committer.submit(lambda store: configure.set_setting(store, params.key, params.value))
    return _changed(context, params.key, stored)


async def unset(context: Context, _peer: Peer, params: ConfigKeyParams) -> Setting:
    stored = await context.committer.submit(lambda store: configure.unset_setting(store, params.key))
    return _changed(context, params.key, stored)


def _changed(context: Context, key: str, stored: Stored) -> Setting:
    context.settings = core.with_overrides(stored)
    context.supervisor.settings_changed()
    context.sweeper.settings_changed()
    return _setting(key, stored)
