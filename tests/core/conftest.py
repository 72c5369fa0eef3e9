"""Settings of hypothesis for the tests of core: no deadline, because machines are busy."""

from hypothesis import settings

settings.register_profile("core", deadline=None)
settings.load_profile("core")
