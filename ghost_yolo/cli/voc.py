"""Command `voc`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.cli.common import new_folder, refuse_options, show
from ghost_yolo.errors import UserError, VOCError, shorten


def voc(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Pascal VOC folder: Annotations/ and JPEGImages/ in it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for images/, labels/ and data.yaml.")],
    names: Annotated[
        str,
        typer.Option(
            help="Class names in their order: comma-separated, or a file with one a line; another class is an error then. "
            "Default: those of the annotations, sorted."
        ),
    ] = "",
    val: Annotated[
        float, typer.Option(help="Share of each class for val, where the folder has no ImageSets/Main/train.txt.")
    ] = 0.1,
    test: Annotated[float, typer.Option(help="Likewise for test; 0 for none.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Random seed of that split.")] = 0,
) -> None:
    """Convert a Pascal VOC folder to a data set for `yolo train`, checked and counted by class.

    The split is that of ImageSets/Main; a folder without one is divided class by class. The data set is written whole or
    not at all; problems are counted, and the first ten named.
    """
    with redirect_stdout(sys.stderr):
        from ghost_yolo.data.splits import Draw, choose_splits, describe
        from ghost_yolo.data.voc import convert, read_names, require_voc, write_data_yaml
        from ghost_yolo.utils.files import atomic_folder

        target, chosen = new_folder(out, "voc"), read_names(names)
        require_voc(folder)
        splits = choose_splits(folder, Draw(val, test, seed))
        if not isinstance(splits, Draw):
            refuse_options(context, f"the split in {folder / 'ImageSets/Main'}", ("val", "test", "seed"))
        try:
            with atomic_folder(target) as work:
                result = convert(folder, work, chosen, splits)
                write_data_yaml(work, result)
        except VOCError as error:  # one a line: they are many
            print("\n".join(shorten(error.problems)), file=sys.stderr)
            raise UserError(f"{folder}: {error.count}; nothing was written") from error
    show(result.table)
    print(f"split: {describe(splits, folder)}", file=sys.stderr)
    print("".join(f"ghost-yolo: warning: {line}\n" for line in result.warnings), end="", file=sys.stderr)
    print(f"wrote {target}; train with data={target / 'data.yaml'}", file=sys.stderr)
