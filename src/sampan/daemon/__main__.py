"""`python -m sampan.daemon` is `sampand`."""

import sys

from sampan.daemon.main import main

sys.exit(main())
