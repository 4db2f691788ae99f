"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder of a stack on this machine (default .tailor/), where its address is found.",
        show_default=False,
    ),
]
ModelsDir = Annotated[
    Path, typer.Option(envvar="TAILOR_MODELS_DIR", help="Folder of the base models.")
]
MODELS = Path(__file__).parents[1] / ".models"
