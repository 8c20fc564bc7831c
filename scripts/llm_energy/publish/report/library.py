"""Return the library that draws the plots of the page, or the reason why it cannot be had here."""

from __future__ import annotations

import resource
import subprocess
import sys

BUNDLE = "import sys, vl_convert; sys.stdout.write(vl_convert.javascript_bundle())"


def drawing_library() -> tuple[str, str | None]:
    """Return the JavaScript of Vega-Embed and None; or nothing and why there is none.

    It is bundled by V8, which reserves tens of GB of addresses, uses few of them, and takes the
    whole process down where a batch system (``ulimit -v``) refuses that. So under such a limit a
    process of its own tries it.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        import vl_convert

        return vl_convert.javascript_bundle(), None
    done = subprocess.run([sys.executable, "-c", BUNDLE], capture_output=True)
    if done.returncode == 0:
        return done.stdout.decode("utf-8"), None
    return "", (
        f"the address space of a process is limited to {limit / 1e9:.0f} GB here (ulimit -v), and "
        "what bundles the plots reserves more; make the report without that limit"
    )
