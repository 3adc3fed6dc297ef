"""Unit tests draw into memory: no test opens a window, also where a display is there."""

import matplotlib

matplotlib.use("Agg")  # in this process only; a notebook's kernel shows its figures inline
