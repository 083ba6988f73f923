"""`python -m jtrust`."""

import sys

from jtrust.cli import main

sys.exit(main())
