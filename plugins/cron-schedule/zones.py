"""The time zones of the world. At run time a plugin finds no files, so they are read when it is built and travel in it."""

import importlib.resources
import io
import zoneinfo

_FOLDER = importlib.resources.files("tzdata")
_NAMES = frozenset((_FOLDER / "zones").read_text(encoding="ascii").split())
_BYTES = {name: _FOLDER.joinpath("zoneinfo", *name.split("/")).read_bytes() for name in _NAMES}


def zone(name):
    """The zone of this name of the IANA database; ValueError for any other."""
    if name not in _BYTES:
        near = sorted(known for known in _NAMES if known.lower() == name.lower() or known.lower().endswith("/" + name.lower()))
        hint = f"; did you mean {' or '.join(near[:3])}?" if near else "; write it as in Europe/Berlin, or UTC"
        raise ValueError(f"'{name[:60]}' is no time zone of the IANA database{hint}")
    return zoneinfo.ZoneInfo.from_file(io.BytesIO(_BYTES[name]), key=name)
