"""Run every check; exit with 1 if one fails."""

import sys

from lint.names import repeated_names
from lint.words import refused_words

complaints = [*refused_words(), *repeated_names()]
sys.exit("\n".join(complaints) or None)
