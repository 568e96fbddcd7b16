"""Import blocker: with this folder on PYTHONPATH, the packages in OCTAVO_TEST_MISSING cannot be found, by children neither."""

import os
import sys

for package in filter(None, os.environ.get("OCTAVO_TEST_MISSING", "").split(",")):
    sys.modules[package] = None  # type: ignore[assignment]
