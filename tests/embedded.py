"""A mark for tests of the committed records, which take hours to make: they run as soon as data/records is there."""

import pytest

from prunejax.sources import RECORDS

needs_records = pytest.mark.skipif(not RECORDS.exists(), reason="data/records is not committed yet")
