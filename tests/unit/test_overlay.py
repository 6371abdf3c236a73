"""Options of an overlay that do not fit into a page."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from corten.linux.overlay import fit

NAMES = st.text("abc0123456789", min_size=1, max_size=60)


@given(root=st.lists(NAMES, min_size=1, max_size=4), count=st.integers(1, 500), init=NAMES, read_only=st.booleans())
def test_the_same_folders_are_meant(root, count, init, read_only):
    base = "/" + "/".join(root)
    lower = [f"{base}/inits/{init}", *(f"{base}/layers/{100_000 + number}" for number in range(count))]
    rest = ["ro"] if read_only else [f"upperdir={base}/containers/x/upper", f"workdir={base}/containers/x/work"]
    data = ",".join([*rest, f"lowerdir={':'.join(lower)}"])
    folder, fitting = fit(data)
    if len(data) < 4096:
        assert (folder, fitting) == ("", data)
        return
    assert len(fitting) < 4096 or sum(map(len, rest)) > 400
    options = dict(option.partition("=")[::2] for option in fitting.split(","))
    assert [os.path.normpath(f"{folder}/{path}") for path in options["lowerdir"].split(":")] == lower
    assert [f"{key}={value}" if value else key for key, value in options.items() if key != "lowerdir"] == rest
