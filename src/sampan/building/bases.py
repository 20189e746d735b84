"""The images that stages stand on, and that COPY --from names: found here, or pulled."""

from __future__ import annotations

from sampan.building.ending import Ending
from sampan.building.options import BuildOptions
from sampan.building.output import Output
from sampan.engine import Core
from sampan.engine.core import in_thread
from sampan.errors import NotFound
from sampan.images import Image
from sampan.oci.image import Platform
from sampan.oci.reference import parse
from sampan.registry import Credentials


class Bases:
    """Images by name for one build.

    Args:
        ending: ends a pull.
    """

    def __init__(self, core: Core, options: BuildOptions, output: Output, ending: Ending) -> None:
        self._core = core
        self._options = options
        self._output = output
        self._ending = ending
        self._pulled: set[tuple[str, str]] = set()

    async def image(self, name: str, platform: Platform | None) -> Image:
        """The image of a name, pulled when it is not here or a newer one is wanted.

        Raises:
            SampanError: it cannot be pulled.
        """
        images = self._core.images
        known = (name, str(platform))
        if not self._options.pull or known in self._pulled:
            try:
                return await in_thread(lambda: images.resolve(name, platform))
            except NotFound:
                pass
        reference = parse(name).with_default_tag()
        credentials = self._options.credentials.get(reference.domain, Credentials())
        await in_thread(
            lambda: images.pull(reference, credentials, platform, self._output.message, self._ending.pulls)
        )
        self._pulled.add(known)
        self._ending.check()
        return await in_thread(lambda: images.resolve(reference.familiar, platform))
