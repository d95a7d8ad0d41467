"""A file-io for PyIceberg whose data files go to `/dev/full`: every write to it fails as on a full disk."""

from __future__ import annotations

from pyarrow.fs import LocalFileSystem
from pyiceberg.io import InputFile, OutputFile
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

NAME = f"{__name__}.FullDisk"
"""For PyIceberg's property `py-io-impl`."""


class FullDisk(PyArrowFileIO):
    """Everything but data files is where it is."""

    def new_output(self, location: str) -> PyArrowFile:
        if "/data/" in location:
            return PyArrowFile(location=location, path="/dev/full", fs=LocalFileSystem())
        return super().new_output(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        if "/data/" not in str(location):
            super().delete(location)
