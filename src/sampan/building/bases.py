"""The images that stages stand on, and that COPY --from names: found here, or pulled."""

from __future__ import annotations

from collections.abc import Callable

from sampan.building.job import Job
from sampan.engine.core import in_thread
from sampan.errors import NotFound
from sampan.images import Image
from sampan.oci.image import Platform
from sampan.oci.reference import parse
from sampan.registry import Credentials
from sampan.threads import in_new_thread


class Bases:
    """Images by name for one build.

    Args:
        hold: keeps an image, by its id, until the build is over.
    """

    def __init__(self, job: Job, hold: Callable[[str], None]) -> None:
        self._job = job
        self._hold = hold
        self._pulled: set[tuple[str, str]] = set()

    async def image(self, name: str, platform: Platform | None) -> Image:
        """The image of a name, pulled when it is not here or a newer one is wanted.

        Raises:
            SampanError: it cannot be pulled.
        """
        job = self._job
        images = job.core.images
        known = (name, str(platform))
        if not job.options.pull or known in self._pulled:
            try:
                return await in_thread(lambda: self._held(name, platform))
            except NotFound:
                pass
        reference = parse(name).with_default_tag()
        credentials = job.options.credentials.get(reference.domain, Credentials())
        tell, end = job.output.message, job.ending.pulls
        await in_new_thread(lambda: images.pull(reference, credentials, platform, tell, end), "pull")
        self._pulled.add(known)
        job.ending.check()
        return await in_thread(lambda: self._held(reference.familiar, platform))

    def _held(self, name: str, platform: Platform | None) -> Image:
        images = self._job.core.images
        with images.lock:
            image = images.resolve(name, platform)
            self._hold(image.id)
        return image
