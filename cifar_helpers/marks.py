"""What must be said beside every result: the data are a stand-in, the backbone is untrained."""

STAND_IN = "generated stand-in, not CIFAR-10"
RANDOM_BACKBONE = "untrained backbone"

_current: set[str] = set()


def add(mark: str) -> None:
    """From now on, `marked` appends this mark."""
    _current.add(mark)


def discard(mark: str) -> None:
    """Take a mark back; nothing happens where it was not set."""
    _current.discard(mark)


def marked(title: str) -> str:
    """A plot's title, with whatever a reader must know before believing the plot.

    Returns the title unchanged where the images are CIFAR-10 and the backbone is pretrained.
    """
    return " · ".join([title, *sorted(_current)]) if _current else title
