"""How nbconvert makes slides of the notebooks, and pages.

    jupyter nbconvert --to slides --config slides_config.py 00_quickstart.ipynb

Slides are wide enough for lines of 100 letters, show a picture without the code where both do not
fit, and are made smaller where they are too tall all the same. Pictures get their alternative text,
which nbconvert itself leaves out.
"""

from html import escape

LONGEST_WITH_PICTURE = 10       # lines of code above a picture on a slide
SMALLEST = 0.4                  # of its size, to which a slide shrinks
FIT = f"""<script>
function fit() {{
    const slide = document.querySelector(".reveal section.present:not(:has(section))");
    for (let zoom = 1; slide && zoom >= {SMALLEST}; zoom -= 0.02) {{
        slide.style.zoom = zoom;
        if (slide.getBoundingClientRect().height <= 0.97 * innerHeight) return;
    }}
}}
for (const moment of ["ready", "slidechanged", "resize"]) addEventListener(moment, fit);
</script>
"""


def describe(notebook, resources):
    """Every picture with an alternative text becomes an <img> that has it."""
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        about = output.get("metadata", {}).get("image/png", {})
        if "alt" in about and "image/png" in output.data:
            width = f' width="{about["width"]}"' if "width" in about else ""
            picture = output.data.pop("image/png").replace("\n", "")
            output.data["text/html"] = (f'<img alt="{escape(about["alt"])}"{width} '
                                        f'src="data:image/png;base64,{picture}">')
    return notebook, resources


def shorten(notebook, resources):
    """Leaves out long code above a picture, and makes a slide smaller that is still too tall."""
    notebook.cells[0].source += f"\n\n{FIT}"
    for cell in notebook.cells:
        pictures = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
        if pictures and cell.source.count("\n") >= LONGEST_WITH_PICTURE:
            cell.metadata["transient"] = {"remove_source": True}
    return notebook, resources


c = get_config()                                    # noqa: F821, nbconvert's
c.HTMLExporter.preprocessors = [describe]
c.SlidesExporter.preprocessors = [shorten, describe]
c.SlidesExporter.reveal_width, c.SlidesExporter.reveal_height = "1300", "732"
