"""The two errors that a user of the course may meet; each message says what is wrong and what to do."""


class CourseError(Exception):
    """A setting, a version or a saved run that the course cannot work with."""


class DataError(CourseError):
    """Images, labels or weights that are missing, damaged, or not what the course expects."""
