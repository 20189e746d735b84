"""`POST /sampan/check`: is what the data root holds whole? Our own endpoint, behind `sampan system check`.

Query: `repair=1` to set right what can be. The answer is a stream of JSON objects, one a line: each thing
that is wrong as `{"Kind", "Subject", "Problem", "Action", "Repaired"}`, and at the end
`{"Checked": {"Blobs", "Layers", "Images", "Containers"}, "Found", "Left"}` with numbers.
"""

from __future__ import annotations

from sampan.api.routes.images import users_of
from sampan.api.routes.progress import Progress, progress_response
from sampan.engine import Engine
from sampan.http import Request, Response, Routes
from sampan.images import Finding

routes = Routes()


@routes.post("/sampan/check")
async def check(request: Request) -> Response:
    """Look for what is broken, and set it right when asked to."""
    engine: Engine = request.engine
    repair = request.query.flag("repair")
    users, containers = users_of(engine), {*engine.containers, *engine.build_roots}

    def work(tell: Progress) -> None:
        found: list[Finding] = []

        def one(finding: Finding) -> None:
            found.append(finding)
            tell(
                {
                    "Kind": finding.kind,
                    "Subject": finding.subject,
                    "Problem": finding.problem,
                    "Action": finding.action,
                    "Repaired": finding.repaired,
                }
            )

        counts = engine.images.check(users, containers, repair, one)
        checked = {
            "Blobs": counts.blobs,
            "Layers": counts.layers,
            "Images": counts.images,
            "Containers": counts.containers,
        }
        left = sum(not finding.repaired for finding in found)
        tell({"Checked": checked, "Found": len(found), "Left": left})

    return await progress_response(work)
