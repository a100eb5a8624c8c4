"""``python -m minirag``."""

import sys

from minirag.cli.main import main

sys.exit(main())
