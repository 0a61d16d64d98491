"""HTML as a tree of elements, so that every text and attribute is escaped when it is written."""

from xml.etree import ElementTree

from sklearn_rrr.command_line.outcomes import readable


def tag(name, /, *children, **attributes):
    """Return an element.

    Parameters
    ----------
    name : str
        Such as "p".
    *children : element, list, str, number or None
        Texts are escaped; None is left out; a list stands for its items.
    **attributes : str or None
        A trailing underscore, as in ``class_``, is removed; None is left out.

    Returns
    -------
    element : xml.etree.ElementTree.Element
    """
    given = {k.rstrip("_"): readable(v) for k, v in attributes.items() if v is not None}
    element = ElementTree.Element(name, given)
    _append(element, children)
    return element


def table(header, rows, class_=None):
    """Return a table that scrolls sideways on a narrow screen.

    Parameters
    ----------
    header : sequence of children or None
    rows : iterable of sequences of children
        The first cell of a row is its heading.
    class_ : str or None, default=None
    """
    rows = [(tag("th", first, scope="row"), *map(_cell, cells)) for first, *cells in rows]
    head = None
    if header:
        classes = [cell.get("class") for cell in rows[0]] if rows else [None] * len(header)
        cells = zip(header, classes, strict=True)
        head = tag("thead", tag("tr", [tag("th", c, scope="col", class_=k) for c, k in cells]))
    body = [tag("tr", *cells) for cells in rows]
    return tag("div", tag("table", head, tag("tbody", body), class_=class_), class_="scroll")


def name_of(text):
    """Return a name from outside; its direction of writing does not affect the text around it."""
    return tag("bdi", text)


def write_document(title, style, *body):
    """Return a complete HTML document as text.

    Parameters
    ----------
    title, style : str
        `style` is CSS and is not escaped.
    *body : children
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
    )
    ElementTree.SubElement(head, "style").text = style
    root = tag("html", head, tag("body", tag("main", *body)), lang="en")
    return "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="unicode", method="html")


def _cell(content):
    is_cell = isinstance(content, ElementTree.Element) and content.tag == "td"
    return content if is_cell else tag("td", content)


def _append(element, children):
    for child in children:
        if isinstance(child, (list, tuple)):
            _append(element, child)
        elif isinstance(child, ElementTree.Element):
            element.append(child)
        elif child is not None:
            text = readable(child)
            if len(element):
                element[-1].tail = (element[-1].tail or "") + text
            else:
                element.text = (element.text or "") + text
