"""``python -m mlflow_hp.cli``."""

import sys

from mlflow_hp.cli.main import main

sys.exit(main())
