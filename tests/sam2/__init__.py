from importlib.util import find_spec

import pytest

# not importorskip: every worker would import what the tests of one or two need
needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="needs transformers")
