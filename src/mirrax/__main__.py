"""`python -m mirrax` is the command `mirrax`."""

import sys

from .cli import main

sys.exit(main())
