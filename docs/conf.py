project = "Holdfire"
author = "The Holdfire authors"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "Holdfire"
myst_heading_anchors = 3
