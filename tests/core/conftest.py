"""What the tests of the core share: properties without a deadline, for machines are busy."""

from hypothesis import settings

settings.register_profile("core", deadline=None)
settings.load_profile("core")
