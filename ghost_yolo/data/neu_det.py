"""NEU-DET, the photographs of steel surfaces: from a local Pascal VOC copy; it is not downloaded, for it has no licence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ghost_yolo.data.prepare import Content, content_of, local_copy, prepare_from, warn_if_other
from ghost_yolo.data.splits import Draw, choose_splits
from ghost_yolo.errors import DatasetError

LOCAL = "GHOST_YOLO_NEU_DET_DIR"
PAGE = "http://faculty.neu.edu.cn/songkechen/zh_CN/zhym/263269/list/index.htm"  # as papers cite it
DRAW = Draw(val=0.1, test=0.2, seed=20261128)  # of every class: 210 images for train, 30 for val, 60 for test
PREPARED = ("images/*/*.jpg", "labels/*/*.txt")
HELP = (
    f"The authors, K. Song and Y. Yan of Northeastern University (Applied Surface Science 285, 2013, "
    f"doi:10.1016/j.apsusc.2013.09.002), publish it for research at {PAGE}. Put its .xml files into a folder Annotations/ "
    f"and its images into JPEGImages/ beside it, and set {LOCAL} to the folder that holds the two."
)

# The prepared data set on which this project's figures were measured: 1800 images and as many label files
CONTENT = Content(3600, 26_950_262, "af2fb73d24b30e216522ef5c0fcefb1a239e2da8031608bbcb7a3a6e3ad4a1e4")


def prepare(root: str | Path, names: Mapping[int, str]) -> None:
    """Write the YOLO data set at `root`, completely or not at all.

    The split is that of ImageSets/Main where the copy has one, else DRAW.

    Args:
        root: Folder to make.
        names: Class index to class name.

    Raises:
        DatasetError: If there is no local copy.
        VOCError: If an annotation is invalid.
    """
    voc = local_copy(LOCAL, HELP)
    if voc is None:
        raise DatasetError(f"The NEU-DET images are not at {root}, and {LOCAL} is not set. {HELP}")
    prepare_from(voc, Path(root), names, choose_splits(voc, DRAW))
    warn_if_other(Path(root), "NEU-DET", content_of(Path(root), PREPARED), CONTENT)
