"""The picture of a menu: right answers against length, with the front."""

from __future__ import annotations

from pipeline.storage import AnyPath, uploaded
from router.menu.menu import PICTURE_FILE, Menu


def draw_front(menu: Menu, folder: AnyPath) -> None:
    """Draw the menu's programs on held-out examples into ``front.png`` of its folder.

    Raises:
        OSError: The picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    base = menu.programs[0]
    for is_front, label, style in ((False, "for some prompts", "o"), (True, "better than all shorter ones", "D")):
        some = [one for one in menu.programs if one.on_front == is_front]
        if some:
            axes.errorbar(
                [len(one.program) for one in some],
                [100 * one.right for one in some],
                yerr=[
                    [max(0.0, 100 * (one.right - one.low)) for one in some],
                    [max(0.0, 100 * (one.high - one.right)) for one in some],
                ],
                fmt=style,
                capsize=2,
                label=label,
            )
    axes.axhline(100 * base.right, color="black", linewidth=0.6, linestyle=":", label="the base model")
    axes.axvline(menu.settings.num_layers, color="black", linewidth=0.6)
    axes.set(
        title=f"Menu of {len(menu.programs)} programs on {menu.settings.num_held_out} held-out examples",
        xlabel="layers",
        ylabel="% right",
    )
    axes.legend(fontsize=8)
    with uploaded(folder / PICTURE_FILE) as file:
        FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]
