"""Write docs/blocks.md and its drawings from the table of blocks and the docstrings of the rooms.

python docs/blocks.py
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import thop
import torch
from drawing import panels_of, svg
from torch import nn
from ultralytics.nn.modules.block import C2f
from ultralytics.utils.torch_utils import fuse_conv_and_bn

