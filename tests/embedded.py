"""A mark for tests of the embedded model, which is still being chosen: they run as soon as data/world is committed."""

import pytest

from prunejax.sources import WORLD_FOLDER

needs_world = pytest.mark.skipif(not WORLD_FOLDER.exists(), reason="data/world is not committed yet")
