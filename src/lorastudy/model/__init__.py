"""Base models, their linear modules, placements, adapters, and the score of a batch."""

import logging

# PEFT imports it wherever it is installed, and it then advises to install kernels not used here
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
