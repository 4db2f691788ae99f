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
