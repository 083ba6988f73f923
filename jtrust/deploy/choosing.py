"""By what an episode is drawn, and where to: what there is here decides, before anything is run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jtrust import checks
from jtrust.deploy import drawing, files, plot
from jtrust.deploy.camera import names as camera_names
from jtrust.deploy.clips import Clip
from jtrust.deploy.look import with_light
from jtrust.deploy.page import write_page
from jtrust.deploy.pictures import NothingDraws, Painter, open_painter
from jtrust.deploy.scene import Scene
from jtrust.deploy.settings import Settings, settings_for, suffix_of
from jtrust.environments import Environment

_HTML_INSTEAD = ".html needs none of it"


@dataclasses.dataclass(frozen=True)
class Way:
    """How episodes become a file.

    Attributes:
      output: the file.
      settings: how a picture is made.
      scene: what is drawn; None where there is no model, and a plot is made.
      painter: who draws pictures; None where a browser does, or a plot is made.
    """

    output: Path
    settings: Settings
    scene: Scene | None
    painter: Painter | None = None

    @property
    def drawn_by(self) -> str:
        """As `render` returns it."""
        if self.scene is None:
            return "matplotlib"
        return "browser" if self.painter is None else self.painter.backend

    def write(self, clips: Sequence[Clip], heading: str) -> int:
        """Writes the file; returns how many pictures it has.

        Raises:
          BadArgument: it cannot be written, or who draws has stopped.
        """
        if self.scene is None:
            plot.write_plot(self.output, clips, heading)
            return len(clips)
        if self.painter is None:
            data = drawing.page_data(self.scene, clips, self.settings, heading)
            files.write_text(self.output, write_page(data, heading))
            return sum(episode["frames"] for episode in data["episodes"])
        given = self.painter, self.scene, clips, self.settings, heading
        try:
            if self.settings.suffix == ".png":
                return files.write_strip(self.output, drawing.strips(*given))
            frames, rate = drawing.frames(*given), self.settings.rate(self.scene.dt)
            write = files.write_gif if self.settings.suffix == ".gif" else files.write_mp4
            return write(self.output, frames, rate)
        except NothingDraws as error:
            raise checks.BadArgument(
                "output", self.output, f"stopped being drawn ({error}); {_HTML_INSTEAD}"
            ) from error


@contextlib.contextmanager
def way_to(
    output: Path, environment: Environment, scene: Scene | None, how: Mapping[str, Any],
    say: Callable[[str], None],
) -> Iterator[Way]:
    """What there is to draw with; what it holds is given back at the end.

    Args:
      output: file to write; without a suffix one is chosen: .mp4, .html where no video can be made
        here, .png where there is nothing to draw but a plot.
      environment: whose episodes.
      scene: of `find_scene`.
      how: what `settings_for` takes.
      say: told what was chosen, and why.

    Raises:
      BadArgument: there is nothing that writes such a file.
    """
    if scene is None:
        yield _plotted(output, environment, how)
        return
    scene = dataclasses.replace(scene, model=with_light(scene.model))
    if how.get("camera") is not None:
        checks.one_of("camera", how["camera"], camera_names(scene.model))
    with contextlib.ExitStack() as stack:
        if output.suffix:
            settings = settings_for(suffix_of(output), **how)
            painter, why = _painter(scene, settings)
            if why:
                raise checks.BadArgument("output", str(output), f"{why}; {_HTML_INSTEAD}")
        else:
            settings = settings_for(".mp4", **how)
            painter, why = _painter(scene, settings)
            if why:
                settings = settings_for(".html", **_of_a_page(how))
            output = output.with_suffix(settings.suffix)
            say(f"{output}" + f", since {why}" * bool(why))
        if painter is not None:
            stack.enter_context(painter)
        files.check_writable(output)
        yield Way(output, settings, scene, painter)


def _plotted(output: Path, environment: Environment, how: Mapping[str, Any]) -> Way:
    output = output if output.suffix else output.with_suffix(".png")
    suffix = suffix_of(output)
    if suffix not in plot.SUFFIXES:
        raise checks.BadArgument(
            "output", str(output), f"{environment.name} has no MuJoCo model to draw; .png and "
            ".html are a plot of observations, actions and rewards"
        )
    plot.check_library()
    files.check_writable(output)
    return Way(output, settings_for(suffix, **_of_a_page(how)), None)


def _painter(scene: Scene, settings: Settings) -> tuple[Painter | None, str]:
    """Who draws, None where a browser does; and what is missing."""
    if settings.suffix == ".html":
        return None, ""
    try:
        files.check_libraries(settings.suffix)
        return open_painter(scene.model, settings.width, settings.height), ""
    except NothingDraws as error:
        return None, f"no OpenGL draws here ({error})"
    except checks.BadArgument as error:
        return None, error.remedy


def _of_a_page(how: Mapping[str, Any]) -> dict[str, Any]:
    """Of settings those that mean something where no pictures are taken."""
    return {k: v for k, v in how.items() if k not in ("width", "height", "camera")}
