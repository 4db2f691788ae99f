"""Its ``__main__`` is ours, its other modules are the real ones."""

from pathlib import Path

__path__ = [*__path__, str(Path(__file__).parents[6] / "services" / "inference")]
